"""Trainers' own loaders, each in an environment of its own, which ``scripts/consumers.sh`` makes."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ENVIRONMENTS = ROOT / ".consumers"
_DRAWS = Path(__file__).parent / "draws"

Draw = Callable[[str, Path], dict[str, float]]


@pytest.fixture
def draw() -> Draw:
    """Run a consumer's loader over a directory that holds an export and its data: rows or tokens drawn by domain."""

    def run(consumer: str, directory: Path) -> dict[str, float]:
        python = _ENVIRONMENTS / consumer / "bin" / "python"
        if not python.is_file():
            pytest.skip(f"{consumer} is not installed in {_ENVIRONMENTS}: `make test-consumers` installs it")
        script = _DRAWS / f"draw_{consumer.replace('-', '_')}.py"
        environment = {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [python, script, directory], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
