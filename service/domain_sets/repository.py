"""Queries about domain sets and revisions: their text, the state of their preparation, their description.

Nothing here commits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    SQLColumnExpression,
    and_,
    bindparam,
    case,
    cast,
    func,
    select,
)
from sqlalchemy.orm import Session, joinedload, load_only, selectinload

from mixing.domains import Domains
from mixing.errors import MixingError
from mixing.pools import recognise
from service.domain_sets.schemas import (
    ChangesView,
    DomainSetView,
    DomainView,
    RevisionSummary,
    RevisionView,
)
from service.http.schemas import Listing, Page, ProgressView, failure_of, view_of, views_of
from store import jobs
from store.engine import Database
from store.problems import Conflict, NotReady, existing
from store.revisions.changes import KnownChanges, known_changes
from store.revisions.shared_text import (
    asked_tasks,
    contamination_warnings,
    domain_warnings,
    is_compared,
    known_tasks,
    shared_warnings,
)
from store.tables import DomainRow, DomainSet, Job, Revision


def domain_set_named(session: Session, name: str) -> DomainSet:
    """The domain set ``name``; raises NotFound."""
    return existing(session.scalar(select(DomainSet).where(DomainSet.name == name)), "domain set", name)


def revision_of(session: Session, name: str, number: int | None = None) -> Revision:
    """Revision ``number`` of the domain set ``name`` (its latest when None), domains loaded; raises NotFound."""
    domain_set = domain_set_named(session, name)
    query = (
        select(Revision)
        .where(Revision.domain_set_id == domain_set.id)
        .options(selectinload(Revision.domains), joinedload(Revision.domain_set))
        .order_by(Revision.number.desc())
        .limit(1)
    )
    if number is not None:
        query = query.where(Revision.number == number)
    return existing(session.scalar(query), "revision", f"{name}/{number}")


WIDE = 250
"""Domains from which on what is said of all of them is made outside the web process (`Computation.read`)."""


def is_wide(session: Session, name: str, number: int | None = None) -> bool:
    """Whether a revision (the latest when None) has so many; not where there is none, and no query reads them."""
    revision = select(Revision.id).join(DomainSet).where(DomainSet.name == name)
    revision = revision.order_by(Revision.number.desc()).limit(1)
    if number is not None:
        revision = revision.where(Revision.number == number)
    return has_many_domains(session, revision.scalar_subquery())


def has_many_domains(session: Session, revision_id: ColumnElement[str] | str) -> bool:
    """The same by a revision's id."""
    return bool(session.scalar(select(many_domains(revision_id))))


def many_domains(revision_id: SQLColumnExpression[str] | str) -> ColumnElement[bool]:
    """The same as part of a statement."""
    domains = select(DomainRow.id).where(DomainRow.revision_id == revision_id)
    return domains.offset(WIDE - 1).limit(1).exists()


_JOBS_OF = (
    select(Job)
    .where(Job.owner == bindparam("owner"))
    .order_by(Job.priority, Job.position, Job.created_at)
    .options(load_only(Job.subject, Job.state, Job.progress, Job.failure_code, Job.failure_detail))
)


def jobs_of(session: Session, owner: str) -> Sequence[Job]:
    """Every job that works for ``owner``, in the order it is claimed: what it is about and how far it is."""
    return session.scalars(_JOBS_OF, {"owner": owner}).all()


@dataclass(frozen=True, slots=True)
class CountedText:
    """Of all ``domains``; ``evaluated_bytes`` are what a run reads of their held-out slices."""

    domains: int
    is_complete: bool
    tokens: int
    size_bytes: int
    evaluated_bytes: int


_LIMIT = bindparam("evaluation_bytes", type_=BigInteger)
_COUNTS = (DomainRow.counted_tokens, DomainRow.counted_bytes, DomainRow.held_out_bytes)
_QUERY = select(
    func.count(),
    func.count(case((and_(*(count.is_not(None) for count in _COUNTS)), 1))),
    func.sum(DomainRow.counted_tokens),
    func.sum(DomainRow.counted_bytes),
    func.sum(
        case((DomainRow.held_out_bytes < _LIMIT, DomainRow.held_out_bytes), else_=cast(_LIMIT, BigInteger))
    ),
).where(DomainRow.revision_id == bindparam("revision"))


def counted_text(session: Session, revision: Revision) -> CountedText:
    """What is counted so far; complete once every domain is."""
    wanted = {"revision": revision.id, "evaluation_bytes": revision.evaluation_bytes}
    domains, counted, tokens, size_bytes, evaluated = session.execute(_QUERY, wanted).one()
    return CountedText(
        domains, domains == counted, int(tokens or 0), int(size_bytes or 0), int(evaluated or 0)
    )


def require_usable(session: Session, revision: Revision) -> None:
    """Raise NotReady when the revision's preparation failed; one still under way is fine, jobs wait for it."""
    work = jobs_of(session, revision.id)
    if any(job.state in (jobs.FAILED, jobs.CANCELLED) for job in work):
        code, detail = jobs.preparation_failure(revision, work) or ("revision_cancelled", "it was cancelled.")
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


def revision_document(database: Database, name: str, number: int | None = None) -> bytes:
    """JSON of a revision, the latest when None; raises NotFound."""
    with database.read() as session:
        return describe_revision(session, revision_of(session, name, number)).model_dump_json().encode()


def describe_revision(session: Session, revision: Revision) -> RevisionView:
    """The revision with what its preparation has counted so far."""
    work = {job.subject: job for job in jobs_of(session, revision.id)}
    domains = [_describe_domain(row, work.get(row.id, _failed_before(row, work))) for row in revision.domains]
    state = jobs.preparation_state(Counter(job.state for job in work.values()), len(domains))
    counts = [domain.tokens for domain in domains]
    parent = session.get(Revision, revision.parent_id) if revision.parent_id else None
    return view_of(
        RevisionView,
        revision,
        domain_set=revision.domain_set.name,
        parent=parent.number if parent else None,
        state=state,
        progress=ProgressView(
            done=sum(domain.state == jobs.SUCCEEDED for domain in domains), total=len(domains), unit="domains"
        ),
        tokens=sum(filter(None, counts)) if None not in counts else None,
        pool=_pool_of(domains),
        changes=changes_view(known_changes(session, revision)),
        said=revision.said or {},
        tasks=[task.name for task in asked_tasks(revision)],
        shared_text=revision.shared_text if is_compared(revision) else None,
        domains=domains,
        warnings=[
            *shared_warnings(revision),
            *contamination_warnings({told["task"]: told for told in known_tasks(revision).values()}),
        ],
        failure=failure_of(*(jobs.preparation_failure(revision, list(work.values())) or (None, None))),
    )


def _failed_before(row: DomainRow, work: Mapping[str, Job]) -> Job | None:
    """The tokenizer's job, where it failed for this domain's files: the domain waits for it in vain."""
    job = work.get(row.revision_id)
    named = job is not None and job.state == jobs.FAILED and repr(row.name) in (job.failure_detail or "")
    return job if named else None


def _pool_of(domains: Sequence[DomainView]) -> str | None:
    try:
        pool = recognise(Domains.of({domain.name: domain.tokens for domain in domains}))
    except MixingError:  # not counted yet, or stored under the rules for names of an older version
        return None
    return None if pool is None else pool.name


_NOTED = (
    "unique_tokens",
    "repeated_documents",
    "repeated",
    "dropped_documents",
    "bad_lines",
    "lost_characters",
    "lost_spaces",
    "held_out_documents",
    "held_out_tokens",
)
"""What a view shows of what counting told beside the counts."""


def _describe_domain(row: DomainRow, job: Job | None) -> DomainView:
    progress, findings = job.progress if job else None, row.findings or {}
    return view_of(
        DomainView,
        row,
        size_bytes=row.counted_bytes,
        warnings=list(domain_warnings(row)),
        **{name: findings.get(name) for name in _NOTED},
        state=job.state if job else jobs.QUEUED if row.files else jobs.SUCCEEDED,
        progress=ProgressView(**{name: progress[name] for name in ("done", "total", "unit")})
        if progress and job and job.state in jobs.HELD
        else None,
        failure=failure_of(job.failure_code, job.failure_detail) if job else None,
    )


DOMAIN_SETS = Listing(
    select(
        DomainSet.id,
        DomainSet.name,
        select(func.count())
        .where(Revision.domain_set_id == DomainSet.id)
        .correlate(DomainSet)
        .scalar_subquery()
        .label("revisions"),
        DomainSet.created_at,
    ),
    DomainSet.id,
    views_of(DomainSetView),
)
_REVISIONS = Listing(
    select(
        Revision.id,
        DomainSet.name.label("domain_set"),
        Revision.number,
        select(func.count())
        .where(DomainRow.revision_id == Revision.id)
        .correlate(Revision)
        .scalar_subquery()
        .label("domains"),
        Revision.created_at,
    )
    .join(DomainSet, DomainSet.id == Revision.domain_set_id)
    .where(DomainSet.name == bindparam("name")),
    Revision.id,
    views_of(RevisionSummary),
)


def revision_page(session: Session, name: str, after: str | None, limit: int) -> Page[RevisionSummary]:
    """Revisions of a domain set, newest first, and the key to go on from; raises NotFound."""
    page = _REVISIONS.page(session, after, limit, name=name)
    if not page.items:
        domain_set_named(session, name)
    return page


def changes_view(known: KnownChanges) -> ChangesView:
    """What changed, by name, with how far it is confirmed."""
    changes = known.changes
    return ChangesView(
        added=list(changes.added),
        removed=list(changes.removed),
        revised=sorted(changes.revised),
        renamed={old: new for new, old in sorted({**changes.kept, **changes.revised}.items()) if new != old},
        split={old: list(parts) for old, parts in sorted(changes.split.items())},
        merged={new: list(members) for new, members in sorted(changes.merged.items())},
        kept=len(changes.kept),
        confirmed=dict(known.confirmed),
        unconfirmed=dict(known.unconfirmed),
    )
