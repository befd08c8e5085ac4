"""Runs of a swarm claimed and trained together, each with an end of its own."""

import json
import os
import signal
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from proxy_models.text.preparation import PreparationSpec, prepare_domain, training_sample
from proxy_models.text.token_shard import TokenShard
from proxy_models.text.tokenizer import train_byte_level_bpe
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.wave import train_run
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job, Optimization, Run, Swarm, database_now
from tests.workers.conftest import new_revision
from workers.claims.claim import Claim, Standing, claim, heartbeat
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims
from workers.execution.waves import claim_companions, next_work
from workers.jobs import kind_named

Until = Callable[..., None]
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
SOURCES = {"mail": "email/*.py", "web": "http/*.py"}
PROXY = {
    "size": "nano-0.1M",
    "tokens": 12_000,
    "sequence_length": 32,
    "batch_rows": 4,
    "learning_rate": None,
    "evaluations": 2,
    "repetition_cap": None,
}
RUNS = 6


def add_swarm(
    database: Database, revision_id: str, weights: list[dict[str, float]], **proxy: Any
) -> list[str]:
    """An optimization whose runs wait to be trained; answers their ids in order."""
    with database.write() as session:
        optimization = Optimization(
            revision_id=revision_id,
            method="olmix",
            seed=0,
            state=jobs.RUNNING,
            settings={
                "proxy": {**PROXY, **proxy},
                "tasks": [],
                "runs": len(weights),
                "rounds": [len(weights)],
                "minimum_runs": 1,
                "recipe": {"sampler": "two-level-dirichlet"},
            },
        )
        session.add(optimization)
        session.flush()
        swarm = Swarm(optimization_id=optimization.id, revision_id=revision_id)
        session.add(swarm)
        session.flush()
        runs = [
            Run(swarm_id=swarm.id, position=position, seed=position, weights=one)
            for position, one in enumerate(weights)
        ]
        session.add_all(runs)
        session.flush()
        sampled = jobs.new_job(jobs.SAMPLE_SWARM, optimization.id, optimization.id)
        sampled.state = jobs.SUCCEEDED
        session.add(sampled)
        session.add_all(jobs.new_job(jobs.PROXY_RUN, run.id, optimization.id, run.position) for run in runs)
        return [run.id for run in runs]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two small domains of real text, tokenized."""
    root = tmp_path_factory.mktemp("prepared")
    files = {}
    for name, pattern in SOURCES.items():
        texts = [file.read_text(encoding="utf-8") for file in sorted(LIBRARY.glob(pattern))]
        pieces = [text[start : start + 1500] for text in texts for start in range(0, len(text), 1500)]
        files[name] = root / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
    path = root / "tokenizer.json"
    tokenizer = train_byte_level_bpe(training_sample(tuple(files.values()), 0.05, 100_000), 512, path)
    shards = {
        name: prepare_domain(PreparationSpec(name, (file,), tokenizer, root / "shards", 0.05, 4096, 512))
        for name, file in files.items()
    }
    return {"tokenizer": str(path), "shards": {name: str(one.directory) for name, one in shards.items()}}


@pytest.fixture
def worker(sqlite: Database, tmp_path: Path) -> Worker:
    settings = Settings(
        data_directory=tmp_path, slots=1, heartbeat_seconds=0.05, backend="stacked", lease_seconds=30.0
    )
    return Worker(sqlite, settings, threading.Event())


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.kill()


@pytest.fixture
def revision_id(sqlite: Database, prepared: dict[str, Any]) -> str:
    with sqlite.write() as session:
        revision = new_revision(session)
        revision.tokenizer_path, revision.vocabulary_size = prepared["tokenizer"], 512
        for name, directory in prepared["shards"].items():
            session.add(DomainRow(revision_id=revision.id, name=name, files=["x"], shard_directory=directory))
        unprepared = jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id)
        unprepared.state = jobs.WAITING  # nobody takes it, and no stage follows the runs
        session.add(unprepared)
        session.flush()
        return revision.id


@pytest.fixture
def run_ids(sqlite: Database, revision_id: str) -> list[str]:
    shares = [number / (RUNS - 1) for number in range(RUNS)]
    return add_swarm(sqlite, revision_id, [{"mail": share, "web": 1 - share} for share in shares])


def jobs_of(database: Database) -> dict[str, Job]:
    with database.read() as session:
        rows = session.scalars(select(Job).where(Job.kind == jobs.PROXY_RUN)).all()
        return {job.subject: job for job in rows}


def results_of(database: Database) -> dict[str, dict[str, float]]:
    with database.read() as session:
        return {run.id: run.result["final"] for run in session.scalars(select(Run)) if run.result}


def alone(worker: Worker, run_id: str, tmp_path: Path) -> dict[str, float]:
    """What the run measures when it is trained by itself, elsewhere."""
    with worker.database.read() as session:
        job = session.scalars(select(Job).where(Job.subject == run_id)).one()
        spec = kind_named(jobs.PROXY_RUN).describe(session, job, worker.settings)
    result = train_run(RunSpec.from_dict({**spec, "directory": str(tmp_path / "alone" / run_id)}))
    return result.final


def work(worker: Worker, child: Child | None = None) -> Any:
    found = next_work(worker, "tester", child or Child())
    assert found is not None
    return found


def test_a_store_that_blinks_while_a_wave_is_chosen_costs_nothing(
    worker: Worker, run_ids: list[str], child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[Claim] = []

    def away_at_first(database: Database, progress: dict[Claim, Any]) -> Standing:
        beats.extend(progress)
        if len(beats) == 1:
            raise OperationalError("UPDATE jobs", {}, Exception("the server is restarting"))
        return heartbeat(database, progress)

    monkeypatch.setattr("workers.execution.waves.heartbeat", away_at_first)
    settings = worker.settings.model_copy(update={"backend": "auto"})
    asking = Worker(worker.database, settings, worker.stopping)
    taken = next_work(asking, "tester", child)
    assert taken is not None
    assert len(beats) > 1
    assert taken.claims[0].subject == run_ids[0]
    assert jobs_of(worker.database)[run_ids[0]].lease_token == taken.claims[0].token


def test_a_slot_takes_its_share_of_a_swarm_as_one_wave(
    worker: Worker, run_ids: list[str], child: Child, tmp_path: Path
) -> None:
    taken = work(worker)
    assert [one.subject for one in taken.claims] == run_ids
    run_claims(worker, taken.claims, child, taken.backend)
    found = jobs_of(worker.database)
    assert {job.state for job in found.values()} == {jobs.SUCCEEDED}
    assert {job.shared_by for job in found.values()} == {RUNS}
    with worker.database.read() as session:
        seconds = {run.id: (run.result or {})["seconds"] for run in session.scalars(select(Run))}
    whole = max(
        job.finished_at - job.started_at for job in found.values() if job.finished_at and job.started_at
    )
    assert sum(job.busy_seconds for job in found.values()) <= whole + 1e-6
    assert sum(seconds.values()) <= whole
    for run_id in (run_ids[0], run_ids[3]):
        assert results_of(worker.database)[run_id] == pytest.approx(alone(worker, run_id, tmp_path), rel=1e-5)


def test_a_run_that_cannot_be_trained_fails_alone(
    worker: Worker, sqlite: Database, revision_id: str, child: Child, prepared: dict[str, Any]
) -> None:
    tokens = TokenShard.open(Path(prepared["shards"]["mail"])).meta.tokens
    weights = [{"mail": 0.85, "web": 0.15}, {"mail": 1.0, "web": 0.0}, {"mail": 0.8, "web": 0.2}]
    fine, greedy, other = add_swarm(
        sqlite, revision_id, weights, repetition_cap=0.9 * PROXY["tokens"] / tokens
    )
    taken = work(worker)
    run_claims(worker, taken.claims, child, taken.backend)
    found = jobs_of(sqlite)
    assert {found[one].state for one in (fine, other)} == {jobs.SUCCEEDED}
    assert (found[greedy].state, found[greedy].failure_code) == (jobs.FAILED, "over_cap")
    assert "'mail'" in str(found[greedy].failure_detail)


def test_a_cancelled_run_and_one_taken_away_leave_the_others_alone(
    worker: Worker, run_ids: list[str], child: Child, tmp_path: Path
) -> None:
    taken = work(worker)
    with worker.database.write() as session:
        session.execute(update(Job).where(Job.subject == run_ids[1]).values(cancel_requested=True))
        session.execute(update(Job).where(Job.subject == run_ids[2]).values(lease_token="another's"))
    run_claims(worker, taken.claims, child, taken.backend)
    found = jobs_of(worker.database)
    assert found[run_ids[1]].state == jobs.CANCELLED
    assert (found[run_ids[2]].state, found[run_ids[2]].lease_token) == (jobs.CLAIMED, "another's")
    rest = [run_ids[0], *run_ids[3:]]
    assert {found[one].state for one in rest} == {jobs.SUCCEEDED}
    assert set(results_of(worker.database)) == set(rest)
    assert results_of(worker.database)[rest[1]] == pytest.approx(alone(worker, rest[1], tmp_path), rel=1e-5)
    assert child.pid is not None, "a wave that ended well killed its child"


def test_a_killed_wave_is_tried_again_in_smaller_ones_and_then_alone(
    worker: Worker, run_ids: list[str], child: Child, until: Until, tmp_path: Path
) -> None:
    sizes = []
    for attempt in (1, 2):
        taken = work(worker)
        sizes.append(len(taken.claims))
        thread = threading.Thread(target=run_claims, args=(worker, taken.claims, child, taken.backend))
        thread.start()
        until(lambda: child.pid is not None, what="a child")
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        thread.join()
        lost = [jobs_of(worker.database)[one.subject] for one in taken.claims]
        assert {(job.state, job.attempt, job.failure_code) for job in lost} == {
            (jobs.QUEUED, attempt, "worker_lost")
        }
        with worker.database.write() as session:  # its turn comes again at once
            session.execute(update(Job).values(available_at=database_now()))
    settings = worker.settings.model_copy(update={"wave_members": 2})
    worker = Worker(worker.database, settings, worker.stopping)
    while (taken := next_work(worker, "tester", Child())) is not None:
        sizes.append(len(taken.claims))
        run_claims(worker, taken.claims, child, taken.backend)
    assert sizes == [6, 1, 1, *[1] * 5]
    assert results_of(worker.database)[run_ids[4]] == pytest.approx(
        alone(worker, run_ids[4], tmp_path), rel=1e-5
    )


def test_a_stopping_worker_gives_the_whole_wave_back(
    worker: Worker, run_ids: list[str], child: Child
) -> None:
    taken = work(worker)
    assert isinstance(worker.stopping, threading.Event)
    worker.stopping.set()
    run_claims(worker, taken.claims, child, taken.backend)
    assert {(job.state, job.attempt) for job in jobs_of(worker.database).values()} == {(jobs.QUEUED, 0)}


def empty_revision(database: Database) -> str:
    with database.write() as session:
        return new_revision(session).id


def test_only_runs_of_one_swarm_shape_and_attempt_go_together(database: Database) -> None:
    revision_id = empty_revision(database)
    mine = add_swarm(database, revision_id, [{"a": 1.0}] * 5)
    add_swarm(database, revision_id, [{"a": 1.0}] * 2)
    with database.write() as session:
        session.execute(update(Run).where(Run.id == mine[1]).values(tokens=6000))
        session.execute(update(Job).where(Job.subject == mine[2]).values(attempt=1))
    first = claim(database, "tester", 30.0)
    assert first is not None
    taken = claim_companions(database, first, "tester", 8)
    assert [one.subject for one in taken] == [mine[0], mine[3], mine[4]]
    assert {one.attempt for one in taken} == {1}
    assert len({one.token for one in taken}) == 3
    with database.read() as session:
        shorter = session.scalars(select(Job.id).where(Job.subject == mine[1])).one()
    short = claim(database, "tester", 30.0, job_id=shorter)
    assert short is not None
    assert [one.subject for one in claim_companions(database, short, "tester", 8)] == [mine[1]]


def test_workers_that_claim_waves_at_once_share_the_swarm_out(database: Database) -> None:
    run_ids = add_swarm(database, empty_revision(database), [{"a": 1.0}] * 24)
    taken: list[str] = []

    def take_waves() -> None:
        while (first := claim(database, "tester", 30.0)) is not None:
            taken.extend(one.subject for one in claim_companions(database, first, "tester", 4))

    threads = [threading.Thread(target=take_waves) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    take_waves()  # a skipped locked row may have sent a worker home early
    assert sorted(taken) == sorted(run_ids)


def test_no_slot_takes_so_many_that_another_has_none(sqlite: Database, tmp_path: Path) -> None:
    add_swarm(sqlite, empty_revision(sqlite), [{"a": 1.0}] * 7)
    settings = Settings(data_directory=tmp_path, slots=3, backend="stacked", wave_members=16)
    worker = Worker(sqlite, settings, threading.Event())
    assert [len(work(worker).claims) for _ in range(4)] == [3, 2, 1, 1]
    assert next_work(worker, "tester", Child()) is None
