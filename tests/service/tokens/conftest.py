"""Tokens made by the real command over the store of the real application."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from service.cli.main import main
from store.settings import Settings


@pytest.fixture(autouse=True)
def suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody believes in a token for two seconds: what a command changed is seen by the next request."""
    monkeypatch.setattr("service.http.auth.TRUST_SECONDS", 0.0)


@pytest.fixture
def run_tokens(client: TestClient, settings: Settings) -> Callable[..., str]:
    """Run ``mixwright tokens ...`` on the application's store; answers what it printed on standard output."""

    def run(*arguments: str, status: int = 0) -> str:
        environment = {
            name: value for name, value in settings.environment().items() if name != "MIXWRIGHT_TOKEN"
        }
        outcome = CliRunner().invoke(main, ["tokens", *arguments], env=environment)
        assert outcome.exit_code == status, outcome.output
        return outcome.stdout.strip() if status == 0 else outcome.output

    return run
