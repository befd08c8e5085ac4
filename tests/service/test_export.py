"""The model of a run over HTTP and from the command line; the run is a row, its files are a real model's."""

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from click.testing import CliRunner
from fastapi.testclient import TestClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxy_models.config import SIZES
from proxy_models.model.model import Decoder
from proxy_models.storage import unpack_folder
from proxy_models.text.tokenizer import train_byte_level_bpe
from proxy_models.training.run_record import save_model
from service.cli.main import main
from service.client import ApiError, Client
from store.engine import Database
from store.settings import Settings
from store.tables import Revision, Run
from tests.service.conftest import TOKEN
from tests.service.dashboard.store import SETTINGS, Store

RUNNING, SUCCEEDED = 1, 0


@dataclass(frozen=True)
class Trained:
    """Two runs of an optimization, one succeeded, with its model on the disk, and one still running."""

    model: Decoder
    succeeded: str
    running: str
    files: Path


@pytest.fixture
def trained(client: TestClient, settings: Settings) -> Iterator[Trained]:
    database = Database(settings.resolved_database_url)
    store = Store(database)
    tokenizer = settings.artifacts / "tokenizers" / "t.json"
    vocabulary = train_byte_level_bpe(["some text, some more text"] * 9, 300, tokenizer).vocabulary_size
    store.optimization(store.domain_set(), "running", ["succeeded", "running"])
    with database.write() as session:
        session.query(Revision).one().tokenizer_path = str(tokenizer)
        runs = {run.position: run.id for run in session.query(Run)}
    model = Decoder(SIZES["nano-0.1M"].with_vocabulary(vocabulary), seed=1)
    place = settings.artifacts / "runs" / runs[SUCCEEDED] / "model"
    save_model(place, model.config, dict(model.named_parameters()))
    yield Trained(model, runs[SUCCEEDED], runs[RUNNING], place)
    database.close()


def check(folder: Path, model: Decoder) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)("some more text", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model.logits(model(ids)), rtol=0, atol=1e-5)
    assert loaded.config.max_position_embeddings == SETTINGS["proxy"]["sequence_length"]


@pytest.fixture
def remote(client: TestClient) -> Iterator[Client]:
    """The client a program has; its requests go to the application under test."""

    def answer(request: httpx.Request) -> httpx.Response:
        found = client.request(request.method, str(request.url))
        return httpx.Response(found.status_code, headers=dict(found.headers), content=found.content)

    with Client("http://127.0.0.1", TOKEN, transport=httpx.MockTransport(answer)) as remote:
        yield remote


def test_a_model_is_downloaded_and_loaded(
    client: TestClient, remote: Client, trained: Trained, tmp_path: Path
) -> None:
    remote.download_model(trained.succeeded, tmp_path / "downloaded")
    check(tmp_path / "downloaded", trained.model)
    answer = client.get(f"/v1/runs/{trained.succeeded}/model")
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert trained.succeeded in answer.headers["content-disposition"]
    with pytest.raises(FileExistsError):
        remote.download_model(trained.succeeded, tmp_path / "downloaded")


def test_a_run_without_a_model_says_why(
    client: TestClient, remote: Client, trained: Trained, tmp_path: Path
) -> None:
    def problem(run_id: str) -> tuple[int, str]:
        answer = client.get(f"/v1/runs/{run_id}/model")
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code, answer.json()["code"]

    assert problem(trained.running) == (409, "run_not_succeeded")
    assert problem("run_unknown") == (404, "run_not_found")
    assert client.get(f"/v1/runs/{trained.succeeded}/model", headers={"Authorization": ""}).status_code == 401
    (trained.files / "model.safetensors").unlink()
    assert problem(trained.succeeded) == (409, "model_missing")
    with pytest.raises(ApiError) as caught:
        remote.download_model(trained.succeeded, tmp_path / "none")
    assert caught.value.code == "model_missing"
    assert not (tmp_path / "none").exists()


def test_the_command_writes_a_folder_and_overwrites_nothing(
    settings: Settings, trained: Trained, tmp_path: Path
) -> None:
    def export(run_id: str, to: Path) -> tuple[int, str]:
        data = ["--data", str(settings.data_directory)]
        result = CliRunner().invoke(main, ["export", run_id, "--to", str(to), *data])
        return result.exit_code, result.output

    assert export(trained.succeeded, tmp_path / "folder")[0] == 0
    check(tmp_path / "folder", trained.model)
    code, said = export(trained.succeeded, tmp_path / "folder")
    assert (code, "exists already" in said) == (1, True)
    code, said = export(trained.running, tmp_path / "other")
    assert (code, "running" in said) == (1, True)
    code, said = export("run_unknown", tmp_path / "other")
    assert (code, "There is no run" in said) == (1, True)
    assert not (tmp_path / "other").exists()


def test_an_archive_that_is_cut_short_leaves_nothing(
    client: TestClient, trained: Trained, tmp_path: Path
) -> None:
    content = client.get(f"/v1/runs/{trained.succeeded}/model").content
    with pytest.raises(tarfile.TarError):
        unpack_folder(iter((content[: len(content) // 2],)), tmp_path / "half")
    assert not any(path.name.endswith(("half", ".tmp")) for path in tmp_path.iterdir())


def test_exporting_needs_no_torch() -> None:
    program = (
        "import sys; import service.swarms.endpoints, service.client; "
        "sys.exit(any(name.partition('.')[0] in ('torch', 'transformers') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
