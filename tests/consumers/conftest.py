"""Trainers' own loaders, each in an environment of its own, which ``scripts/consumers.sh`` makes."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
_ENVIRONMENTS = ROOT / ".consumers"
_DRAWS = Path(__file__).parent / "draws"
_PACKAGES = {"olmo-core": "ai2_olmo_core", "megatron": "megatron_core", "streaming": "mosaicml_streaming"}
_FILE = "CONSUMER_DRAWS"
"""The environment variable that names where to write what was drawn."""

Draw = Callable[[str, Path], dict[str, float]]
Note = Callable[..., None]
_noted: list[dict[str, Any]] = []


def python_of(consumer: str) -> Path:
    """The interpreter of its environment; without one the test is skipped."""
    python = _environment(consumer) / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"{consumer} is not installed in {_ENVIRONMENTS}: `make test-consumers` installs it")
    return python


@pytest.fixture
def draw() -> Draw:
    """Run a consumer's loader over a directory that holds an export and its data: rows or tokens drawn by domain."""

    def run(consumer: str, directory: Path) -> dict[str, float]:
        python = python_of(consumer)
        script = _DRAWS / f"draw_{consumer.replace('-', '_')}.py"
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [python, script, directory], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


@pytest.fixture
def note() -> Note:
    """Keep what was drawn beside what the report said, for the file of results."""

    def keep(consumer: str, said: Mapping[str, float], drawn: Mapping[str, float], **more: Any) -> None:
        apart = max(abs(drawn.get(name, 0.0) - count) for name, count in said.items())
        _noted.append(
            {
                "format": consumer,
                "loader": _version(consumer),
                "domains": len(said),
                "tokens": sum(drawn.values()),
                "largest_difference_tokens": apart,
                **more,
            }
        )

    return keep


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write what was drawn, where all that ran has passed."""
    if _noted and exitstatus == 0 and (file := os.environ.get(_FILE)):
        rows = sorted(_noted, key=lambda row: (row["format"], row["domains"]))
        Path(file).write_text(json.dumps(rows, indent=1) + "\n")


def _environment(consumer: str) -> Path:
    return _ENVIRONMENTS / consumer


def _version(consumer: str) -> str:
    """The package that was installed, as its folder of metadata says."""
    package = _PACKAGES.get(consumer, consumer)
    (found,) = _environment(consumer).glob(f"lib/python*/site-packages/{package}-[0-9]*.dist-info")
    return found.name.removesuffix(".dist-info").replace("-", " ").replace("_", "-")
