"""The first page: what is in use, what was decided of late, what is under way; and finding what has a name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from service.dashboard.actions import May
from service.dashboard.decision import losers
from service.dashboard.evidence import Evidence, ObjectiveEvidence, TaskEvidence
from service.dashboard.session import PageRoute
from service.dashboard.tables import launch_groups, objective_words
from service.dashboard.templating import page
from service.domain_sets import adoptions
from service.domain_sets.repository import DOMAIN_SETS
from service.http.routes import DatabaseDependency
from service.launches.comparison import with_objective
from service.launches.service import LAUNCHES
from service.optimizations.service import OPTIMIZATIONS
from store import jobs
from store.tables import PROPOSED, DomainSet, Job, MixtureRow, Optimization, Revision

router = APIRouter(route_class=PageRoute, include_in_schema=False)
LIST_LENGTH = 25
"""Rows of one page of a list, and of each kind that is found."""
MOST_DECIDED = 8
After = Annotated[str | None, Query(max_length=300)]


@dataclass(frozen=True, slots=True)
class Decided:
    """An answer in a line: what it gains, what loses most by it, and the seconds that its runs took."""

    id: str
    domain_set: str
    revision: int
    objective: str
    gain: ObjectiveEvidence | None
    worst: TaskEvidence | None
    seconds: float
    finished_at: str


def decided(store: Session) -> list[Decided]:
    """The optimizations that were solved last; of their evidence, which is long, only what is shown is read."""
    found = store.execute(
        select(
            Optimization.id,
            DomainSet.name,
            Revision.number,
            Optimization.settings,
            Optimization.finished_at,
            MixtureRow.evidence["objective"].label("objective"),
            MixtureRow.evidence["tasks"].label("tasks"),
        )
        .join(Revision, Revision.id == Optimization.revision_id)
        .join(DomainSet, DomainSet.id == Revision.domain_set_id)
        .join(MixtureRow, MixtureRow.optimization_id == Optimization.id)
        .where(
            MixtureRow.kind == PROPOSED,
            Optimization.state == jobs.SUCCEEDED,
            Optimization.finished_at.is_not(None),
        )
        .order_by(Optimization.finished_at.desc(), Optimization.id.desc())
        .limit(MOST_DECIDED)
    ).all()
    took = _seconds(store, [row.id for row in found])
    return [_decided(row, took.get(row.id, 0.0)) for row in found]


def _seconds(store: Session, optimizations: Sequence[str]) -> Mapping[str, float]:
    """That workers were busy with the runs of each."""
    query = select(Job.owner, func.sum(Job.busy_seconds)).group_by(Job.owner)
    owned = query.where(Job.owner.in_(optimizations), Job.kind == jobs.PROXY_RUN)
    return dict(store.execute(owned).all())


def _decided(row: Any, seconds: float) -> Decided:
    evidence = Evidence.model_validate({"objective": row.objective, "tasks": row.tasks or []})
    worse = losers(evidence)
    return Decided(
        row.id,
        row.name,
        row.number,
        objective_words(row.settings),
        evidence.objective,
        worse[0] if worse else None,
        seconds,
        _iso(row.finished_at),
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@dataclass(frozen=True, slots=True)
class Found:
    """Something with a page: what it is, how it is called, where it is, what else is known of it."""

    what: str
    called: str
    path: str
    more: str
    created_at: str


def found(store: Session, words: str) -> list[Found]:
    """Domain sets, optimizations and mixtures whose name, or whose domain set's, has the words in it; or by id."""
    named = DomainSet.name.icontains(words, autoescape=True)
    sets = select(DomainSet.name, DomainSet.created_at).where(or_(named, DomainSet.id == words))
    with_set = (
        select(Optimization.id, Optimization.method, Optimization.state, Optimization.created_at)
        .add_columns(DomainSet.name.label("domain_set"), Revision.number)
        .join(Revision, Revision.id == Optimization.revision_id)
        .join(DomainSet, DomainSet.id == Revision.domain_set_id)
        .where(or_(named, Optimization.id == words))
    )
    mixtures = (
        select(MixtureRow.id, MixtureRow.name, MixtureRow.created_at)
        .add_columns(DomainSet.name.label("domain_set"), Revision.number)
        .join(Revision, Revision.id == MixtureRow.revision_id)
        .join(DomainSet, DomainSet.id == Revision.domain_set_id)
        .where(or_(MixtureRow.name.icontains(words, autoescape=True), MixtureRow.id == words))
    )
    return [
        *(
            Found("domain set", row.name, f"/domain-sets/{row.name}", "", _iso(row.created_at))
            for row in store.execute(sets.order_by(DomainSet.id.desc()).limit(LIST_LENGTH))
        ),
        *(
            Found(
                "optimization",
                f"{row.domain_set}, revision {row.number}",
                f"/optimizations/{row.id}",
                f"{row.method}, {row.state}",
                _iso(row.created_at),
            )
            for row in store.execute(with_set.order_by(Optimization.id.desc()).limit(LIST_LENGTH))
        ),
        *(
            Found(
                "mixture",
                row.name or row.id,
                f"/mixtures/{row.id}/export?format=csv",
                f"over {row.domain_set}, revision {row.number}",
                _iso(row.created_at),
            )
            for row in store.execute(mixtures.order_by(MixtureRow.id.desc()).limit(LIST_LENGTH))
        ),
    ]


@router.get("/")
def overview(
    database: DatabaseDependency,
    may: May,
    sets_after: After = None,
    after: After = None,
    launches_after: After = None,
    q: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Domain sets, optimizations and launches, newest first; or whatever has the words of ``q`` in its name."""
    words = q.strip()
    with database.read() as store:
        if words:
            return page(
                "overview.html", may=may, q=words, found=found(store, words), is_live=False, most=LIST_LENGTH
            )
        optimizations = OPTIMIZATIONS.page(store, after, LIST_LENGTH).model_dump(mode="json")
        launches = LAUNCHES.page(store, launches_after, LIST_LENGTH).model_dump(mode="json")
        shown = (*optimizations["items"], *launches["items"])
        return page(
            "overview.html",
            may=may,
            q="",
            found=None,
            in_use=adoptions.all_in_use(store, LIST_LENGTH),
            decided=decided(store),
            domain_sets=DOMAIN_SETS.page(store, sets_after, LIST_LENGTH).model_dump(mode="json"),
            optimizations=optimizations,
            launches=launch_groups(with_objective(launches["items"])),
            launches_next=launches["next"],
            is_live=any(document["state"] in jobs.LIVE for document in shown),
        )
