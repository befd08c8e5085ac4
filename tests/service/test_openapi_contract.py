"""The published OpenAPI document is what a served application does: every answer to generated requests is in it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.api import TOKEN, served
from benchmarks.api_store import Sizes, fill
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings

SEED = "1"
EXAMPLES = "5"
"""A generated request an operation; the boundary cases of the coverage phase come on top."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A web process of its own over a store with something in it."""
    # Generated bodies may be long, and 413 is no answer to whether one fits the schema; nor is
    # 429 to whether a wrong token is refused.
    settings = Settings(data_directory=tmp_path, token=TOKEN, body_limit_bytes=2**26, wrong_tokens=10_000)
    upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    fill(database, Sizes(runs=12, optimizations=3, domain_sets=2))
    database.close()
    with served(settings, workers=1) as web:
        yield web.url


def test_every_answer_is_as_published(url: str) -> None:
    """Every check of Schemathesis but one, on boundary cases, random requests and sequences of them.

    Left out is that what the schema allows is accepted: a schema cannot say that a file exists or that weights sum
    to one. Such a request is refused with a problem document, which the other checks look at.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/v1/openapi.json", "--no-color"]
    command += ["--header", f"Authorization: Bearer {TOKEN}", "--seed", SEED, "--max-examples", EXAMPLES]
    command += ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
