"""A tokenizer of the hub is fetched once, at one commit; a small hub of our own answers as the real one does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from proxy_models.errors import TokenizerError
from proxy_models.text.tokenizer import fetch_tokenizer, load_tokenizer, train_byte_level_bpe

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
NAME = "team/bpe"


class Hub(ThreadingHTTPServer):
    """Two commits of one repository of two files and a picture."""

    def __init__(self, definition: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
        self.files = {
            "tokenizer.json": definition,
            "tokenizer_config.json": json.dumps(settings).encode(),
            "picture.png": b"not asked for",
        }
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        head, _, file = path.partition("/resolve/")
        commit, _, name = file.partition("/")
        if head == f"/{NAME}" and commit in COMMITS.values() and name in self.server.files:
            content = self.server.files[name]
            self._send(
                200, content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            )
            return
        repository, _, revision = (
            path.removeprefix("/api/models/").replace("/tree/", "/revision/").partition("/revision/")
        )
        commit = COMMITS.get(revision or "main", revision if revision in COMMITS.values() else "")
        if not path.startswith("/api/models/") or repository != NAME or not commit:
            self._send(404, b'{"error": "not found"}', {"X-Error-Code": "RepoNotFound"})
            return
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.server.files.items()
            ]
            self._send(200, json.dumps(tree).encode(), {})
            return
        siblings = [{"rfilename": name} for name in self.server.files]
        self._send(200, json.dumps({"id": NAME, "sha": commit, "siblings": siblings}).encode(), {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_of(definition: bytes) -> Iterator[Hub]:
    with Hub(definition) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    train_byte_level_bpe(["some text to learn from"] * 50, 300, tmp_path / "ours.json")
    with hub_of((tmp_path / "ours.json").read_bytes()) as server:
        yield server


@pytest.mark.parametrize(("revision", "commit"), [(None, "a" * 40), ("v1", "b" * 40), ("b" * 40, "b" * 40)])
def test_a_name_is_pinned_to_its_commit_and_fetched_once(
    hub: Hub, tmp_path: Path, revision: str | None, commit: str
) -> None:
    fetched = fetch_tokenizer(NAME, revision, tmp_path / "kept", hub.address)
    assert fetched.commit == commit
    assert fetched.address == f"{hub.address}/{NAME}/tree/{commit}"
    assert sorted(path.name for path in fetched.directory.iterdir()) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    ids = load_tokenizer(tmp_path / "ours.json").encode("some text")
    assert load_tokenizer(fetched.directory).encode("some text") == ids
    hub.asked.clear()
    assert fetch_tokenizer(NAME, commit, tmp_path / "kept", hub.address) == fetched
    assert hub.asked == [], "a commit that is here is not asked for"


def test_what_the_hub_does_not_have_is_told(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be fetched from the hub"):
        fetch_tokenizer("team/other", None, tmp_path, hub.address)
    with pytest.raises(TokenizerError, match="cannot be fetched from the hub"):
        fetch_tokenizer(NAME, "v2", tmp_path, hub.address)
    assert not list(tmp_path.glob("*@*"))


def test_a_name_that_was_not_fetched_asks_nobody(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
    with pytest.raises(TokenizerError, match="known here"):
        load_tokenizer(NAME)
    assert hub.asked == []
