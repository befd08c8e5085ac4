"""How far an optimization has come: read from its jobs, never kept twice."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.database import jobs
from service.database.models import Job, Optimization
from service.domain_sets.repository import jobs_of
from service.optimizations.cost import optimization_cost
from service.optimizations.repository import mixtures_of, stage_jobs, swarm_id_of, trained_runs
from service.optimizations.schemas import (
    LostRun,
    OptimizationProgress,
    OptimizationSummary,
    OptimizationView,
    RunCounts,
    StageView,
)
from service.schemas import failure_of
from service.worker_device import WorkerDevice


@dataclass(frozen=True, slots=True)
class _Work:
    """The jobs behind each stage; tokens asked of each run, None for the proxy's; finished tokens, seconds."""

    prepare: Sequence[Job]
    sample: Sequence[Job]
    train: Sequence[Job]
    solve: Sequence[Job]
    asked: Sequence[int | None]
    finished: Sequence[tuple[int, float]]


def describe(session: Session, row: Optimization, device: WorkerDevice) -> OptimizationView:
    """The whole document of ``GET /v1/optimizations/{id}``; ``row`` comes with its revision and domains."""
    own = stage_jobs(session, row.id)
    runs = trained_runs(session, row.id)
    work = _Work(
        prepare=jobs_of(session, row.revision_id),
        sample=[job for job in own if job.kind == jobs.SAMPLE_SWARM],
        train=[job for job, *_ in runs],
        solve=[job for job in own if job.kind == jobs.SOLVE],
        asked=[asked for _, asked, _, _ in runs],
        finished=[(tokens, seconds or 0.0) for _, _, tokens, seconds in runs if tokens],
    )
    mixtures = mixtures_of(session, row.id)
    progress = _progress(row, work)
    return OptimizationView.model_validate(
        {
            "id": row.id,
            "domain_set": row.revision.domain_set.name,
            "revision": row.revision.number,
            "method": row.method,
            "seed": row.seed,
            "state": row.state,
            "stage": _current_stage(progress.stages),
            "settings": row.settings,
            "progress": progress,
            "cost": optimization_cost(row, device, progress.tokens_total, work.finished),
            "swarm_id": swarm_id_of(session, row.id),
            "mixture_id": mixtures.get("proposed"),
            "natural_mixture_id": mixtures.get("natural"),
            "lost_runs": [_lost(job) for job in work.train if job.state == jobs.FAILED],
            "failure": failure_of(row.failure_code, row.failure_detail),
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )


def summarize(row: Optimization) -> OptimizationSummary:
    """An optimization in a list; ``row`` comes with its revision and domain set."""
    return OptimizationSummary.model_validate(
        {
            "id": row.id,
            "domain_set": row.revision.domain_set.name,
            "revision": row.revision.number,
            "method": row.method,
            "state": row.state,
            "created_at": row.created_at,
        }
    )


def _lost(job: Job) -> LostRun:
    return LostRun(run_id=job.subject, reason=f"{job.failure_code}: {job.failure_detail}")


def _progress(row: Optimization, work: _Work) -> OptimizationProgress:
    # Rounds that are not sampled yet are counted too: as full runs, for nobody knows better.
    total_runs = max(len(work.train), int(row.settings["runs"]))
    unsampled = total_runs - len(work.train)
    asked = [_whole_steps(row, tokens) for tokens in work.asked]
    tokens_total = sum(asked) + unsampled * _whole_steps(row, None)
    held = [job for job in work.train if job.state in jobs.HELD]
    finished = sum(tokens for tokens, _ in work.finished)
    trained = finished + sum(int((job.progress or {}).get("done", 0)) for job in held)
    rate = _rate(work, held)
    lost = sum(
        tokens
        for job, tokens in zip(work.train, asked, strict=True)
        if job.state in (jobs.FAILED, jobs.CANCELLED)
    )
    remaining = max(tokens_total - lost - trained, 0)
    return OptimizationProgress(
        stages=_stages(row, work, total_runs),
        runs=_counts(row, work.train, total_runs),
        tokens_trained=trained,
        tokens_total=tokens_total,
        tokens_per_second=rate,
        eta_seconds=0.0 if remaining == 0 else remaining / rate if rate > 0 else None,
        cpu_seconds=sum(job.busy_seconds for job in (*work.sample, *work.train, *work.solve)),
    )


def _rate(work: _Work, held: Sequence[Job]) -> float:
    """Tokens per second of all runs under way; evaluation counted in as soon as one run has finished."""
    seconds = sum(seconds for _, seconds in work.finished)
    if seconds > 0:
        workers = sum(1 / job.shared_by for job in held)
        return workers * sum(tokens for tokens, _ in work.finished) / seconds
    return sum(float((job.progress or {}).get("tokens_per_second") or 0.0) for job in held)


def _whole_steps(row: Optimization, tokens: int | None) -> int:
    """What a run really trains of the tokens asked for, the proxy's where the run has no number of its own."""
    proxy = row.settings["proxy"]
    if proxy is None:
        return 0
    step = int(proxy["batch_rows"]) * int(proxy["sequence_length"])
    return int(proxy["tokens"] if tokens is None else tokens) // step * step


def _counts(row: Optimization, train: Sequence[Job], total: int) -> RunCounts:
    states = Counter(job.state for job in train)
    states[jobs.CANCELLED if row.state in jobs.ENDED else jobs.QUEUED] += total - len(train)
    return RunCounts(
        total=total,
        succeeded=states[jobs.SUCCEEDED],
        failed=states[jobs.FAILED],
        running=states[jobs.CLAIMED] + states[jobs.RUNNING],
        queued=states[jobs.QUEUED],
        cancelled=states[jobs.CANCELLED],
    )


def _stages(row: Optimization, work: _Work, total_runs: int) -> list[StageView]:
    # The tokenizer's job counts as one piece of work beside the domains'.
    return [
        _stage(row, "prepare", work.prepare, len(row.revision.domains) + 1),
        _stage(row, "sample", work.sample, len(row.settings["rounds"])),
        _stage(row, "train", work.train, total_runs),
        _stage(row, "solve", work.solve, 1),
    ]


def _stage(row: Optimization, name: str, work: Sequence[Job], total: int) -> StageView:
    done = sum(job.state in (jobs.SUCCEEDED, jobs.FAILED) for job in work)
    if name != "train" and any(job.state == jobs.FAILED for job in work):
        state = jobs.FAILED
    elif done >= total:
        state = jobs.SUCCEEDED
    elif row.state in jobs.ENDED:
        state = jobs.CANCELLED
    elif name == "sample" and not any(job.state in jobs.LIVE for job in work):
        state = jobs.QUEUED  # the next round waits for the runs of this one
    else:
        state = jobs.RUNNING if any(job.started_at is not None for job in work) else jobs.QUEUED
    is_running = state in (jobs.RUNNING, jobs.QUEUED)
    return StageView(name=name, state=state, done=done, total=total, seconds=_seconds(name, work, is_running))


def _seconds(name: str, work: Sequence[Job], is_running: bool) -> float:
    """From the first start to the last end; rounds are sampled one by one, so there the time between is left out."""
    now = time.time()
    spans = [
        (job.started_at, now if job.finished_at is None else job.finished_at)
        for job in work
        if job.started_at is not None and (job.finished_at is not None or job.state in jobs.LIVE)
    ]
    if not spans:
        return 0.0
    if name == "sample":
        return round(sum(max(end - start, 0.0) for start, end in spans), 3)
    end = now if is_running else max(end for _, end in spans)
    return round(max(end - min(start for start, _ in spans), 0.0), 3)


def _current_stage(stages: Sequence[StageView]) -> str:
    """The first that is not over; of a method of several rounds training, while a round is trained."""
    by_name = {stage.name: stage for stage in stages}
    if by_name["train"].state == jobs.RUNNING and by_name["sample"].state == jobs.QUEUED:
        return "train"
    return next((stage.name for stage in stages if stage.state != jobs.SUCCEEDED), "done")
