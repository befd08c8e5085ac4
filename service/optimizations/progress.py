"""How far an optimization has come: counted from its jobs by the database, for a swarm may have thousands."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, case, func, literal_column, or_, select
from sqlalchemy.orm import Session

from mixing.document import to_document
from service.domain_sets.repository import CountedText, counted_text
from service.http.schemas import failure_of, view_of
from service.optimizations.cost import AskedSwarm, anchor_swarms, cost_view
from service.optimizations.service import mixtures_of, swarm_of
from service.optimizations.target import to_know_view
from service.optimizations.views import (
    CostView,
    LookView,
    LostRun,
    OptimizationProgress,
    OptimizationView,
    StageView,
    StoppedView,
    may_be_finished,
    run_counts,
)
from service.training.device import WorkerDevice
from store import jobs
from store.documents import ReuseDocument, SwarmDocument
from store.question import stop_sentence
from store.revisions.shared_text import task_warnings
from store.tables import PROPOSED, Job, Optimization, Run, big_integer, database_now


@dataclass(frozen=True, slots=True)
class StageWork:
    """One stage: jobs by state, whether any was ever started, the seconds workers spent on them.

    ``job_seconds`` are those that passed during each, ``start`` and ``end`` are of all; what is under way lasts until
    now.
    """

    states: Counter[str]
    is_started: bool
    busy_seconds: float
    job_seconds: float
    start: float | None
    end: float | None


@dataclass(frozen=True, slots=True)
class WorkByStage:
    """What there is to do for an optimization and what is done; ``now`` is the database's, as the jobs' times are.

    ``stages`` are in their order, by name; ``groups`` count the runs by state and tokens to train, ``held`` and
    ``lost`` are rows of those under way and of those that failed.
    """

    now: float
    stages: Mapping[str, StageWork]
    groups: Sequence[Any]
    held: Sequence[Any]
    lost: Sequence[Any]

    @property
    def trained(self) -> tuple[int, float]:
        """Tokens and seconds of the finished runs."""
        return self.trained_by()

    def trained_by(self, tokens: int | None = None) -> tuple[int, float]:
        """Likewise, where any is of that length of those alone: anchors take another time a token."""
        groups = [group for group in self.groups if group.asked == tokens] or self.groups
        return (
            sum(int(group.finished_tokens or 0) for group in groups),
            sum(group.finished_seconds or 0.0 for group in groups),
        )


_STAGES = {
    "prepare": (jobs.PREPARE_TOKENIZER, jobs.PREPARE_DOMAIN, jobs.COMPARE_DOMAINS),
    "sample": (jobs.SAMPLE_SWARM,),
    "train": (jobs.PROXY_RUN,),
    "solve": (jobs.SOLVE,),
}


def work_of(session: Session, row: Optimization) -> WorkByStage:
    """The optimization's work, in one query and one for each of held and lost."""
    owner = {"owner": row.id}
    groups = session.execute(_GROUPS, {"owners": [row.id, row.revision_id]}).all()
    now = max((group.now for group in groups), default=0.0)
    stages = {
        name: _stage_work([group for group in groups if group.kind in kinds])
        for name, kinds in _STAGES.items()
    }
    states = stages["train"].states
    return WorkByStage(
        now,
        stages,
        [group for group in groups if group.kind == jobs.PROXY_RUN],
        session.execute(_HELD, owner).all() if any(states[state] for state in jobs.HELD) else [],
        session.execute(_LOST, owner).all() if states[jobs.FAILED] else [],
    )


_IS_SPAN = and_(Job.started_at.is_not(None), or_(Job.finished_at.is_not(None), Job.state.in_(jobs.LIVE)))
_TOKENS = big_integer(Run.result["tokens"])
_GROUPS = (
    select(
        Job.kind,
        Job.state,
        Run.requested_tokens.label("asked"),
        database_now().label("now"),
        func.count().label("number"),
        func.sum(Job.busy_seconds).label("busy_seconds"),
        func.count(Job.started_at).label("started"),
        func.min(case((_IS_SPAN, Job.started_at))).label("start"),
        func.max(case((_IS_SPAN, func.coalesce(Job.finished_at, database_now())))).label("end"),
        func.sum(case((_IS_SPAN, func.coalesce(Job.finished_at, database_now()) - Job.started_at))).label(
            "job_seconds"
        ),
        func.sum(_TOKENS).label("finished_tokens"),
        func.sum(case((_TOKENS > 0, Run.result["seconds"].as_float()))).label("finished_seconds"),
    )
    .outerjoin(Run, Run.id == Job.subject)
    .where(Job.owner.in_(bindparam("owners", expanding=True)))
    .group_by(Job.kind, Job.state, literal_column("asked"))
)
_HELD = select(Job.progress, Job.shared_by).where(
    Job.owner == bindparam("owner"), Job.kind == jobs.PROXY_RUN, Job.state.in_(jobs.HELD)
)
_LOST = (
    select(Job.subject, Job.failure_code, Job.failure_detail)
    .where(Job.owner == bindparam("owner"), Job.kind == jobs.PROXY_RUN, Job.state == jobs.FAILED)
    .order_by(Job.position)
)


def _stage_work(groups: Sequence[Any]) -> StageWork:
    states: Counter[str] = Counter()
    for group in groups:
        states[group.state] += group.number
    return StageWork(
        states,
        is_started=any(group.started for group in groups),
        busy_seconds=sum(group.busy_seconds for group in groups),
        job_seconds=sum(group.job_seconds or 0.0 for group in groups),
        start=min((group.start for group in groups if group.start is not None), default=None),
        end=max((group.end for group in groups if group.end is not None), default=None),
    )


def describe(session: Session, row: Optimization, device: WorkerDevice) -> OptimizationView:
    """The whole document of ``GET /v1/optimizations/{id}``; ``row`` comes with its revision and domain set."""
    work = work_of(session, row)
    text = counted_text(session, row.revision)
    document = SwarmDocument.of(row)
    mixtures, (swarm, warnings) = mixtures_of(session, row.id), swarm_of(session, row.id, document.tasks)
    progress = _progress(row.state, document, work, text.domains)
    beside = sum(one.runs * one.proxy.whole_steps(one.proxy.tokens) for one in document.anchors)
    asked = asked_swarm(row, text, document, document.runs, progress.tokens_total - beside)
    cost = own_cost(document.reuse, asked, work, device)
    return view_of(
        OptimizationView,
        row,
        domain_set=row.revision.domain_set.name,
        revision=row.revision.number,
        stage=_current_stage(progress.stages),
        progress=progress,
        cost=cost,
        anchor_costs=[
            view
            for one in anchor_swarms(asked, document.anchors)
            if (view := cost_view(one, device)) is not None
        ],
        to_know=to_know_view(row.settings, asked, device, cost),
        can_finish=document.is_elsewhere
        and may_be_finished(
            row.state, document.minimum_runs, work.stages["sample"].states, work.stages["train"].states
        ),
        swarm_id=swarm,
        warnings=[*task_warnings(document.tasks), *warnings, *_out_of_reach(row.state, document)],
        mixture_id=mixtures.get(PROPOSED),
        earlier_mixture_ids=[
            mixtures[kind]
            for number in range(document.extensions)
            if (kind := f"{PROPOSED}-{number + 1}") in mixtures
        ],
        natural_mixture_id=mixtures.get("natural"),
        lost_runs=[
            LostRun(run_id=lost.subject, reason=f"{lost.failure_code}: {lost.failure_detail}")
            for lost in work.lost
        ],
        failure=failure_of(row.failure_code, row.failure_detail),
    )


def own_cost(
    reuse: ReuseDocument | None, asked: AskedSwarm | None, work: WorkByStage, device: WorkerDevice
) -> CostView | None:
    """By the swarm's own finished runs where there are any, else by those its plan was made from."""
    tokens, seconds = work.trained_by(None if asked is None else asked.proxy.tokens)
    if asked is not None and tokens:
        return cost_view(asked, device, seconds / tokens * asked.tokens, "own_runs")
    return cost_view(asked, device, None if reuse is None else reuse.plan.new_seconds)


def asked_swarm(
    row: Optimization, text: CountedText, document: SwarmDocument, runs: int, tokens: int | None = None
) -> AskedSwarm | None:
    """So many of an optimization's runs, of whole ones where no tokens are said; None where none is trained here."""
    if document.proxy is None:
        return None
    tokens = runs * document.proxy.whole_steps(document.proxy.tokens) if tokens is None else tokens
    return AskedSwarm(row.revision, text, document.proxy, document.tasks, runs, tokens)


def _out_of_reach(state: str, document: SwarmDocument) -> list[str]:
    """That a rule to stop by will not be met, while there is time to lift it."""
    look = document.looks[-1] if document.looks else None
    if look is None or look.can_be_met or state in jobs.ENDED:
        return []
    return [
        f"After {look.runs} runs the proposal is expected to give away {look.expected_regret:.4g}: by the runs that"
        " are planned the rule to stop by cannot be met."
    ]


def _stopped(document: SwarmDocument, work: WorkByStage) -> StoppedView | None:
    look = document.stopped
    if look is None:
        return None
    tokens, seconds = work.trained_by(document.whole_run)
    hours = None
    if tokens and document.whole_run is not None:
        hours = look.saved * document.whole_run * seconds / tokens / 3600
    told = {"runs": look.runs, "planned": look.runs + look.saved, "saved": look.saved, "device_hours": hours}
    return StoppedView(**told, sentence=stop_sentence({**to_document(look), **told}))


def _progress(state: str, swarm: SwarmDocument, work: WorkByStage, domains: int) -> OptimizationProgress:
    runs = work.stages["train"].states
    # Rounds that are not sampled yet are counted too: as full runs, for nobody knows better.
    planned = swarm.runs + sum(anchors.runs for anchors in swarm.anchors)
    total_runs, tokens_total, lost = max(runs.total(), planned), 0, 0
    unsampled = unsampled_proxies = total_runs - runs.total()
    if swarm.proxy is not None:
        groups = [(group.state, group.asked, group.number) for group in work.groups]
        for anchors in reversed(swarm.anchors):  # which are sampled last
            waiting = min(unsampled_proxies, anchors.runs)
            groups.append((jobs.QUEUED, anchors.proxy.tokens, waiting))
            unsampled_proxies -= waiting
        groups.append((jobs.QUEUED, swarm.proxy.tokens, unsampled_proxies))
        asked = [(job, number * swarm.proxy.whole_steps(tokens)) for job, tokens, number in groups]
        tokens_total = sum(tokens for _, tokens in asked)
        lost = sum(tokens for job, tokens in asked if job in (jobs.FAILED, jobs.CANCELLED))
    trained = work.trained[0] + sum(int((run.progress or {}).get("done", 0)) for run in work.held)
    rate = _rate(work)
    remaining = max(tokens_total - lost - trained, 0)
    # Beside the domains' jobs the tokenizer's counts, and their comparison's once it is there.
    prepared = work.stages["prepare"].states.total()
    prepared = max(domains + 1, prepared) if prepared else 0  # without a corpus there is nothing to prepare
    sampled = max(sum(count > 0 for count in swarm.all_rounds), work.stages["sample"].states.total())
    totals = (prepared, sampled, total_runs, 1 + swarm.extensions)
    # What failed is the training where nothing of it came out, or too little to go on with.
    is_short = runs[jobs.FAILED] > 0 and (
        not runs[jobs.SUCCEEDED] or (state == jobs.FAILED and not work.stages["solve"].states)
    )
    return OptimizationProgress(
        stages=[
            _stage(state, work.now, name, stage, total, is_short)
            for (name, stage), total in zip(work.stages.items(), totals, strict=True)
        ],
        runs=run_counts(runs + Counter({jobs.CANCELLED if state in jobs.ENDED else jobs.QUEUED: unsampled})),
        tokens_trained=trained,
        tokens_total=tokens_total,
        tokens_per_second=rate,
        eta_seconds=0.0 if remaining == 0 else remaining / rate if rate > 0 else None,
        cpu_seconds=sum(stage.busy_seconds for name, stage in work.stages.items() if name != "prepare"),
        looks=[LookView.model_validate(to_document(look)) for look in swarm.looks],
        stopped=_stopped(swarm, work),
    )


def _rate(work: WorkByStage) -> float:
    """Tokens per second of all runs under way; evaluation counted in as soon as one run has finished."""
    tokens, seconds = work.trained
    if seconds > 0:
        return sum(1 / run.shared_by for run in work.held) * tokens / seconds
    return sum(float((run.progress or {}).get("tokens_per_second") or 0.0) for run in work.held)


def _stage(
    optimization: str, now: float, name: str, work: StageWork, total: int, is_short: bool
) -> StageView:
    done = work.states[jobs.SUCCEEDED] + work.states[jobs.FAILED]
    if work.states[jobs.FAILED] and (name != "train" or (is_short and done >= total)):
        state = jobs.FAILED
    elif done >= total:
        state = jobs.SUCCEEDED
    elif optimization in jobs.ENDED:
        state = jobs.CANCELLED
    elif work.states[jobs.WAITING]:
        state = jobs.WAITING
    elif name == "sample" and not any(work.states[live] for live in jobs.LIVE):
        state = jobs.QUEUED  # the next round waits for the runs of this one
    else:
        state = jobs.RUNNING if work.is_started else jobs.QUEUED
    seconds = 0.0
    if name == "sample":  # rounds are sampled one by one, with time between them
        seconds = max(work.job_seconds, 0.0)
    elif work.start is not None and work.end is not None:
        end = now if state in (jobs.RUNNING, jobs.QUEUED) else work.end
        seconds = max(end - work.start, 0.0)
    return StageView(name=name, state=state, done=done, total=total, seconds=round(seconds, 3))


def _current_stage(stages: Sequence[StageView]) -> str:
    """The first that is not over; of a method of several rounds training, while a round is trained."""
    by_name = {stage.name: stage for stage in stages}
    if by_name["train"].state in (jobs.RUNNING, jobs.WAITING) and by_name["sample"].state == jobs.QUEUED:
        return "train"
    return next((stage.name for stage in stages if stage.state != jobs.SUCCEEDED), "done")
