"""A launch on several processes of a worker's machine, by ``torchrun`` itself."""

import threading
from pathlib import Path

import psutil
import pytest

from store import jobs
from store.documents import EngineDocument
from store.engine import Database
from store.launchers import BadLaunchers, read_launchers
from store.settings import Settings
from store.tables import Document, Job, Metric, Run
from tests.workers.conftest import Until, add_training, library_texts, prepare
from workers.claims.claim import claim
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims


def work(worker: Worker, child: Child) -> None:
    claimed = claim(worker.database, "tester", 30.0)
    assert claimed is not None
    run_claims(worker, [claimed], child)


def result_of(database: Database, run_id: str) -> Document | None:
    with database.read() as session:
        return session.get_one(Run, run_id).result


def series_of(database: Database, run_id: str) -> dict[tuple[int, str], float]:
    with database.read() as session:
        rows = session.query(Metric).filter_by(run_id=run_id)
        return {(row.step, row.task): row.value for row in rows}


def test_a_launch_on_two_processes_survives_one_of_them_and_gives_the_numbers_of_one(
    sqlite: Database, tmp_path: Path, until: Until
) -> None:
    launchers = tmp_path / "launchers.toml"
    launchers.write_text("[launchers.two]\nprocesses = 2\n")
    settings = Settings(
        data_directory=tmp_path, data_roots=str(tmp_path), launchers=launchers, heartbeat_seconds=0.2
    )
    revision_id = prepare(sqlite, settings, library_texts(tmp_path))
    worker, child = Worker(sqlite, settings, threading.Event()), Child()

    shared = add_training(
        sqlite, revision_id, "two", EngineDocument(sharding="fsdp", micro_batch_rows=1), 40_000
    )
    killed: list[int] = []

    def kill_one() -> None:
        def trainers() -> list[psutil.Process]:
            started = psutil.Process().children(recursive=True)
            return [one for one in started if "proxy_models.training.full_run" in " ".join(one.cmdline()[:5])]

        progress = settings.artifacts / "runs" / shared / "progress.json"
        until(progress.exists, what="the first progress")
        found = [one for one in trainers() if "torch.distributed.run" not in " ".join(one.cmdline())]
        found[-1].kill()
        killed.append(found[-1].pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    work(worker, child)
    killer.join()
    with sqlite.write() as session:
        (job,) = session.query(Job).filter_by(kind=jobs.FULL_RUN)
        assert (job.state, job.failure_code, job.attempt) == (jobs.QUEUED, "torchrun_failed", 1)
        job.available_at = 0.0
    work(worker, child)

    alone = add_training(sqlite, revision_id, "built-in", None, 40_000)
    work(worker, child)
    child.kill()
    mine, theirs = result_of(sqlite, shared), result_of(sqlite, alone)
    assert mine is not None
    assert theirs is not None
    assert mine["final"] == pytest.approx(theirs["final"], rel=1e-5)
    assert mine["realised_tokens"] == theirs["realised_tokens"]
    curves = [series_of(sqlite, run) for run in (shared, alone)]
    assert curves[0].keys() == curves[1].keys()
    assert len([name for _, name in curves[0] if name == "training/loss"]) == 40_000 // 256
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    assert Path(mine["model_path"], "model.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[launchers.x]\nprocesses = 0\n", "greater than or equal to 1"),
        ("[launchers.x]\nprocesses = 2\ndevice = 'tpu'\n", "'cpu' or 'cuda'"),
        ("[launchers.x]\nprocesses = 2\ncommand = ['/bin/x']\n", "Extra inputs are not permitted"),
    ],
)
def test_processes_that_cannot_be_started_are_said(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "launchers.toml"
    file.write_text(text)
    with pytest.raises(BadLaunchers, match=complaint):
        read_launchers(file)
