"""Launches on a real Slurm: `make test-slurm` installs it and runs these."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from mixing.document import to_document
from store import jobs
from store.documents import VERSION, LaunchDocument
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job, Launch, MixtureRow, Run, Submission
from tests.slurm import Cluster, missing, running_cluster
from tests.workers.conftest import Until, new_revision
from workers.follower import look_around

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(missing()), reason=f"Slurm is not installed ({missing()}): run `make test-slurm`"
    ),
]
NEVER = threading.Event()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def settings(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a service with a launcher on the cluster for a program that is given a line of Python."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    return with_program(tmp_path, "print('hello from', sys.argv[1:])")


def with_program(directory: Path, python: str, further: str = "") -> Settings:
    launchers = directory / "launchers.toml"
    command = json.dumps(
        [sys.executable, "-c", f"import os, sys, time; {python}", "{name}", "{mixture_file}"]
    )
    launchers.write_text(
        f'[launchers.cluster]\nkind = "slurm"\ncommand = {command}\nenvironment = ["SLURM_CONF"]\n'
        f"poll_seconds = 0.1\n{further}\n"
    )
    return Settings(data_directory=directory / "data dir", launchers=launchers)


def add_launches(database: Database, count: int = 1) -> list[str]:
    """Ids of new launches on the cluster."""
    with database.write() as session:
        revision = new_revision(session)
        session.add(DomainRow(revision_id=revision.id, name="books", files=["/x"], declared_tokens=7))
        mixture = MixtureRow(revision_id=revision.id, kind="manual", weights={"books": 1.0})
        session.add(mixture)
        session.flush()
        made = []
        for number in range(count):
            document = LaunchDocument(version=VERSION, launcher="cluster", name=f"run-{number}", tokens=1000)
            launch = Launch(mixture_id=mixture.id, settings=to_document(document))
            session.add(launch)
            session.flush()
            run = Run(launch_id=launch.id, position=0, tokens=1000, seed=0, weights=mixture.weights)
            session.add(run)
            session.flush()
            session.add(jobs.new_job(jobs.SCHEDULED_RUN, run.id, launch.id))
            made.append(launch.id)
        return made


def states(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Job.state).order_by(Job.id)))


def followed(
    database: Database, settings: Settings, until: Until, wanted: str, what: str = "the state"
) -> None:
    """Follow until every launch is in a state."""

    def reached() -> bool:
        look_around(database, settings, NEVER)
        return set(states(database)) == {wanted}

    until(reached, what=f"{what} {wanted}")


def test_a_launch_is_run_once_and_its_end_is_stored(
    sqlite: Database, settings: Settings, cluster: Cluster, until: Until
) -> None:
    before = cluster.submitted()
    (launch,) = add_launches(sqlite)
    followed(sqlite, settings, until, jobs.SUCCEEDED)
    directory = settings.artifacts / "launches" / launch
    assert f"hello from ['run-0', '{directory}/mixture.json']" in (directory / "log").read_text()
    assert json.loads((directory / "mixture.json").read_text())["weights"] == {"books": 1.0}
    with sqlite.read() as session:
        (submission,) = session.scalars(select(Submission))
        assert (submission.state, submission.exit_status, submission.number) == ("ended", 0, 1)
        assert (session.scalars(select(Run)).one().result or {})["exit_status"] == 0
    assert cluster.submitted() == before + 2  # its job, and the one that counted before


def test_a_program_that_fails_says_how(
    tmp_path: Path, sqlite: Database, settings: Settings, until: Until
) -> None:
    settings = with_program(tmp_path, "print('no disk'); sys.exit(3)")
    add_launches(sqlite)
    followed(sqlite, settings, until, jobs.FAILED)
    with sqlite.read() as session:
        job = session.scalars(select(Job)).one()
        assert job.failure_code == "launcher_failed"
        assert (job.failure_detail or "").endswith("ended with status 3; its log ends: no disk")
