"""How far an optimization has come: read from its jobs, never kept twice."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.database import jobs
from service.database.models import Job, Optimization
from service.domain_sets.repository import jobs_of
from service.optimizations.repository import mixtures_of, swarm_id_of, trained_runs
from service.optimizations.schemas import (
    LostRun,
    OptimizationProgress,
    OptimizationSummary,
    OptimizationView,
    RunCounts,
    StageView,
)
from service.schemas import failure_of


@dataclass(frozen=True, slots=True)
class _Work:
    """The jobs behind each stage, and the (tokens, seconds) of the finished runs."""

    prepare: Sequence[Job]
    sample: Sequence[Job]
    train: Sequence[Job]
    solve: Sequence[Job]
    finished: Sequence[tuple[int, float]]


def describe(session: Session, row: Optimization) -> OptimizationView:
    """The whole document of ``GET /v1/optimizations/{id}``; ``row`` comes with its revision and domains."""
    own = jobs_of(session, row.id)
    runs = trained_runs(session, row.id)
    work = _Work(
        prepare=jobs_of(session, row.revision_id),
        sample=[job for job in own if job.kind == jobs.SAMPLE_SWARM],
        train=[job for job, _, _ in runs],
        solve=[job for job in own if job.kind == jobs.SOLVE],
        finished=[(tokens, seconds or 0.0) for _, tokens, seconds in runs if tokens],
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
    total_runs = len(work.train) or int(row.settings["runs"])
    tokens_total = total_runs * _tokens_per_run(row)
    held = [job for job in work.train if job.state in jobs.HELD]
    finished = sum(tokens for tokens, _ in work.finished)
    trained = finished + sum(int((job.progress or {}).get("done", 0)) for job in held)
    rate = _rate(work, held)
    lost = sum(job.state in (jobs.FAILED, jobs.CANCELLED) for job in work.train) * _tokens_per_run(row)
    remaining = max(tokens_total - lost - trained, 0)
    return OptimizationProgress(
        stages=_stages(row, work, total_runs),
        runs=_counts(work.train, total_runs),
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
        return len(held) * sum(tokens for tokens, _ in work.finished) / seconds
    return sum(float((job.progress or {}).get("tokens_per_second") or 0.0) for job in held)


def _tokens_per_run(row: Optimization) -> int:
    """Whole steps only: what a proxy run really trains of the tokens asked for."""
    proxy = row.settings["proxy"]
    step = int(proxy["batch_rows"]) * int(proxy["sequence_length"])
    return int(proxy["tokens"]) // step * step


def _counts(train: Sequence[Job], total: int) -> RunCounts:
    states = Counter(job.state for job in train)
    return RunCounts(
        total=total,
        succeeded=states[jobs.SUCCEEDED],
        failed=states[jobs.FAILED],
        running=states[jobs.CLAIMED] + states[jobs.RUNNING],
        queued=states[jobs.QUEUED] if train else total,
        cancelled=states[jobs.CANCELLED],
    )


def _stages(row: Optimization, work: _Work, total_runs: int) -> list[StageView]:
    # The tokenizer's job counts as one piece of work beside the domains'.
    return [
        _stage("prepare", work.prepare, len(row.revision.domains) + 1),
        _stage("sample", work.sample, 1),
        _stage("train", work.train, total_runs),
        _stage("solve", work.solve, 1),
    ]


def _stage(name: str, work: Sequence[Job], total: int) -> StageView:
    done = sum(job.state in jobs.ENDED for job in work)
    started = [job.started_at for job in work if job.started_at is not None]
    finished = [job.finished_at for job in work if job.finished_at is not None]
    is_over = done >= total
    if name != "train" and any(job.state == jobs.FAILED for job in work):
        state = jobs.FAILED
    elif is_over:
        state = jobs.SUCCEEDED
    else:
        state = jobs.RUNNING if started else jobs.QUEUED
    end = max(finished, default=0.0) if is_over else time.time()
    seconds = max(end - min(started), 0.0) if started else 0.0
    return StageView(name=name, state=state, done=done, total=total, seconds=round(seconds, 3))


def _current_stage(stages: Sequence[StageView]) -> str:
    return next((stage.name for stage in stages if stage.state != jobs.SUCCEEDED), "done")
