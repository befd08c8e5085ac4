"""Making revisions: the first of a domain set, and the next, whose changes against its parent are found or said."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mixing.change.diff import diff
from mixing.change.revision import Changes, Leaf, Leaves
from mixing.errors import AmbiguousChange, MixingError
from service.domain_sets.checks import CheckedDomain, FileRules, PlacedDomain, check_domains, check_tree
from service.domain_sets.patches import PatchedTree, requested_domains
from service.domain_sets.repository import changes_view, domain_set_named, revision_of
from service.domain_sets.schemas import (
    DomainRequest,
    DomainSetRequest,
    PatchRequest,
    RevisionPlanView,
    RevisionRequest,
)
from store import jobs
from store.documents import TaskDocument
from store.engine import Database
from store.problems import Conflict, Invalid, invalid
from store.revisions.changes import FILES, confirm, known_contents, leaves_of
from store.revisions.shared_text import asked_of, asked_tasks
from store.settings import Settings
from store.tables import FOUND, DomainRow, DomainSet, Revision

Checked = TypeVar("Checked")


def _here(function: Callable[..., Checked], *given: object) -> Checked:
    return function(*given)


def check_first_domains(
    request: DomainSetRequest, settings: Settings, compute: Callable[..., Any] = _here
) -> list[CheckedDomain]:
    """Validate the names and files of a new domain set. Raises Invalid naming the field and the domain.

    The files are looked into where ``compute`` calls a function: what a hostile one costs is bounded there.
    """
    placed = _placed(request.domains)
    check_tree(placed, settings)
    rules = FileRules(settings, trains_tokenizer=request.tokenizer.huggingface is None)
    domains = compute(check_domains, placed, rules)
    _check_corpus(domains, "domains")
    if request.tasks and not any(domain.files for domain in domains):
        raise Invalid(
            "no_corpus", "Without files there is no text to hold tasks against; leave them out.", "tasks"
        )
    return domains


def create_domain_set(
    session: Session,
    request: DomainSetRequest,
    tokenizer: dict[str, object],
    domains: Sequence[CheckedDomain],
    tasks: Sequence[TaskDocument] = (),
    user: str = "",
) -> str:
    """Store a user's new domain set with revision 1 and the job that prepares it; answers the revision's id."""
    if session.scalar(select(DomainSet.id).where(DomainSet.name == request.name)):
        raise Conflict(
            "domain_set_exists",
            f"There is a domain set {request.name!r} already; POST a revision of it instead.",
            "name",
        )
    domain_set = DomainSet(name=request.name, user_name=user)
    session.add(domain_set)
    session.flush()
    revision = Revision(
        domain_set_id=domain_set.id,
        number=1,
        tokenizer=tokenizer,
        held_out_fraction=request.held_out_fraction,
        evaluation_bytes=request.evaluation_bytes,
        shared_text=asked_of(tasks),
        content_hash=_definition_hash(tokenizer, request.held_out_fraction, domains),
        changes=Changes(added=tuple(sorted(domain.name for domain in domains))).to_dict(),
    )
    return _store(session, revision, domains, user)


@dataclass(frozen=True)
class PlannedRevision:
    """The next revision, found to be good and not stored.

    Attributes:
        domain_set: its name.
        number: it will have, if nobody is faster.
        parent: the revision it changes.
        domains: every domain with its files.
        old, new: both revisions' domains, as far as their content is known.
        changes: found or said.
        said: `{domain: word}`.
        definition: hash of what was posted.
    """

    domain_set: str
    number: int
    parent: Revision
    domains: Sequence[CheckedDomain]
    old: Leaves
    new: Leaves
    changes: Changes
    said: Mapping[str, str]
    definition: str

    def view(self) -> RevisionPlanView:
        """What a dry run answers."""
        return RevisionPlanView(
            domain_set=self.domain_set,
            number=self.number,
            parent=self.parent.number,
            changes=changes_view(confirm(self.changes, self.old, self.new)),
            domains=[domain.view for domain in self.domains],
        )


def plan_revision(
    database: Database,
    name: str,
    request: RevisionRequest,
    settings: Settings,
    compute: Callable[..., Any] = _here,
) -> PlannedRevision:
    """Check every file the request names and find what changes. Reads only, and no file with a session open.

    ``compute`` as in `check_first_domains`.

    Raises:
        NotFound: the domain set, or the parent.
        Invalid: naming the field at fault.
        Conflict: a change that is ambiguous (with the questions), or none at all.
    """
    with database.read() as session:
        parent = revision_of(session, name, request.parent)
        old = leaves_of(session, parent)
        rules = FileRules(
            settings,
            _counted_files(session, parent),
            "vocabulary_size" in parent.tokenizer,
        )
    check = partial(compute, check_domains)
    changes = None
    if request.patch is not None:
        domains, changes = _patched(database, request.patch, parent, old, lambda placed: check(placed, rules))
        field = "patch"
        if len(domains) > settings.max_domains:
            raise Invalid("too_many_domains", f"At most {settings.max_domains} domains.", field)
    else:
        placed, field = _placed(request.domains or ()), "domains"
        check_tree(placed, settings)
        domains = check(placed, rules)
    if len(domains) < 2:
        raise Invalid("too_few_domains", "A domain set has at least two domains.", field)
    _check_corpus(domains, field)
    with database.read() as session:
        new = _leaves(session, parent, domains)
        latest = _latest_number(session, parent.domain_set_id)
    definition = _definition_hash(parent.tokenizer, parent.held_out_fraction, domains)
    if definition == parent.content_hash:
        raise Conflict(
            "revision_unchanged", f"Revision {parent.number} of {name!r} is exactly this already.", field
        )
    if changes is None:
        changes = _found(old, new, request.said)
    return PlannedRevision(
        name, latest + 1, parent, domains, old, new, changes, dict(request.said), definition
    )


def _placed(domains: Sequence[DomainRequest]) -> list[PlacedDomain]:
    return [PlacedDomain(domain, f"domains[{index}]") for index, domain in enumerate(domains)]


def _patched(
    database: Database,
    patch: PatchRequest,
    parent: Revision,
    old: Leaves,
    check: Callable[[list[PlacedDomain]], list[CheckedDomain]],
) -> tuple[list[CheckedDomain], Changes]:
    """Every domain that a patch of the parent leaves or makes, and what it changes."""
    brought_in = [*requested_domains(patch)]
    checked = {one.field: domain for one, domain in zip(brought_in, check(brought_in), strict=True)}
    tree = PatchedTree(patch, {row.name: row for row in parent.domains}, checked)
    with database.read() as session:
        brought = _leaves(session, parent, list(checked.values()))
    changes = tree.changes(old, brought)
    return tree.domains(changes), changes


def store_revision(session: Session, planned: PlannedRevision, user: str = "") -> str:
    """Store a planned revision, with its parent's tokenizer so that old runs stay comparable; answers its id.

    Raises Conflict when another revision came first: what the latest one changes would no longer be what was found.
    """
    parent = session.get_one(Revision, planned.parent.id)
    domain_set = domain_set_named(session, planned.domain_set)
    if _latest_number(session, domain_set.id) != planned.number - 1:
        raise Conflict(
            "revision_conflict", "Another revision was posted at the same moment; look at it and send again."
        )
    revision = Revision(
        domain_set_id=parent.domain_set_id,
        number=planned.number,
        parent_id=parent.id,
        tokenizer=parent.tokenizer,
        tokenizer_path=parent.tokenizer_path,
        vocabulary_size=parent.vocabulary_size,
        held_out_fraction=parent.held_out_fraction,
        evaluation_bytes=parent.evaluation_bytes,
        shared_text=asked_of(asked_tasks(parent)),
        content_hash=planned.definition,
        changes=planned.changes.to_dict(),
        said=dict(planned.said),
    )
    return _store(session, revision, planned.domains, user)


def _check_corpus(domains: Sequence[CheckedDomain], field: str) -> None:
    """Raise Invalid where some domains have files and some have none: of such a set nothing could be trained."""
    without = [domain.name for domain in domains if not domain.files]
    if without and len(without) < len(domains):
        raise Invalid(
            "mixed_corpus",
            f"{', '.join(map(repr, without[:5]))} {'have' if len(without) > 1 else 'has'} no files and the other"
            " domains have some. Give all of them files, or none and only tokens: then their runs are trained"
            " elsewhere.",
            field,
            names=without,
        )


def _found(old: Leaves, new: Leaves, said: Mapping[str, str]) -> Changes:
    try:
        return diff(old, new, said)
    except AmbiguousChange as ambiguous:
        questions = [
            {
                "domain": asked.domain,
                "question": asked.question,
                "candidates": [{"word": word, "means": means} for word, means in asked.candidates],
            }
            for asked in ambiguous.questions
        ]
        raise Conflict(
            "ambiguous_change",
            "What changed cannot be told from names and contents: say one word for each question in `said`.",
            "said",
            questions=questions,
        ) from ambiguous
    except MixingError as error:
        # The name that something was said about, if one was; else what is wrong is in the tree.
        about = [name for name in error.names if name in said]
        raise invalid(error, f"said.{about[0]}" if about else error.field) from error


def _counted_files(session: Session, parent: Revision) -> frozenset[str]:
    query = (
        select(DomainRow.files_hash)
        .join(Revision, Revision.id == DomainRow.revision_id)
        .where(Revision.domain_set_id == parent.domain_set_id, DomainRow.content_hash.is_not(None))
        .distinct()
    )
    return frozenset(filter(None, session.scalars(query)))


def _leaves(session: Session, parent: Revision, domains: Sequence[CheckedDomain]) -> dict[str, Leaf]:
    """By name, what is known before anything is counted: what is declared, and what was found of the same files."""
    hashes = sorted({domain.files_hash for domain in domains if domain.files_hash})
    within = Revision.domain_set_id == parent.domain_set_id
    contents = known_contents(session, DomainRow.files_hash, hashes, within)
    query = (
        select(DomainRow.files_hash, DomainRow.counted_tokens)
        .join(Revision, Revision.id == DomainRow.revision_id)
        .where(within, DomainRow.files_hash.in_(hashes), DomainRow.counted_tokens.is_not(None))
    )
    counted = dict(session.execute(query).all())
    return {
        domain.name: Leaf(
            domain.declared_tokens or counted.get(domain.files_hash),
            contents.get(domain.files_hash, f"{FILES}{domain.files_hash}") if domain.files_hash else None,
        )
        for domain in domains
    }


def _latest_number(session: Session, domain_set_id: str) -> int:
    return session.scalars(
        select(func.max(Revision.number)).where(Revision.domain_set_id == domain_set_id)
    ).one()


def _store(session: Session, revision: Revision, domains: Sequence[CheckedDomain], user: str) -> str:
    session.add(revision)
    session.flush()
    for domain in domains:
        session.add(
            DomainRow(
                revision_id=revision.id,
                name=domain.name,
                files=domain.files,
                files_hash=domain.files_hash,
                reading=domain.reading.said or None,
                declared_tokens=domain.declared_tokens,
                declared_bytes=domain.declared_bytes,
            )
        )
    if any(domain.files for domain in domains):
        session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id, user=user))
    session.flush()
    return revision.id


def _definition_hash(
    tokenizer: Mapping[str, object], held_out_fraction: float, domains: Sequence[CheckedDomain]
) -> str:
    definition = {
        "tokenizer": {name: value for name, value in tokenizer.items() if name not in FOUND},
        "held_out_fraction": held_out_fraction,
        "domains": {
            domain.name: {
                "files": sorted(domain.identity),
                "tokens": domain.declared_tokens,
                "size_bytes": domain.declared_bytes,
                **({"reading": domain.reading.said} if domain.reading.said else {}),
            }
            for domain in domains
        },
    }
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()
