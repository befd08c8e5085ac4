"""Launches in a storm: ranks, torchrun, the job's process and the worker are killed, and no number is another."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from proxy_models.training.run_record import checkpoint_steps
from store import jobs
from store.documents import EngineDocument
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import Attempt, Job, Run
from tests.workers.conftest import add_training, library_texts, prepare, until  # noqa: F401 - a fixture
from tests.workers.test_torchrun import series_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]
TOKENS = 800_000
BLOWS = ("rank", "rank", "torchrun", "torchrun", "child", "supervisor")
PROGRAMS = {
    "rank": "proxy_models.training.full_run",
    "torchrun": "torch.distributed.run",
    "child": "workers.execution.child",
}


class Supervisor:
    """The embedded worker as a process of its own, started again when it was killed."""

    def __init__(self, settings: Settings) -> None:
        self.environment = {**os.environ, **settings.environment()}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers.supervisor"], env=self.environment, stdin=subprocess.DEVNULL
        )

    def those_that_run(self, target: str) -> list[psutil.Process]:
        """Descendants that run a program; a rank's command is within torchrun's, which is none."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = process.cmdline()
            except psutil.Error:
                continue
            is_torchrun = PROGRAMS["torchrun"] in line
            if PROGRAMS[target] in line and (target == "torchrun" or not is_torchrun):
                found.append(process)
        return found

    def strike(self, target: str, draws: random.Random) -> None:
        """SIGKILL one of them."""
        if target == "supervisor":
            self.process.kill()
            self.process.wait()
            self.start()
        else:
            draws.choice(self.those_that_run(target)).kill()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    launchers = tmp_path / "launchers.toml"
    launchers.write_text("[launchers.two]\nprocesses = 2\nrestarts = 2\n")
    return Settings(
        data_directory=tmp_path,
        data_roots=str(tmp_path),
        launchers=launchers,
        slots=1,
        lease_seconds=5.0,
        heartbeat_seconds=0.3,
    )


@pytest.fixture
def supervisor(settings: Settings) -> Iterator[Supervisor]:
    upgrade(settings.resolved_database_url)
    supervisor = Supervisor(settings)
    yield supervisor
    supervisor.stop()


def test_a_launch_goes_on_from_its_last_checkpoint_whatever_is_killed(
    settings: Settings,
    supervisor: Supervisor,
    tmp_path: Path,
    until: Callable[..., None],  # noqa: F811
) -> None:
    database = Database(settings.resolved_database_url)
    revision = prepare(database, settings, library_texts(tmp_path))
    stormed = add_training(database, revision, "two", EngineDocument(sharding="ddp"), TOKENS)
    checkpoints = settings.artifacts / "runs" / stormed / "checkpoints"
    draws, reached = random.Random(0), 0

    def is_further() -> bool:
        return max(checkpoint_steps(checkpoints), default=0) > reached

    order = draws.sample(BLOWS, len(BLOWS))
    for target in order:
        until(is_further, what=f"a checkpoint after step {reached}, before {target} is killed")
        reached = max(checkpoint_steps(checkpoints))
        until(lambda: target == "supervisor" or supervisor.those_that_run(target), what=f"a {target}")  # noqa: B023
        assert state_of(database, stormed) in jobs.LIVE, f"it ended before {target} was killed"
        supervisor.strike(target, draws)
    until(lambda: state_of(database, stormed) in jobs.ENDED, 600.0, "the launch's end")
    alone = add_training(database, revision, "two", EngineDocument(sharding="ddp"), TOKENS)
    until(lambda: state_of(database, alone) in jobs.ENDED, 600.0, "the undisturbed launch's end")

    with database.read() as session:
        job = session.scalars(select(Job).where(Job.subject == stormed)).one()
        assert (job.state, job.failure_detail) == (jobs.SUCCEEDED, None)
        ends = select(func.count()).where(Attempt.job_id == job.id, Attempt.outcome == jobs.SUCCEEDED)
        assert session.scalar(ends) == 1
        mine, theirs = (session.get_one(Run, run).result for run in (stormed, alone))
    assert mine is not None
    assert theirs is not None
    assert mine["realised_tokens"] == theirs["realised_tokens"]
    assert mine["final"] == pytest.approx(theirs["final"], rel=1e-6)
    assert series_of(database, stormed).keys() == series_of(database, alone).keys()
    left = [target for target in ("rank", "torchrun") for _ in supervisor.those_that_run(target)]
    assert left == []
    database.close()


def state_of(database: Database, run_id: str) -> str:
    with database.read() as session:
        return session.scalars(select(Job.state).where(Job.subject == run_id)).one()
