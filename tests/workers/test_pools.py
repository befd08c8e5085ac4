"""Workers that come as an array job while jobs wait, and go when none does."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from store import jobs
from store.engine import Database
from store.launchers.slurm import Slurm
from store.settings import Settings
from store.tables import Job, Run, WorkerRow
from tests.slurm import Cluster, missing, running_cluster
from tests.workers.conftest import Until, library_texts, prepare
from tests.workers.test_faults import add_short_job, add_tokenizer_job
from tests.workers.test_waves import add_swarm
from workers.pools import Pools, pool_name


@contextmanager
def element(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.supervisor", "--pool", "array-3", *arguments],
        env={**os.environ, **settings.environment()},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_directory=tmp_path, data_roots=str(tmp_path), slots=2, poll_seconds=0.05)


def test_an_element_does_what_waits_and_ends(sqlite: Database, settings: Settings) -> None:
    add_short_job(sqlite, settings)
    with element(settings, "--idle-seconds", "1") as process:
        assert process.wait(120) == 0
    with sqlite.read() as session:
        states = {job.kind: job.state for job in session.scalars(select(Job))}
        assert states[jobs.PREPARE_TOKENIZER] == jobs.SUCCEEDED
        done = session.scalars(select(Job).where(Job.state == jobs.SUCCEEDED)).all()
        host = socket.gethostname()
        assert {str(job.worker).rpartition("/")[0] for job in done} == {f"{host}/array-3"}
        assert session.scalars(select(WorkerRow)).all() == [], "none of that name will come again"


def test_an_element_told_to_end_gives_its_job_back(
    sqlite: Database, settings: Settings, tmp_path: Path, until: Until
) -> None:
    os.mkfifo(tmp_path / "text.txt")  # under way until something ends it
    job_id = add_tokenizer_job(sqlite, tmp_path / "text.txt")

    def state() -> str:
        with sqlite.read() as session:
            return session.get_one(Job, job_id).state

    with element(settings, "--idle-seconds", "600") as process:
        until(lambda: state() == jobs.RUNNING, what="its beginning")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert state() == jobs.QUEUED


@pytest.mark.parametrize(
    ("device", "processes", "devices", "slots"),
    [("cpu", 3, "cpu", "3"), ("cuda", 2, "cuda:0,cuda:1", "1")],
)
def test_a_workers_devices_are_those_of_its_node(
    device: str, processes: int, devices: str, slots: str
) -> None:
    pool = Slurm.model_validate({"kind": "slurm", "device": device, "processes": processes, "workers": 2})
    text = pool.settings_of_worker(
        {"MIXWRIGHT_DATABASE_URL": "postgresql://a:it's $x@b/c", "MIXWRIGHT_SLOTS": "9"}
    )
    read = subprocess.run(
        ["sh", "-c", f'{text}echo $MIXWRIGHT_DEVICE $MIXWRIGHT_SLOTS; echo "$MIXWRIGHT_DATABASE_URL"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert read == [f"{devices} {slots}", "postgresql://a:it's $x@b/c"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.mark.slurm
@pytest.mark.skipif(bool(missing()), reason=f"Slurm is not installed ({missing()}): run `make test-slurm`")
def test_a_swarm_is_trained_by_an_array_job_of_which_elements_are_killed(
    sqlite: Database, tmp_path: Path, cluster: Cluster, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.configuration))
    monkeypatch.setenv("PATH", cluster.environment["PATH"])
    launchers = tmp_path / "launchers.toml"
    launchers.write_text(
        '[launchers.cluster]\nkind = "slurm"\nworkers = 2\nidle_seconds = 2\npoll_seconds = 0.1\n'
        'environment = ["SLURM_CONF", "PYTHONPATH"]\n'
    )
    settings = Settings(
        data_directory=tmp_path / "data dir",
        database_url=str(sqlite.engine.url),
        data_roots=str(tmp_path),
        launchers=launchers,
        slots=0,
        wave_members=2,
        heartbeat_seconds=0.2,
        lease_seconds=2.0,
    )
    revision = prepare(sqlite, settings, library_texts(tmp_path))
    weights = [{"email": share / 10, "json": 1 - share / 10} for share in range(1, 9)]
    runs = add_swarm(sqlite, revision, weights)
    name = pool_name("cluster", settings)
    environment = {**os.environ, **settings.environment()}
    with (tmp_path / "supervisor.log").open("wb") as log:
        service = subprocess.Popen(
            [sys.executable, "-m", "workers.supervisor"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    killed: set[int] = set()

    def trained() -> int:
        with sqlite.read() as session:
            return sum(run.result is not None for run in session.scalars(select(Run).where(Run.id.in_(runs))))

    def is_one_killed() -> bool:
        """An element that is at work, with its child."""
        with sqlite.read() as session:
            job = session.scalars(select(Job).where(Job.subject.in_(runs), Job.state == jobs.RUNNING)).first()
        if job is None:
            return False
        assert job.worker is not None
        assert name in job.worker
        process = psutil.Process(int(job.worker.rpartition(":")[2]))
        process.kill()
        killed.add(process.pid)
        return True

    try:
        until(is_one_killed, what="an element at work")
        until(lambda: trained() == len(runs), what="the end of all runs")
        pool = Pools(sqlite, settings).pools["cluster"]
        until(lambda: sum(vars(pool.elements(name)).values()) == 0, what="the end of the elements")
    finally:
        service.terminate()
        service.wait(60)
    with sqlite.read() as session:
        rows = session.scalars(select(WorkerRow)).all()
        assert len(rows) == len(killed), "of one that was killed a row says when it was last seen"
        ended = session.scalars(select(Job).where(Job.subject.in_(runs))).all()
        assert {job.state for job in ended} == {jobs.SUCCEEDED}
        assert sum(job.attempt > 1 for job in ended) >= 1, (
            "one of the killed element's runs was claimed again"
        )
    arrays = sorted((settings.artifacts / "pools" / name).iterdir())
    assert 1 <= len(arrays) <= 4
    assert all((each / "settings.env").stat().st_mode & 0o077 == 0 for each in arrays)
