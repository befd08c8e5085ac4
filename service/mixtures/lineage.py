"""Where a mixture comes from: revisions, the maps between them, optimizations and swarms, down to any run."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session, load_only

from mixing.change.revision import Changes
from mixing.document import to_document
from mixing.terms import ReusePlan
from service.domain_sets.repository import changes_view
from service.domain_sets.schemas import ChangesView
from service.http.schemas import Time, Weights, view_of
from service.mixtures.service import MixtureSummary, mixture_with_id, summarize_mixture
from store import jobs
from store.documents import BroughtDocument, SwarmDocument
from store.engine import database_for
from store.revisions.changes import KnownChanges, ancestry, known_changes
from store.settings import Settings
from store.tables import Job, MixtureRow, Optimization, Revision, Run, Swarm


class MapRow(BaseModel):
    """A domain that was not simply kept: ``comes_from`` gives the part of each old domain's weight that goes to it.

    Null where the tokens that decide it are not counted. A removed domain's weight goes nowhere.
    """

    domain: str
    change: str
    comes_from: dict[str, float | None]


class RunLineage(BaseModel):
    """A run of the lineage, and whether it counted for the mixture."""

    id: str
    index: int
    state: str
    counted: bool
    why: str


class OptimizationLineage(BaseModel):
    """An optimization of one of the revisions, with its runs; ``plan`` is what it reused, null for nothing."""

    id: str
    method: str
    state: str
    seed: int
    created_at: Time
    swarm_id: str | None
    mixtures: list[MixtureSummary]
    plan: Mapping[str, Any] | None
    runs: list[RunLineage]


class BroughtLineage(BaseModel):
    """A swarm over one of the revisions that was sampled and trained elsewhere, with its runs."""

    id: str
    name: str | None
    proxy_name: str | None
    created_at: Time
    runs: list[RunLineage]


class RevisionLineage(BaseModel):
    """A revision of the chain: what changed against its parent, as a map, and what was asked of it."""

    number: int
    parent: int | None
    created_at: Time
    domains: int
    tokens: int | None
    changes: ChangesView
    map: list[MapRow]
    optimizations: list[OptimizationLineage]
    swarms: list[BroughtLineage]


class StartLineage(BaseModel):
    """A mixture whose ratios an optimization kept: ``groups`` are its virtual domains."""

    optimization_id: str
    mixture: MixtureSummary
    kind: str
    groups: dict[str, Weights]


class LineageView(BaseModel):
    """Where a mixture comes from: the revisions from its own back to the first, and the mixtures it goes on from."""

    mixture: MixtureSummary
    starts: list[StartLineage]
    revisions: list[RevisionLineage]


def describe_lineage(session: Session, mixture_id: str) -> LineageView:
    """The lineage of a mixture. Raises NotFound."""
    mixture = mixture_with_id(session, mixture_id)
    chain = ancestry(session, session.get_one(Revision, mixture.revision_id))
    own = session.get(Optimization, mixture.optimization_id) if mixture.optimization_id else None
    given = frozenset(() if own is None else SwarmDocument.of(own).swarms)
    verdict = partial(_verdict, own, given, plan_of(own) or ReusePlan())
    optimizations = _optimizations(session, chain, own)
    return LineageView(
        mixture=summarize_mixture(mixture),
        starts=list(_starts(session, own)),
        revisions=[
            _revision(session, revision, optimizations.get(revision.id, []), verdict) for revision in chain
        ],
    )


def lineage_of(settings: Settings, mixture_id: str) -> LineageView:
    """`describe_lineage` as a computation: of thousands of runs it takes seconds. Raises NotFound."""
    with database_for(settings.resolved_database_url) as database, database.read() as session:
        return describe_lineage(session, mixture_id)


def lineage_document(settings: Settings, mixture_id: str) -> bytes:
    """JSON of the same."""
    return lineage_of(settings, mixture_id).model_dump_json().encode()


Verdict = Callable[[Run, Job], tuple[bool, str]]
"""Whether a run counted for the mixture, and why or why not."""


def _verdict(
    own: Optimization | None, given: Collection[str], plan: ReusePlan, run: Run, job: Job
) -> tuple[bool, str]:
    """The `Verdict` of the mixture's ``own`` optimization, the swarms it was given, and its plan."""
    is_own = own is not None and job.owner == own.id
    is_given = run.swarm_id in given
    if own is not None and (is_own or is_given) and (job.finished_at or 0.0) > (own.finished_at or math.inf):
        return False, "its results came after the mixture was solved"
    if is_own:
        if job.state == jobs.SUCCEEDED:
            return True, "trained for this mixture"
        return False, f"it {_standing(job)}"
    if is_given:
        has_results = job.state == jobs.SUCCEEDED
        return has_results, "it was solved over its swarm" if has_results else f"it {_standing(job)}"
    if run.id in plan.reused:
        return True, plan.reused[run.id]
    return False, plan.set_aside.get(run.id, "it was not asked about: nothing older is reused")


def _standing(job: Job) -> str:
    """How a run stands that did not count."""
    failure = f": {job.failure_code}: {job.failure_detail}" if job.failure_code else ""
    return f"{job.state}{failure}" if job.state in jobs.ENDED else f"is {job.state}"


def plan_of(optimization: Optimization | None) -> ReusePlan | None:
    """The plan an optimization was made with; None where it reuses nothing."""
    reuse = None if optimization is None else SwarmDocument.of(optimization).reuse
    return None if reuse is None else reuse.plan


def _starts(session: Session, optimization: Optimization | None) -> Iterator[StartLineage]:
    """The mixture whose ratios were kept, the one whose ratios that kept, and so on."""
    seen: set[str] = set()
    while optimization is not None and optimization.id not in seen:
        seen.add(optimization.id)
        reuse = SwarmDocument.of(optimization).reuse
        if reuse is None or reuse.mixture is None:
            return
        start = session.get(MixtureRow, reuse.mixture)
        if start is None:
            return
        yield StartLineage(
            optimization_id=optimization.id,
            mixture=summarize_mixture(start),
            kind=reuse.plan.kind,
            groups=dict(reuse.plan.groups),
        )
        optimization = session.get(Optimization, start.optimization_id) if start.optimization_id else None


def _optimizations(
    session: Session, chain: Sequence[Revision], own: Optimization | None
) -> dict[str, list[Optimization]]:
    """Revision id -> its optimizations, oldest first; of the mixture's own revision none that came after it."""
    query = (
        select(Optimization)
        .where(Optimization.revision_id.in_([one.id for one in chain]))
        .order_by(Optimization.created_at, Optimization.id)
    )
    found: dict[str, list[Optimization]] = {}
    for one in session.scalars(query):
        if own is None or (one.created_at, one.id) <= (own.created_at, own.id):
            found.setdefault(one.revision_id, []).append(one)
    return found


def _revision(
    session: Session, revision: Revision, optimizations: Sequence[Optimization], verdict: Verdict
) -> RevisionLineage:
    known = known_changes(session, revision)
    parent = session.get(Revision, revision.parent_id) if revision.parent_id else None
    counts = [row.tokens for row in revision.domains]
    return view_of(
        RevisionLineage,
        revision,
        parent=parent.number if parent else None,
        domains=len(revision.domains),
        tokens=sum(filter(None, counts)) if None not in counts else None,
        changes=changes_view(known),
        map=[] if parent is None else list(map_rows(known, revision, parent)),
        optimizations=[_optimization(session, one, verdict) for one in optimizations],
        swarms=list(_brought(session, revision, verdict)),
    )


def map_rows(known: KnownChanges, revision: Revision, parent: Revision) -> Iterator[MapRow]:
    """What every domain that was not simply kept comes from: the map's rows without those of the identity.

    ``share`` is the part of the old domain's weight that goes to the new one.
    """
    changes: Changes = known.changes
    tokens = {row.name: row.tokens for row in revision.domains}
    for new, old in sorted(changes.renamed.items()):
        yield MapRow(domain=new, change="renamed", comes_from={old: 1.0})
    for new, old in sorted(changes.revised.items()):
        yield MapRow(domain=new, change="revised", comes_from={old: 1.0})
    for old, parts in sorted(changes.split.items()):
        whole = [tokens[part] for part in parts]
        total = None if None in whole else sum(filter(None, whole))
        for part in parts:
            share = (tokens[part] or 0) / total if total else None
            yield MapRow(domain=part, change="split", comes_from={old: share})
    for new, members in sorted(changes.merged.items()):
        yield MapRow(domain=new, change="merged", comes_from=dict.fromkeys(members, 1.0))
    for new in changes.added:
        yield MapRow(domain=new, change="added", comes_from={})
    for old in changes.removed:
        yield MapRow(domain=old, change="removed", comes_from={})


def _brought(session: Session, revision: Revision, verdict: Verdict) -> Iterator[BroughtLineage]:
    query = select(Swarm).where(Swarm.revision_id == revision.id, Swarm.optimization_id.is_(None))
    for swarm in session.scalars(query.order_by(Swarm.id)).all():
        said = BroughtDocument.of(swarm)
        yield view_of(BroughtLineage, swarm, said, runs=_runs(session, swarm.id, verdict))


def _runs(session: Session, owner: str, verdict: Verdict) -> list[RunLineage]:
    """The runs that ``owner``, an optimization or a swarm that was brought, has."""
    query = (
        select(Run, Job)
        .join(Job, Job.subject == Run.id)
        .where(Job.owner == owner, Job.kind == jobs.PROXY_RUN)
        .order_by(Run.position)
        .options(
            load_only(Run.position, Run.swarm_id),
            load_only(Job.owner, Job.state, Job.failure_code, Job.failure_detail, Job.finished_at),
        )
    )
    runs = []
    for run, job in session.execute(query).all():
        counted, why = verdict(run, job)
        runs.append(RunLineage(id=run.id, index=run.position, state=job.state, counted=counted, why=why))
    return runs


def _optimization(session: Session, row: Optimization, verdict: Verdict) -> OptimizationLineage:
    swarm_id = session.scalar(select(Swarm.id).where(Swarm.optimization_id == row.id))
    mixtures = select(MixtureRow).where(MixtureRow.optimization_id == row.id).order_by(MixtureRow.kind.desc())
    return view_of(
        OptimizationLineage,
        row,
        swarm_id=swarm_id,
        mixtures=[summarize_mixture(one) for one in session.scalars(mixtures)],
        plan=to_document(plan_of(row)),
        runs=_runs(session, row.id, verdict),
    )
