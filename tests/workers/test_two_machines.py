"""Two machines that share a database and an artifact store only: what one loses the other goes on with."""

import io
import json
import shutil
import signal
import sysconfig
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import load_file
from sqlalchemy import delete, select

from proxy_models.stores.object_path import is_address
from service.http.app import create_app
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job, Metric, Optimization, Revision, Run, Swarm
from tests.s3 import S3Server, s3_server
from tests.stores.conftest import objects_in, put
from tests.workers.conftest import new_revision
from workers.claims.claim import claim, release
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims, specification
from workers.execution.waves import next_work

Until = Callable[..., None]
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
SOURCES = {"mail": "email/*.py", "web": "http/*.py"}
PROXY = {
    "size": "nano-0.1M",
    "tokens": 20_000,
    "sequence_length": 32,
    "batch_rows": 4,
    "learning_rate": None,
    "evaluations": 2,
    "repetition_cap": None,
}
TOKEN = "a token for tests"


@pytest.fixture(scope="module")
def s3_module() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


FILE_AND_S3 = pytest.mark.parametrize(
    "store", ["file", pytest.param("s3", marks=pytest.mark.long)], indirect=True
)
"""One kind of store each time: what the two do alike is held by tests/stores."""


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        return f"file://{tmp_path / 'store'}"
    server: S3Server = request.getfixturevalue("s3_module")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.new_bucket()}/team"


@dataclass
class Machine:
    """A machine of the team; ``lost`` takes it away with its disk."""

    worker: Worker
    child: Child

    def lost(self) -> None:
        """Switch it off for good."""
        self.child.kill()
        shutil.rmtree(self.worker.settings.data_directory)

    def work_off(self) -> None:
        """Do whatever waits."""
        while (work := next_work(self.worker, "tester", self.child)) is not None:
            run_claims(self.worker, work.claims, self.child, work.backend)


@pytest.fixture
def machine(store: str, sqlite: Database, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make(name: str, **settings: Any) -> Machine:
        given = {"data_roots": f"{tmp_path / 'text'}:{store}/text", "backend": "one-by-one", **settings}
        settings_ = Settings(
            data_directory=tmp_path / name, slots=1, artifact_store=f"{store}/artifacts", **given
        )
        made.append(Machine(Worker(sqlite, settings_, threading.Event()), Child()))
        return made[-1]

    yield make
    for one in made:
        one.child.kill()


def write_text(store: str, tmp_path: Path) -> dict[str, str]:
    """Two domains of real text where both machines can read them: in the S3 store, or in a directory they share."""
    files = {}
    for name, pattern in SOURCES.items():
        texts = [file.read_text(encoding="utf-8") for file in sorted(LIBRARY.glob(pattern))]
        pieces = [text[start : start + 1500] for text in texts for start in range(0, len(text), 1500)]
        content = "".join(json.dumps({"text": piece}) + "\n" for piece in pieces).encode()
        if store.startswith("file://"):
            files[name] = str(tmp_path / "text" / f"{name}.jsonl")
            Path(files[name]).parent.mkdir(exist_ok=True)
            Path(files[name]).write_bytes(content)
        else:
            files[name] = put(f"{store}/text/{name}.jsonl", content)
    return files


@pytest.fixture
def revision_id(sqlite: Database, store: str, tmp_path: Path) -> str:
    with sqlite.write() as session:
        revision = new_revision(session)
        for name, file in write_text(store, tmp_path).items():
            session.add(DomainRow(revision_id=revision.id, name=name, files=[file]))
        session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
        session.flush()
        return revision.id


def add_run(database: Database, revision_id: str, **proxy: Any) -> str:
    """A run that waits to be trained."""
    with database.write() as session:
        settings = {"proxy": {**PROXY, **proxy}, "tasks": [], "runs": 1, "rounds": [1], "minimum_runs": 1}
        optimization = Optimization(
            revision_id=revision_id, method="olmix", seed=0, state=jobs.RUNNING,
            settings={**settings, "recipe": {"sampler": "dirichlet"}},
        )  # fmt: skip
        session.add(optimization)
        session.flush()
        swarm = Swarm(optimization_id=optimization.id, revision_id=revision_id)
        session.add(swarm)
        session.flush()
        run = Run(swarm_id=swarm.id, position=0, seed=5, weights={"mail": 0.7, "web": 0.3})
        session.add(run)
        session.flush()
        session.add(jobs.new_job(jobs.PROXY_RUN, run.id, optimization.id))
        return run.id


def result_of(database: Database, run_id: str) -> dict[str, Any]:
    with database.read() as session:
        job = session.scalars(select(Job).where(Job.subject == run_id)).one()
        assert job.state == jobs.SUCCEEDED, f"{job.state}: {job.failure_code}: {job.failure_detail}"
        return dict(session.get_one(Run, run_id).result or {})


@FILE_AND_S3
def test_a_run_of_a_lost_machine_goes_on_elsewhere_to_the_same_numbers(
    machine: Callable[..., Machine], sqlite: Database, revision_id: str, store: str, until: Until
) -> None:
    first = machine("first")
    first.work_off()
    with sqlite.read() as session:
        revision = session.get_one(Revision, revision_id)
        places = [revision.tokenizer_path, *(row.shard_directory for row in revision.domains)]
    assert all(place is not None and is_address(place) and place.startswith(store) for place in places)

    undisturbed = add_run(sqlite, revision_id)
    first.work_off()
    expected = result_of(sqlite, undisturbed)

    run_id = add_run(sqlite, revision_id)
    taken = claim(sqlite, "first", 30.0)
    assert taken is not None
    first.child.order(jobs.PROXY_RUN, [{**specification(first.worker, taken), "checkpoint_seconds": 0.05}])
    shared = first.worker.settings.store
    assert shared is not None
    checkpoints = shared.directory / "runs" / run_id / "checkpoints"
    until(lambda: shared.names_in(checkpoints), what="a published checkpoint")
    assert first.child.pid is not None
    first.child._process.send_signal(signal.SIGKILL)  # pyright: ignore[reportOptionalMemberAccess]
    left = shared.names_in(checkpoints)
    first.lost()
    release(sqlite, taken)

    second = machine("second")
    second.work_off()
    result = result_of(sqlite, run_id)
    for name in ("final", "noise", "realised_tokens", "tokens"):
        assert result[name] == expected[name], name
    assert result["seconds"] > 0
    assert left, "there was something to go on from"
    log = (second.worker.settings.artifacts / "runs" / run_id / "result.json").read_text()
    assert json.loads(log)["result"]["final"] == expected["final"]

    # In the store are the model and the result, and no checkpoint any more.
    names = {name.split("/")[2] for name in objects_in(shared) if name.startswith(f"runs/{run_id}/")}
    assert names == {"model", "result.json"}
    assert result["model_path"] == f"{shared.address}/runs/{run_id}/model"


@FILE_AND_S3
def test_a_finished_run_is_not_trained_again_by_another_machine(
    machine: Callable[..., Machine], sqlite: Database, revision_id: str
) -> None:
    first, second = machine("first"), machine("second")
    first.work_off()
    run_id = add_run(sqlite, revision_id)
    first.work_off()
    finished = result_of(sqlite, run_id)
    with sqlite.write() as session:  # as if the first had died before it could say so
        job = session.scalars(select(Job).where(Job.subject == run_id)).one()
        job.state, job.finished_at = jobs.QUEUED, None
        session.get_one(Run, run_id).result = None
        session.execute(delete(Metric).where(Metric.run_id == run_id))
    first.lost()
    second.work_off()
    assert result_of(sqlite, run_id) == finished, "the seconds too: it is the same training"


@pytest.mark.parametrize("store", [pytest.param("file", marks=pytest.mark.long), "s3"], indirect=True)
def test_the_web_serves_a_model_and_a_new_run_starts_from_it_anywhere(
    machine: Callable[..., Machine], sqlite: Database, revision_id: str, tmp_path: Path
) -> None:
    first = machine("first")
    first.work_off()
    run_id = add_run(sqlite, revision_id)
    first.work_off()
    place = result_of(sqlite, run_id)["model_path"]
    model = load_file(first.worker.settings.artifacts / "runs" / run_id / "model" / "model.safetensors")
    first.lost()

    web = machine(
        "web", token=TOKEN, database_url=str(sqlite.engine.url), artifact_cache_bytes=0
    ).worker.settings
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(web), base_url="http://127.0.0.1", headers=headers) as client:
        assert client.get("/readyz").json()["artifact_store"] == "ok"
        answer = client.get(f"/v1/runs/{run_id}/model")
        assert answer.status_code == 200, answer.text
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
            archive.extractall(tmp_path / "got", filter="data")
        with sqlite.read() as session:
            revision = session.get_one(Revision, revision_id)
            shares = {row.name: 1 / len(revision.domains) for row in revision.domains}
            name = revision.domain_set.name
        mixture = client.post("/v1/mixtures", json={"domain_set": name, "name": "half", "weights": shares})
        assert mixture.status_code == 201, mixture.text
        launch = {"mixture_id": mixture.json()["id"], "tokens": 20_000, "start": place, "sequence_length": 32}
        refused = client.post("/v1/launches", json={**launch, "start": place.replace("/runs/", "/shards/")})
        assert (refused.status_code, refused.json()["field"]) == (422, "start")
        launched = client.post("/v1/launches", json=launch)
        assert launched.status_code == 202, launched.text
    folder = tmp_path / "got" / run_id
    exported = load_file(folder / "model.safetensors")
    assert (exported["model.embed_tokens.weight"] == model["embedding"]).all()
    assert (folder / "tokenizer.json").is_file()

    machine("second").work_off()
    with sqlite.read() as session:
        job = session.scalars(select(Job).where(Job.kind == jobs.FULL_RUN)).one()
        assert job.state == jobs.SUCCEEDED, f"{job.failure_code}: {job.failure_detail}"
