"""Real processes, real training, real text: parts of Python's own library as domains."""

import json
import pydoc_data.topics
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from service.processes.serving import LocalService

DEADLINE_SECONDS = 600.0
POLL_SECONDS = 0.1
LIBRARY = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Look until a condition holds (answers what it gave); the deadline only bounds a failure."""

    def wait(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            threading.Event().wait(POLL_SECONDS)  # leaves the cores to what is waited for
        raise AssertionError(f"not within {seconds:.0f} s: {what}")

    return wait


def write_jsonl(path: Path, documents: Sequence[Mapping[str, Any]]) -> str:
    """One JSON document a line; answers the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return str(path)


def pieces(text: str, size: int = 1500) -> list[dict[str, str]]:
    """Documents of about ``size`` characters."""
    return [{"text": text[start : start + size]} for start in range(0, len(text), size)]


def modules(*folders: str) -> str:
    """The source of every module of these packages of the standard library."""
    return "\n".join(
        file.read_text(encoding="utf-8")
        for folder in folders
        for file in sorted((LIBRARY / folder).glob("*.py"))
    )


@pytest.fixture(scope="session")
def library_text() -> dict[str, str]:
    """Four domains, more than ten times apart in size."""
    manual = "\n".join(str(topic) for _, topic in sorted(pydoc_data.topics.topics.items()))
    return {
        "code:network": modules("email", "http", "urllib", "asyncio"),
        "code:tables": modules("encodings")[:400_000],
        "code:small": modules("json"),
        "manual": manual[: len(manual) // 2],
    }


@pytest.fixture(scope="session")
def task_examples() -> list[dict[str, str]]:
    """From the half of the manual that no domain holds: a paragraph's start and how it goes on."""
    manual = "\n".join(str(topic) for _, topic in sorted(pydoc_data.topics.topics.items()))
    held_back = manual[len(manual) // 2 :]
    starts = range(0, 40 * 3000, 3000)
    return [
        {"context": held_back[start : start + 300], "continuation": held_back[start + 300 : start + 500]}
        for start in starts
    ]


@pytest.fixture
def start_service(
    tmp_path: Path, library_text: dict[str, str], task_examples: list[dict[str, str]]
) -> Iterator[Callable[[str], LocalService]]:
    """Start (again) the service of a named data directory; all that was started is stopped."""
    started: list[LocalService] = []

    def start(name: str) -> LocalService:
        data = tmp_path / name
        corpora = data / "corpora"
        if not corpora.exists():
            for domain, text in library_text.items():
                write_jsonl(corpora / f"{domain.replace(':', '-')}.jsonl", pieces(text))
            write_jsonl(corpora / "manual-task.jsonl", task_examples)
        service = LocalService.start(data, 0)
        started.append(service)
        return service

    yield start
    for service in started:
        service.stop()


@pytest.fixture
def ask(library_text: dict[str, str]) -> Callable[[Client, Path], dict[str, Any]]:
    """POST the domain set and an optimization of it, the same ones whenever asked again."""

    def post(client: Client, data: Path) -> dict[str, Any]:
        corpora = data / "corpora"
        domains = [
            {"name": name, "files": [str(corpora / f"{name.replace(':', '-')}.jsonl")]}
            for name in sorted(library_text)
        ]
        request = {
            "name": "library",
            "tokenizer": {"vocabulary_size": 1024},
            "held_out_fraction": 0.1,
            "domains": domains,
        }
        client.create_domain_set(request, "the domain set")
        optimization = {
            "domain_set": "library",
            "runs": 10,
            "regression": "effective-power",  # one law: what is killed is no fit
            "seed": 7,
            "target_tokens": 400_000,
            "proxy": {"size": "nano-0.1M", "tokens": 81_920, "sequence_length": 64},
            "tasks": [{"name": "manual", "path": str(corpora / "manual-task.jsonl")}],
        }
        return client.create_optimization(optimization, "the optimization")

    return post
