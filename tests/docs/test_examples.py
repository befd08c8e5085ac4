"""What a docstring shows is run as it is written."""

import doctest
import importlib
import json
import pkgutil
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import uvicorn

import mixing
import service.client
from service.http.app import create_app
from service.processes.web import server_config
from store.schema import upgrade
from store.settings import Settings

ROOT = Path(__file__).parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples() -> Iterator[str]:
    for module in pkgutil.walk_packages(mixing.__path__, "mixing."):
        file = ROOT / f"{module.name.replace('.', '/')}.py"
        if file.exists() and ">>> " in file.read_text():
            yield module.name


def run_examples(module: ModuleType, **names: object) -> doctest.TestResults:
    return doctest.testmod(module, extraglobs=names, optionflags=OPTIONS)


@pytest.mark.parametrize("name", sorted(modules_with_examples()))
def test_the_examples_of_the_library_run(name: str) -> None:
    results = run_examples(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0, "see the output"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Settings]]:
    """The address and the settings of a real service, its port chosen by the system."""
    (tmp_path / "corpora").mkdir()
    settings = Settings(data_directory=tmp_path, token="a-token-for-tests-only")
    upgrade(settings.resolved_database_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(create_app(settings), settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", settings
        server.should_exit = True
        thread.join()


def test_the_example_of_the_client_runs_against_a_service(served: tuple[str, Settings]) -> None:
    url, settings = served
    files = [str(settings.data_directory / "corpora" / f"{name}.jsonl") for name in ("web", "code")]
    for file in files:
        lines = (json.dumps({"text": f"{file}, document {number}, some words"}) for number in range(4000))
        Path(file).write_text("\n".join(lines))
    results = run_examples(service.client, url=url, token=settings.token, files=files)
    assert results.attempted > 0
    assert results.failed == 0, "see the output"


def test_whatever_the_library_page_calls_shows_a_call() -> None:
    """Every class and function that its code imports from `mixing`, but for plain constants."""
    text = (ROOT / "docs" / "library.md").read_text()
    for module, names in re.findall(r"^from (mixing[\w.]*) import (.*)$", text, re.MULTILINE):
        for name in names.split(", "):
            part = getattr(importlib.import_module(module), name)
            if callable(part):
                assert ">>> " in (part.__doc__ or ""), f"{module}.{name}"
