"""Launches on a real Slurm: `make test-slurm` installs it and runs these."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select, update

from mixing.document import to_document
from proxy_models.training.run_record import checkpoint_steps
from service.launches.service import restart_launch
from service.tokens import Principal
from store import jobs
from store.documents import VERSION, EngineDocument, LaunchDocument
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job, Launch, Metric, MixtureRow, Run, Submission
from tests.slurm import Cluster, missing, running_cluster
from tests.workers.conftest import Until, add_training, library_texts, new_revision, prepare
from workers.claims.claim import claim
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims
from workers.follower import Follower, begin

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

    follower = Follower(database, settings)

    def reached() -> bool:
        follower.look_around(NEVER)
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


def test_what_failed_or_was_cancelled_is_handed_over_again_when_it_is_retried(
    tmp_path: Path, sqlite: Database, until: Until, cluster: Cluster, settings: Settings
) -> None:
    mended = tmp_path / "mended"
    settings = with_program(tmp_path, f"sys.exit(0 if os.path.exists({str(mended)!r}) else 3)")
    (launch,) = add_launches(sqlite)
    followed(sqlite, settings, until, jobs.FAILED)
    with sqlite.write() as session:
        restart_launch(session, launch, settings, Principal("operator", frozenset()))
        jobs.cancel_jobs(session, launch)
    followed(sqlite, settings, until, jobs.CANCELLED)
    mended.touch()
    with sqlite.write() as session:
        restart_launch(session, launch, settings, Principal("operator", frozenset()))
    followed(sqlite, settings, until, jobs.SUCCEEDED)
    with sqlite.read() as session:
        submissions = session.scalars(select(Submission).order_by(Submission.number)).all()
        told = [(one.state, one.exit_status) for one in submissions if one.external_id is not None]
        assert told == [("ended", 3), ("ended", 0)]
        job = session.scalars(select(Job)).one()
        assert (job.failure_code, job.failure_detail, job.cancel_requested) == (None, None, False)


def test_what_slurm_refuses_fails_with_its_words(
    tmp_path: Path, sqlite: Database, settings: Settings, cluster: Cluster, until: Until
) -> None:
    before = cluster.submitted()
    settings = with_program(tmp_path, "pass", 'partition = "nowhere"')
    add_launches(sqlite)
    followed(sqlite, settings, until, jobs.FAILED)
    with sqlite.read() as session:
        job = session.scalars(select(Job)).one()
        assert job.failure_code == "submission_refused"
        assert "invalid partition specified: nowhere" in (job.failure_detail or "")
    assert cluster.submitted() == before + 1


def test_cancelling_reaches_the_program(
    tmp_path: Path, sqlite: Database, settings: Settings, until: Until
) -> None:
    settings = with_program(tmp_path, "open('pid', 'w').write(str(os.getpid())); time.sleep(3600)")
    (launch,) = add_launches(sqlite)
    pid = settings.artifacts / "launches" / launch / "pid"
    follower = Follower(sqlite, settings)
    until(lambda: follower.look_around(NEVER) >= 0 and pid.exists() and pid.read_text(), what="it runs")
    until(lambda: follower.look_around(NEVER) >= 0 and states(sqlite) == [jobs.RUNNING], what="that is seen")
    with sqlite.write() as session:
        jobs.cancel_jobs(session, launch)
    followed(sqlite, settings, until, jobs.CANCELLED)
    until(lambda: not psutil.pid_exists(int(pid.read_text())), what="its end")


def test_what_is_cancelled_before_it_is_handed_over_never_is(
    sqlite: Database, settings: Settings, cluster: Cluster, until: Until
) -> None:
    """Nor does a job that was on its way all the same: it finds that another was first."""
    before = cluster.submitted()
    (launch,) = add_launches(sqlite)
    begin(sqlite)
    with sqlite.write() as session:
        jobs.cancel_jobs(session, launch)
    followed(sqlite, settings, until, jobs.CANCELLED)
    assert cluster.submitted() == before + 1
    directory = settings.artifacts / "launches" / launch / "submission-1"
    assert (directory / "started").read_text() == "cancelled"


KILLS_WHO_ASKS = """\
#!/bin/sh
# The first time: {when} the job is handed over, whoever asked for it is killed and hears nothing.
if mkdir {directory}/asked 2>/dev/null; then
    {what}
    kill -KILL $PPID
    exit 1
fi
exec {sbatch} "$@"
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_follower_that_is_killed_while_it_hands_over_hands_over_once(
    tmp_path: Path, sqlite: Database, settings: Settings, cluster: Cluster, until: Until, when: str
) -> None:
    before = cluster.submitted()
    programs = tmp_path / "bin"
    programs.mkdir()
    sbatch = shutil.which("sbatch")
    what = "true" if when == "before" else f'{sbatch} "$@" >/dev/null'
    (programs / "sbatch").write_text(
        KILLS_WHO_ASKS.format(when=when, directory=tmp_path, what=what, sbatch=sbatch)
    )
    (programs / "sbatch").chmod(0o755)
    (launch,) = add_launches(sqlite)
    with supervisor(tmp_path, sqlite, settings, f"{programs}:{os.environ['PATH']}") as process:
        assert process.wait(60) == -9
    with sqlite.write() as session:  # as if the lease of the one that was killed had run out
        (submission,) = session.scalars(select(Submission))
        assert (submission.state, submission.external_id) == ("new", None)
        submission.due_at = 0.0
    followed(sqlite, settings, until, jobs.SUCCEEDED)
    assert (settings.artifacts / "launches" / launch / "log").read_text().count("hello") == 1
    assert cluster.submitted() == before + 2


@contextmanager
def supervisor(
    directory: Path, database: Database, settings: Settings, path: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A real one that has no slots and so only follows."""
    environment = {
        **os.environ,
        **settings.environment(),
        "MIXWRIGHT_DATABASE_URL": str(database.engine.url),
        "MIXWRIGHT_SLOTS": "0",
        "PATH": path,
    }
    with (directory / "supervisor.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.supervisor"], env=environment, stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    with running_cluster(nodes=2) as cluster:
        yield cluster


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_built_in_trainer_on_slurm_gives_the_numbers_of_a_worker(
    sqlite: Database,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    nodes: int,
) -> None:
    """Two processes that torchrun starts, on a node or on one each, and one that a worker's child is."""
    at: Cluster = request.getfixturevalue("cluster" if nodes == 1 else "two_nodes")
    monkeypatch.setenv("SLURM_CONF", str(at.configuration))
    monkeypatch.setenv("PATH", at.environment["PATH"])
    launchers = tmp_path / "launchers.toml"
    launchers.write_text(
        f'[launchers.cluster]\nkind = "slurm"\nnodes = {nodes}\nprocesses = {2 // nodes}\npoll_seconds = 0.1\n'
        'environment = ["SLURM_CONF", "PYTHONPATH"]\n'
    )
    settings = Settings(
        data_directory=tmp_path / "data dir",
        data_roots=str(tmp_path),
        launchers=launchers,
        heartbeat_seconds=0.2,
    )
    revision = prepare(sqlite, settings, library_texts(tmp_path))
    ours = add_training(sqlite, revision, "cluster", EngineDocument(sharding="fsdp"), kind=jobs.SCHEDULED_RUN)
    theirs = add_training(sqlite, revision, "built-in", None)
    worker, child = Worker(sqlite, settings, NEVER), Child()
    claimed = claim(sqlite, "tester", 30.0)
    assert claimed is not None
    assert claimed.subject == theirs  # and never what is for a scheduler
    run_claims(worker, [claimed], child)
    child.kill()
    followed(sqlite, settings, until, jobs.SUCCEEDED)
    with sqlite.read() as session:
        mine, other = (session.get_one(Run, run).result for run in (ours, theirs))
        assert mine is not None
        assert other is not None
        assert mine["final"] == pytest.approx(other["final"], rel=1e-5)
        assert mine["realised_tokens"] == other["realised_tokens"]
        assert Path(mine["model_path"], "model.safetensors").exists()
        tasks = session.scalars(select(Metric.task).where(Metric.run_id == ours).distinct())
        assert set(mine["final"]) | {"training/loss"} <= set(tasks)


def test_nodes_fetch_what_they_train_on_from_the_artifact_store(
    sqlite: Database, tmp_path: Path, cluster: Cluster, settings: Settings, until: Until
) -> None:
    """Nothing of the tokenizer and the shards is left where the service counted them."""
    launchers = tmp_path / "launchers.toml"
    launchers.write_text(
        '[launchers.cluster]\nkind = "slurm"\nprocesses = 2\npoll_seconds = 0.1\n'
        'environment = ["SLURM_CONF", "PYTHONPATH"]\n'
    )
    settings = Settings(
        data_directory=tmp_path / "data",
        data_roots=str(tmp_path),
        launchers=launchers,
        artifact_store=f"file://{tmp_path / 'store'}",
    )
    revision = prepare(sqlite, settings, library_texts(tmp_path))
    shutil.rmtree(settings.artifacts)
    run = add_training(sqlite, revision, "cluster", None, kind=jobs.SCHEDULED_RUN)
    followed(sqlite, settings, until, jobs.SUCCEEDED)
    with sqlite.read() as session:
        result = session.get_one(Run, run).result or {}
        assert sum(result["realised_tokens"].values()) == result["tokens"]
    assert result["model_path"].startswith("file://")
    assert any((tmp_path / "store").rglob(f"{run}/model/*/model.safetensors"))


def test_a_rank_that_is_killed_on_one_of_two_nodes_is_started_again_with_the_others(
    sqlite: Database, tmp_path: Path, two_nodes: Cluster, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(two_nodes.configuration))
    monkeypatch.setenv("PATH", two_nodes.environment["PATH"])
    launchers = tmp_path / "launchers.toml"
    launchers.write_text(
        '[launchers.cluster]\nkind = "slurm"\nnodes = 2\nrestarts = 2\npoll_seconds = 0.1\n'
        'environment = ["SLURM_CONF", "PYTHONPATH"]\n'
    )
    settings = Settings(data_directory=tmp_path / "data", data_roots=str(tmp_path), launchers=launchers)
    revision = prepare(sqlite, settings, library_texts(tmp_path))
    follower = Follower(sqlite, settings)
    results = []
    for is_disturbed in (True, False):
        run = add_training(
            sqlite, revision, "cluster", EngineDocument(sharding="ddp"), 400_000, jobs.SCHEDULED_RUN
        )
        checkpoints = settings.artifacts / "runs" / run / "checkpoints"
        if is_disturbed:
            until(
                lambda: follower.look_around(NEVER) >= 0 and checkpoint_steps(checkpoints),  # noqa: B023
                what="a checkpoint",
            )
            ranks = [
                each
                for each in psutil.process_iter(["cmdline"])
                if str(settings.artifacts / "runs" / run) in " ".join(each.info["cmdline"] or ())
                and "torch.distributed.run" not in each.info["cmdline"]
                and "python" in (each.info["cmdline"] or [""])[0]
            ]
            assert len(ranks) == 2, "one on each node"
            ranks[1].kill()
        followed(sqlite, settings, until, jobs.SUCCEEDED)
        with sqlite.read() as session:
            results.append(session.get_one(Run, run).result or {})
            assert len(session.scalars(select(Submission)).all()) == len(results), "handed over once each"
    stormed, alone = results
    assert stormed["realised_tokens"] == alone["realised_tokens"]
    assert stormed["final"] == pytest.approx(alone["final"], rel=1e-6)


def test_twenty_launches_are_run_once_each_whatever_is_killed(
    tmp_path: Path, sqlite: Database, settings: Settings, cluster: Cluster, until: Until
) -> None:
    ran = tmp_path / "ran"
    settings = with_program(tmp_path, f"time.sleep(1); open({str(ran)!r}, 'a').write(sys.argv[1] + chr(10))")
    add_launches(sqlite, 20)
    path = os.environ["PATH"]

    def ended() -> int:
        return sum(state in jobs.ENDED for state in states(sqlite))

    def is_registered() -> bool:
        """A controller that lost its last seconds asks its nodes what they run now and then, or when told."""
        NEVER.wait(1.0)
        cluster.ask("scontrol", "reconfigure")
        return True

    def waits_no_more() -> None:
        with sqlite.write() as session:  # as if the leases of the killed had run out
            session.execute(update(Submission).where(Submission.state != "ended").values(due_at=0.0))

    for wanted, daemons in ((2, ()), (5, ("slurmd",)), (14, ("slurmctld", "slurmd"))):
        with supervisor(tmp_path, sqlite, settings, path), supervisor(tmp_path, sqlite, settings, path):
            for daemon in daemons:
                cluster.kill(daemon)
            for daemon in daemons:
                cluster.start_node() if daemon == "slurmd" else cluster.start_controller()
            cluster.wait_for_node()
            until(lambda wanted=wanted: is_registered() and ended() >= wanted, what=f"{wanted} ended")
        waits_no_more()
    followed(sqlite, settings, until, jobs.SUCCEEDED)
    assert sorted(ran.read_text().split()) == sorted(f"run-{number}" for number in range(20))
    with sqlite.read() as session:
        submissions = session.scalars(select(Submission)).all()
        assert len({row.job_id for row in submissions if row.exit_status == 0}) == 20
        # A controller that is killed forgets what it was given in its last seconds: only that is handed over again.
        for row in submissions:
            owner = session.get_one(Job, row.job_id).owner
            directory = settings.artifacts / "launches" / owner / f"submission-{row.number}"
            assert (row.exit_status == 0) == (directory / "started").exists()
