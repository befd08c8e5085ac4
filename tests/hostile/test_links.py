"""Whatever links lie below a data root, and whenever they are exchanged: what is outside is neither read nor told."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save_file

from proxy_models.errors import CorpusError, DataMissing, ProxyError, UnfitStart
from proxy_models.export import exported_model
from proxy_models.families.start import read_start
from proxy_models.text.corpus import read_documents
from proxy_models.text.data_roots import entries_of, reading_below
from proxy_models.text.task_file import read_task
from proxy_models.text.tokenizer import load_tokenizer, train_byte_level_bpe
from store import files
from store.files import resolve_files
from store.problems import Invalid
from store.settings import Settings
from tests.hostile.conftest import SECRET, problem, still_answers
from tests.service.test_families import save_ours

Document = dict[str, Any]
SWAPS = 10_000
EXCHANGE = """
import os, sys
number, *links = sys.argv[1:]
places = [(link, *map(os.readlink, (link, link + ".other"))) for link in links]
print("ready", flush=True)
for swap in range(int(number)):
    link, *targets = places[swap % len(places)]
    os.symlink(targets[swap // len(places) % 2 == 0], link + ".draft")
    os.replace(link + ".draft", link)
"""


def tokenizer_file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    train_byte_level_bpe([text] * 50, 300, path)
    return path


@pytest.fixture
def link(tmp_path: Path) -> Callable[[str], Path]:
    """A link below the root to the harmless thing of a name, to be exchanged for one to the secret of that name."""
    for place, text, tokens in (("root/good", "harmless", 7), ("outside", SECRET, 666)):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
        (folder / "task.jsonl").write_text(json.dumps({"context": text, "continuation": " x"}) + "\n")
        tokenizer_file(folder / "tokenizer.json", text)
        (folder / text).mkdir()
        save_ours(folder / "model", learning_rate=1e-4, tokens=tokens)

    def made(name: str) -> Path:
        path = tmp_path / "root" / f"link-{name or 'folder'}"
        path.symlink_to(tmp_path / "root/good" / name)
        path.with_name(f"{path.name}.other").symlink_to(tmp_path / "outside" / name)
        return path

    return made


def while_exchanged(*links: Path) -> Iterator[None]:
    """Again and again, until another process has exchanged the links so many times."""
    command = [sys.executable, "-c", EXCHANGE, str(SWAPS), *map(str, links)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while process.poll() is None:
            yield
    assert process.returncode == 0


def test_links_exchanged_while_they_are_opened_lead_to_nothing_outside(
    link: Callable[[str], Path], tmp_path: Path
) -> None:
    file, task, folder, model = link("a.jsonl"), link("task.jsonl"), link(""), link("model")
    tokenizer, root = link("tokenizer.json"), tmp_path / "root"
    harmless = load_tokenizer(root / "good" / "tokenizer.json").fingerprint
    seen: dict[str, int] = {}

    def once(what: str, act: Callable[[], object]) -> object:
        with suppress(ProxyError, Invalid, OSError):
            found = act()
            seen[what] = seen.get(what, 0) + 1
            return found
        return None

    with reading_below([root]):
        for _ in while_exchanged(file, task, folder, model, tokenizer):
            assert once("file", lambda: list(read_documents(file))) in (None, ["harmless"])
            assert once("in a folder", lambda: list(read_documents(folder / "a.jsonl"))) in (
                None,
                ["harmless"],
            )
            assert once("task", lambda: read_task(task)[0].context) in (None, "harmless")
            assert SECRET not in str(once("listing", lambda: names_in(folder)))
            assert once("start", lambda: read_start(model).saved.tokens) in (None, 7)  # pyright: ignore[reportOptionalMemberAccess]
            assert once("tokenizer", lambda: load_tokenizer(tokenizer).fingerprint) in (None, harmless)
            assert SECRET not in str(once("pattern", lambda: resolve_files(f"{folder}/*/*", [root], "files")))
            found = once("one", lambda: resolve_files(str(folder / "a.jsonl"), [root], "files"))
            assert found in (None, [root / "good" / "a.jsonl"])
    assert {"file", "in a folder", "task", "listing", "start", "tokenizer", "one"} <= seen.keys(), seen


def names_in(folder: Path) -> list[str]:
    with entries_of(folder) as entries:
        return [entry.name for entry in entries]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.json", "adapter_config.json"])
def test_a_file_of_a_model_to_start_from_that_leads_outside_is_refused(
    client: TestClient, settings: Settings, domain_set: Document, tmp_path: Path, name: str
) -> None:
    client.post("/v1/domain-sets", json=domain_set)
    folder = save_ours(settings.data_directory / "corpora" / "model", learning_rate=1e-4, tokens=9)
    others = save_ours(tmp_path / "others", learning_rate=0.123, tokens=9)
    (folder / name).unlink(missing_ok=True)
    said = set()
    for target in (others / name, others / "nothing"):
        (folder / name).symlink_to(target)
        proxy = {"start": str(folder), "tokens": 65_536}
        request = {"domain_set": "pool", "target_tokens": 2_000_000, "repetition_cap": 4, "proxy": proxy}
        found = problem(client.post("/v1/optimizations", json=request))
        assert (found["code"], found["field"]) == ("unfit_start", "proxy.start")
        assert f"its {name} cannot be read" in found["detail"]
        said.add(found["detail"])
        with settings.reading(), pytest.raises(UnfitStart, match="leads outside the data roots"):
            read_start(folder)
        (folder / name).unlink()
    assert len(said) == 1, "whether it is there is not told"
    still_answers_but_for_the_domain_set(client)


def still_answers_but_for_the_domain_set(client: TestClient) -> None:
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/optimizations").json() == {"items": [], "next": None}


def test_a_model_is_taken_through_links_that_stay_inside(tmp_path: Path) -> None:
    """As the cache of a hub has them: a folder of links to files that are named by their content."""
    saved = save_ours(tmp_path / "root" / "blobs", learning_rate=1e-4, tokens=9)
    folder = tmp_path / "root" / "snapshots" / "main"
    folder.mkdir(parents=True)
    for file in saved.iterdir():
        (folder / file.name).symlink_to(f"../../blobs/{file.name}")
    with reading_below([tmp_path / "root"]):
        assert read_start(folder).content == read_start(saved).content


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.json"])
def test_a_file_of_a_tokenizer_that_leads_outside_is_refused(
    client: TestClient, settings: Settings, domain_set: Document, outside: Path, name: str
) -> None:
    folder = settings.data_directory / "corpora" / "tokenizer"
    tokenizer_file(folder / "tokenizer.json", "harmless")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside / "secret.jsonl")
    asked = {**domain_set, "tokenizer": {"huggingface": str(folder)}}
    found = problem(client.post("/v1/domain-sets", json=asked))
    assert (found["code"], found["field"]) == ("outside_data_roots", "tokenizer.huggingface")
    with settings.reading(), pytest.raises(CorpusError, match="leads outside the data roots"):
        load_tokenizer(folder)
    still_answers(client)


def test_no_tokenizer_from_outside_goes_with_an_exported_model(tmp_path: Path, outside: Path) -> None:
    model = tmp_path / "artifacts" / "model"
    save_ours(model)
    save_file({"embedding": np.zeros((4, 4), np.float32)}, model / "model.safetensors")
    folder = tmp_path / "root" / "tokenizer"
    tokenizer_file(folder / "tokenizer.json", "harmless")
    with reading_below([tmp_path / "root"], [tmp_path / "artifacts"]):
        exported = exported_model(model, str(folder), 64)
        for file in folder.iterdir():
            file.unlink()
            file.symlink_to(outside / "secret.jsonl")
        with pytest.raises(DataMissing, match="leads outside"):
            exported_model(model, str(folder), 64)
        with pytest.raises(DataMissing, match="leads outside"):  # that was named before it was exchanged
            [list(file.pieces()) for file in exported]


def test_links_to_ancestors_end(settings: Settings, client: TestClient, domain_set: Document) -> None:
    root = settings.data_directory / "corpora"
    deep = root / "deep" / "deeper"
    deep.mkdir(parents=True)
    for name in ("one", "two"):
        (deep / name).symlink_to(root)
    (deep / "text.jsonl").write_bytes(Path(domain_set["domains"][0]["files"][0]).read_bytes())
    assert resolve_files(f"{root}/**/text.jsonl", [root], "files") == [deep / "text.jsonl"]
    assert len(resolve_files(f"{root}/**", [root], "files")) == len([*root.glob("*.jsonl")]) + 1
    domain_set["domains"][0]["files"] = [f"{root}/**/nothing"]
    assert problem(client.post("/v1/domain-sets", json=domain_set))["code"] == "no_such_file"


def test_a_search_is_bounded_by_what_it_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        (tmp_path / f"{number}").mkdir()
    (tmp_path / "299" / "a.jsonl").touch()
    monkeypatch.setattr(files, "MAX_ENTRIES", 700)
    assert resolve_files(f"{tmp_path}/*/a.jsonl", [tmp_path], "files") == [tmp_path / "299" / "a.jsonl"]
    assert resolve_files(f"{tmp_path}/**/a.jsonl", [tmp_path], "files") == [tmp_path / "299" / "a.jsonl"]
    for limit, value in (("MAX_ENTRIES", 299), ("SEARCH_SECONDS", -1.0)):
        with monkeypatch.context() as patch:
            patch.setattr(files, limit, value)
            for pattern in ("*/a.jsonl", "**/a.jsonl", "**"):
                with pytest.raises(Invalid) as caught:
                    resolve_files(f"{tmp_path}/{pattern}", [tmp_path], "files")
                assert caught.value.code == "too_many_files"


def test_what_is_outside_is_answered_alike_whether_it_is_there_or_not(
    client: TestClient, settings: Settings, domain_set: Document, outside: Path
) -> None:
    root = settings.data_directory / "corpora"
    (root / "evil").symlink_to("/")
    (root / "folder").mkdir()
    (root / "folder" / "there").symlink_to(outside / "secret.jsonl")
    (root / "folder" / "not-there").symlink_to(outside / "nothing")

    def answer(pattern: str) -> tuple[str, str]:
        domain_set["domains"][0]["files"] = [f"{root}/{pattern}"]
        found = problem(client.post("/v1/domain-sets", json=domain_set))
        return found["code"], found["detail"].replace(pattern.split("/")[-1], "")

    for there, absent in (
        ("evil/e*c/pass*", "evil/e*c/nope*"),
        ("evil/etc/passwd", "evil/etc/nope"),
        ("ev*/etc/passwd", "ev*/etc/nope"),
        ("*/etc", "*/nope"),
        ("**/etc/passwd", "**/etc/nope"),
        ("folder/there", "folder/not-there"),
        ("folder/th*", "folder/no*"),
    ):
        first, second = answer(there), answer(absent)
        assert first == second or "folder" in there, there
        assert first[0] == second[0], there
    assert answer("evil/e*c/pass*")[0] == "outside_data_roots"
    still_answers(client)
