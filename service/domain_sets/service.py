"""Creating revisions and describing them with the state of their preparation."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mixing.domains import check_names
from mixing.errors import MixingError
from proxy_models.corpus import probe, read_documents
from proxy_models.errors import ProxyError, TooLittleText
from proxy_models.held_out import MINIMUM_BYTES, document_digest, is_held_out
from proxy_models.token_files import is_pretokenized
from service.database import jobs
from service.database.models import DomainRow, DomainSet, Job, Revision
from service.database.preparation import preparation_failure, preparation_state
from service.domain_sets.repository import jobs_of, revision_of
from service.domain_sets.schemas import (
    ChangesView,
    DomainRequest,
    DomainSetRequest,
    DomainSetView,
    DomainView,
    RevisionRequest,
    RevisionSummary,
    RevisionView,
    TokenizerRequest,
)
from service.errors import Conflict, Invalid, NotReady, invalid
from service.files import resolve_files, resolve_place
from service.schemas import ProgressView, failure_of
from service.settings import Settings

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
PROBE_BYTES = 4 * 2**20
"""How much of each domain's text is read while the request waits; the rest is read by its counting job."""


@dataclass(frozen=True, slots=True)
class CheckedDomain:
    """A domain whose name and files were found to be good."""

    request: DomainRequest
    files: tuple[Path, ...]


def check_domains(
    request: RevisionRequest, settings: Settings, held_out_fraction: float
) -> list[CheckedDomain]:
    """Validate names and files before anything is stored. Raises Invalid naming the field and the domain."""
    if len(request.domains) > settings.max_domains:
        raise Invalid("too_many_domains", f"At most {settings.max_domains} domains.", "domains")
    _check_names([domain.name for domain in request.domains])
    return [
        _check_files(domain, index, settings, held_out_fraction)
        for index, domain in enumerate(request.domains)
    ]


def _check_names(names: list[str]) -> None:
    """Well-formed, unique, and leaves; the field at fault is the last one that has a name the error names."""
    try:
        check_names(names)
    except MixingError as error:
        index = max(index for index, name in enumerate(names) if name in error.names)
        raise invalid(error, f"domains[{index}].name") from error


def _check_files(
    domain: DomainRequest, index: int, settings: Settings, held_out_fraction: float
) -> CheckedDomain:
    files: dict[Path, None] = {}
    for position, pattern in enumerate(domain.files):
        field = f"domains[{index}].files[{position}]"
        for path in resolve_files(pattern, settings.roots, field):
            if path in files:
                raise Invalid("duplicate_file", f"{str(path)!r} is named twice by {domain.name!r}.", field)
            files[path] = None
    field = f"domains[{index}].files"
    paths = list(files)
    try:
        found = probe(paths, PROBE_BYTES)
        if found.complete and not any(map(is_pretokenized, paths)):
            _check_held_out(domain.name, paths, held_out_fraction)
    except TooLittleText as error:
        raise Invalid(error.code, str(error), field) from error
    except ProxyError as error:
        raise Invalid(error.code, f"Domain {domain.name!r}: {error}", field) from error
    return CheckedDomain(domain, tuple(paths))


def _check_held_out(name: str, paths: Sequence[Path], fraction: float) -> None:
    """Refuse a small domain at once whose split leaves too little on either side; a large one is counted first."""
    sides = Counter[bool]()
    for path in paths:
        for document in read_documents(path):
            text = document.encode()
            sides[is_held_out(document_digest(document), fraction)] += len(text)
    if sides[True] < MINIMUM_BYTES or sides[False] == 0:
        raise TooLittleText(
            name,
            f"{fraction:g} of its documents held out are {sides[True]} bytes, {sides[False]} are left to train "
            f"on, and a held-out slice needs {MINIMUM_BYTES}; add text, cut it into smaller documents or raise "
            "held_out_fraction",
        )


def check_tokenizer(request: TokenizerRequest, settings: Settings) -> dict[str, object]:
    """The tokenizer as stored: a path below the data roots, resolved, or a name on the Hugging Face hub.

    Raises Invalid for a path elsewhere, and for a name that could be taken for a file of the service's own.
    """
    name = request.huggingface
    if name is None:
        return {"vocabulary_size": request.vocabulary_size}
    field = "tokenizer.huggingface"
    if name.startswith(("/", ".", "~")):
        return {"huggingface": str(resolve_place(name, settings.roots, field))}
    if not _HUB_NAME.fullmatch(name) or ".." in name or Path(name).exists():
        raise Invalid("bad_path", f"{name!r} is neither an absolute path nor a name on the hub.", field)
    return {"huggingface": name}


def create_domain_set(
    session: Session,
    request: DomainSetRequest,
    tokenizer: dict[str, object],
    domains: Sequence[CheckedDomain],
) -> str:
    """Store a new domain set with revision 1 and the job that prepares it; answers the revision's id."""
    if session.scalar(select(DomainSet.id).where(DomainSet.name == request.name)):
        raise Conflict(
            "domain_set_exists",
            f"There is a domain set {request.name!r} already; POST a revision of it instead.",
            "name",
        )
    domain_set = DomainSet(name=request.name)
    session.add(domain_set)
    session.flush()
    revision = Revision(
        domain_set_id=domain_set.id,
        number=1,
        tokenizer=tokenizer,
        held_out_fraction=request.held_out_fraction,
        evaluation_bytes=request.evaluation_bytes,
        content_hash=_definition_hash(tokenizer, request.held_out_fraction, domains),
        changes={"added": sorted(d.request.name for d in domains), "removed": [], "revised": []},
    )
    return _store_revision(session, revision, domains)


def create_revision(session: Session, name: str, domains: Sequence[CheckedDomain]) -> str:
    """Store the next revision of ``name``, with its parent's tokenizer so that old runs stay comparable."""
    parent = revision_of(session, name)
    definition = _definition_hash(parent.tokenizer, parent.held_out_fraction, domains)
    if definition == parent.content_hash:
        raise Conflict(
            "revision_unchanged", f"Revision {parent.number} of {name!r} is exactly this already.", "domains"
        )
    revision = Revision(
        domain_set_id=parent.domain_set_id,
        number=parent.number + 1,
        parent_id=parent.id,
        tokenizer=parent.tokenizer,
        tokenizer_path=parent.tokenizer_path,
        vocabulary_size=parent.vocabulary_size,
        held_out_fraction=parent.held_out_fraction,
        evaluation_bytes=parent.evaluation_bytes,
        content_hash=definition,
        changes=_changes(parent, domains),
    )
    return _store_revision(session, revision, domains)


def _store_revision(session: Session, revision: Revision, domains: Sequence[CheckedDomain]) -> str:
    session.add(revision)
    session.flush()
    for domain in domains:
        session.add(
            DomainRow(
                revision_id=revision.id,
                name=domain.request.name,
                files=[str(path) for path in domain.files],
                declared_tokens=domain.request.tokens,
                declared_bytes=domain.request.size_bytes,
            )
        )
    session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
    session.flush()
    return revision.id


def _file_identity(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _definition_hash(
    tokenizer: Mapping[str, object], held_out_fraction: float, domains: Sequence[CheckedDomain]
) -> str:
    definition = {
        "tokenizer": dict(tokenizer),
        "held_out_fraction": held_out_fraction,
        "domains": {
            domain.request.name: {
                "files": [_file_identity(path) for path in sorted(domain.files)],
                "tokens": domain.request.tokens,
                "size_bytes": domain.request.size_bytes,
            }
            for domain in domains
        },
    }
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def _changes(parent: Revision, domains: Sequence[CheckedDomain]) -> dict[str, list[str]]:
    old = {row.name: (sorted(row.files), row.declared_tokens, row.declared_bytes) for row in parent.domains}
    new = {
        domain.request.name: (
            sorted(map(str, domain.files)),
            domain.request.tokens,
            domain.request.size_bytes,
        )
        for domain in domains
    }
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "revised": sorted(name for name in new.keys() & old.keys() if new[name] != old[name]),
    }


def describe_revision(session: Session, revision: Revision) -> RevisionView:
    """The revision with what its preparation has counted so far."""
    work = {job.subject: job for job in jobs_of(session, revision.id)}
    domains = [_describe_domain(row, work.get(row.id)) for row in revision.domains]
    state = preparation_state(revision, list(work.values()))
    counts = [domain.tokens for domain in domains]
    parent = session.get(Revision, revision.parent_id) if revision.parent_id else None
    return RevisionView(
        id=revision.id,
        domain_set=revision.domain_set.name,
        number=revision.number,
        parent=parent.number if parent else None,
        state=state,
        progress=ProgressView(
            done=sum(domain.state == jobs.SUCCEEDED for domain in domains), total=len(domains), unit="domains"
        ),
        tokenizer=revision.tokenizer,
        vocabulary_size=revision.vocabulary_size,
        held_out_fraction=revision.held_out_fraction,
        evaluation_bytes=revision.evaluation_bytes,
        tokens=sum(filter(None, counts)) if None not in counts else None,
        changes=ChangesView(**revision.changes),
        domains=domains,
        failure=failure_of(*(preparation_failure(revision, list(work.values())) or (None, None))),
        created_at=revision.created_at,  # pyright: ignore[reportArgumentType] - Time accepts epoch seconds
    )


def _describe_domain(row: DomainRow, job: Job | None) -> DomainView:
    progress = job.progress if job else None
    return DomainView(
        name=row.name,
        files=row.files,
        declared_tokens=row.declared_tokens,
        declared_bytes=row.declared_bytes,
        tokens=row.tokens,
        size_bytes=row.counted_bytes,
        documents=row.documents,
        held_out_bytes=row.held_out_bytes,
        content_hash=row.content_hash,
        state=job.state if job else jobs.QUEUED,
        progress=ProgressView(**{name: progress[name] for name in ("done", "total", "unit")})
        if progress and job and job.state in jobs.HELD
        else None,
        failure=failure_of(job.failure_code, job.failure_detail) if job else None,
    )


def require_usable(session: Session, revision: Revision) -> None:
    """Raise NotReady when the revision's preparation failed; one still under way is fine, jobs wait for it."""
    work = jobs_of(session, revision.id)
    if preparation_state(revision, work) in (jobs.FAILED, jobs.CANCELLED):
        code, detail = preparation_failure(revision, work) or ("revision_cancelled", "it was cancelled.")
        raise NotReady(
            code,
            f"Revision {revision.number} of {revision.domain_set.name!r} cannot be used: {detail}",
            "revision",
        )


def retry_preparation(session: Session, name: str, number: int) -> Revision:
    """Queue the failed parts of a revision's preparation again, for when its files were put right."""
    revision = revision_of(session, name, number)
    if jobs.requeue_jobs(session, revision.id) == 0:
        raise Conflict("nothing_to_retry", f"No part of revision {number} of {name!r} has failed.")
    return revision


def summarize_set(session: Session, row: DomainSet) -> DomainSetView:
    """A domain set in a list."""
    count = session.scalar(select(func.count()).where(Revision.domain_set_id == row.id))
    return DomainSetView.model_validate(
        {"id": row.id, "name": row.name, "revisions": count or 0, "created_at": row.created_at}
    )


def summarize_revision(session: Session, row: Revision) -> RevisionSummary:
    """A revision in a list."""
    count = session.scalar(select(func.count()).where(DomainRow.revision_id == row.id))
    return RevisionSummary.model_validate(
        {
            "id": row.id,
            "domain_set": row.domain_set.name,
            "number": row.number,
            "domains": count or 0,
            "created_at": row.created_at,
        }
    )
