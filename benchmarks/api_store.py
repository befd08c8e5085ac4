"""A store as a team has it after some months: domain sets, optimizations, ten thousand runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from mixing.change.revision import Changes
from store import jobs
from store.engine import Database
from store.tables import DomainRow, DomainSet, Job, Launch, MixtureRow, Optimization, Revision, Run, Swarm

TASKS = tuple(f"task-{index:02d}" for index in range(20))
DOMAINS = tuple(f"{source}:{topic}" for source in ("web", "code", "books", "papers") for topic in range(6))
_STARTED = 1_760_000_000.0
_PROXY = {
    "size": "nano-0.1M",
    "tokens": 524_288,
    "sequence_length": 128,
    "batch_rows": 8,
    "learning_rate": None,
    "evaluations": 1,
}


@dataclass(frozen=True)
class Sizes:
    """How much is in the store."""

    runs: int = 10_000
    optimizations: int = 50
    domain_sets: int = 10


@dataclass(frozen=True)
class Stored:
    """Ids to ask for."""

    optimizations: list[str]
    swarms: list[str]
    mixtures: list[str]
    launches: list[str]
    runs: list[str]


def fill(database: Database, sizes: Sizes = Sizes(), first_set: int = 0) -> Stored:
    """Write the store. The last optimization is under way, the others are solved; a tenth has launches.

    Domain sets are called ``pool-<number>``, from ``first_set`` on.
    """
    generator = np.random.default_rng(0)
    stored = Stored([], [], [], [], [])
    with database.write() as session:
        revisions = [_revision(session, first_set + index) for index in range(sizes.domain_sets)]
    each = sizes.runs // sizes.optimizations
    for index in range(sizes.optimizations):
        is_last = index == sizes.optimizations - 1
        with database.write() as session:
            revision = revisions[index % len(revisions)]
            _optimization(session, generator, stored, revision, each, is_last)
    return stored


def _revision(session: Session, index: int) -> str:
    row = DomainSet(name=f"pool-{index}")
    session.add(row)
    session.flush()
    revision = Revision(
        domain_set_id=row.id,
        number=1,
        tokenizer={"vocabulary_size": 4096},
        vocabulary_size=4096,
        held_out_fraction=0.02,
        content_hash=f"{index:064d}",
        changes=Changes(added=DOMAINS).to_dict(),
    )
    session.add(revision)
    session.flush()
    domains = [
        DomainRow(
            revision_id=revision.id,
            name=name,
            files=[f"/corpora/{name.replace(':', '-')}-{part:03d}.jsonl.zst" for part in range(8)],
            counted_tokens=1_000_000 * (number + 1),
            counted_bytes=4_000_000 * (number + 1),
            documents=1_400 * (number + 1),
            held_out_bytes=80_000,
            content_hash=f"{index:032d}{number:032d}",
        )
        for number, name in enumerate(DOMAINS)
    ]
    session.add_all(domains)
    session.flush()
    session.add(_ended(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id)))
    for domain in domains:
        session.add(_ended(jobs.new_job(jobs.PREPARE_DOMAIN, domain.id, revision.id)))
    return revision.id


def _ended(job: Job, seconds: float = 8.0) -> Job:
    job.state, job.attempt, job.worker = jobs.SUCCEEDED, 1, "bench:1:0"
    job.started_at, job.finished_at, job.busy_seconds = _STARTED, _STARTED + seconds, seconds
    return job


def _weights(generator: np.random.Generator) -> dict[str, float]:
    return dict(zip(DOMAINS, generator.dirichlet(np.ones(len(DOMAINS))).tolist(), strict=True))


def _result(generator: np.random.Generator, weights: dict[str, float]) -> dict[str, Any]:
    values = (2.0 + generator.random(len(TASKS))).tolist()
    return {
        "final": dict(zip(TASKS, values, strict=True)),
        "realised_tokens": {name: int(524_288 * weight) for name, weight in weights.items()},
        "tokens": 524_288,
        "seconds": 8.25,
        "parameters": 190_000,
        "non_embedding_parameters": 105_000,
    }


def _optimization(
    session: Session,
    generator: np.random.Generator,
    stored: Stored,
    revision_id: str,
    runs: int,
    is_live: bool,
) -> None:
    settings = {
        "runs": runs,
        "rounds": [runs],
        "minimum_runs": 30,
        "recipe": {
            "sampler": "two-level-dirichlet",
            "regression": "log-linear",
            "granularity": "per task",
            "solver": "exact",
        },
        "target_tokens": 24_000_000,
        "repetition_cap": 4,
        "proxy": _PROXY,
        "tasks": [{"name": name, "path": f"/corpora/{name}.jsonl", "weight": 0.05} for name in TASKS],
    }
    state = jobs.RUNNING if is_live else jobs.SUCCEEDED
    row = Optimization(revision_id=revision_id, method="olmix", seed=7, settings=settings, state=state)
    session.add(row)
    session.flush()
    swarm = Swarm(optimization_id=row.id, revision_id=revision_id)
    session.add_all([swarm, _ended(jobs.new_job(jobs.SAMPLE_SWARM, row.id, row.id))])
    session.flush()
    made = _runs(session, generator, swarm.id, row.id, runs, is_live)
    stored.runs.extend(made[:: max(1, len(made) // 20)])
    stored.optimizations.append(row.id)
    stored.swarms.append(swarm.id)
    if not is_live:
        session.add(_ended(jobs.new_job(jobs.SOLVE, row.id, row.id)))
        _answer(session, generator, stored, row)


def _runs(
    session: Session,
    generator: np.random.Generator,
    swarm_id: str,
    optimization_id: str,
    runs: int,
    is_live: bool,
) -> list[str]:
    rows = []
    for position in range(runs):
        weights = _weights(generator)
        is_done = not is_live or position < runs // 2
        result = _result(generator, weights) if is_done else None
        rows.append(Run(swarm_id=swarm_id, position=position, seed=position, weights=weights, result=result))
    session.add_all(rows)
    session.flush()
    for row in rows:
        job = jobs.new_job(jobs.PROXY_RUN, row.id, optimization_id, row.position)
        session.add(_ended(job) if row.result else job)
    return [row.id for row in rows]


def _answer(session: Session, generator: np.random.Generator, stored: Stored, row: Optimization) -> None:
    effects = {task: _weights(generator) for task in TASKS}
    for kind in ("proposed", "natural"):
        mixture = MixtureRow(
            revision_id=row.revision_id,
            optimization_id=row.id,
            kind=kind,
            weights=_weights(generator),
            evidence={"effects": effects, "runs_used": 200} if kind == "proposed" else None,
        )
        session.add(mixture)
        session.flush()
        stored.mixtures.append(mixture.id)
        if len(stored.mixtures) % 10 in (1, 2):
            launch = Launch(
                mixture_id=mixture.id,
                settings={**_PROXY, "size": "micro-1M", "seed": 3, "repetition_cap": None, "tasks": []},
            )
            session.add(launch)
            session.flush()
            run = Run(
                launch_id=launch.id,
                position=0,
                seed=3,
                weights=mixture.weights,
                result=_result(generator, mixture.weights),
            )
            session.add(run)
            session.flush()
            session.add(_ended(jobs.new_job(jobs.FULL_RUN, run.id, launch.id), 90.0))
            stored.launches.append(launch.id)
