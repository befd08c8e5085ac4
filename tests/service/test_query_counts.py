"""Lists, statuses and pages ask the store as often for many rows as for few: nothing is asked row by row."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from benchmarks.api_store import Sizes, Stored, fill
from store.engine import Database
from store.settings import Settings

FEW = Sizes(runs=8, optimizations=4, domain_sets=1)
MORE = Sizes(runs=200, optimizations=20, domain_sets=9)


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@contextmanager
def statements(client: TestClient) -> Iterator[list[str]]:
    """What the application sends to its database meanwhile."""
    sent: list[str] = []
    engine = client.app.state.database.engine  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def paths(stored: Stored) -> dict[str, str]:
    """Template -> address; the optimization is the one under way, whose swarm is half done."""
    return {
        "/v1/optimizations": "/v1/optimizations",
        "/v1/optimizations/{id}": f"/v1/optimizations/{stored.optimizations[-1]}",
        "/v1/runs": "/v1/runs",
        "/v1/runs?swarm=": f"/v1/runs?swarm={stored.swarms[-1]}",
        "/v1/runs/{id}": f"/v1/runs/{stored.runs[0]}",
        "/v1/swarms": "/v1/swarms",
        "/v1/swarms/{id}": f"/v1/swarms/{stored.swarms[-1]}",
        "/v1/domain-sets": "/v1/domain-sets",
        "/v1/domain-sets/{name}": "/v1/domain-sets/pool-0",
        "/v1/domain-sets/{name}/adoptions": "/v1/domain-sets/pool-0/adoptions",
        "/v1/mixtures": "/v1/mixtures",
        "/v1/mixtures/{id}": f"/v1/mixtures/{stored.mixtures[0]}",
        "/v1/mixtures/{id}/export": f"/v1/mixtures/{stored.mixtures[0]}/export?format=csv&repetition_cap=1000",
        "/v1/launches": "/v1/launches",
        "/v1/launches/{id}": f"/v1/launches/{stored.launches[0]}",
        "/": "/",
        "/optimizations/{id}": f"/optimizations/{stored.optimizations[-1]}",
        "/domain-sets/{name}": "/domain-sets/pool-0",
        "/launches/{id}": f"/launches/{stored.launches[0]}",
        "/workers": "/workers",
    }


def counts(client: TestClient, stored: Stored) -> dict[str, int]:
    """Statements for each address."""
    found = {}
    for template, path in paths(stored).items():
        with statements(client) as sent:
            assert client.get(path).status_code == 200, path
        found[template] = len(sent)
    return found


def test_as_many_statements_for_many_rows_as_for_few(client: TestClient, settings: Settings) -> None:
    database = Database(settings.resolved_database_url)
    few = counts(client, fill(database, FEW))
    more = counts(client, fill(database, MORE, first_set=1))
    database.close()
    assert more == few
    assert max(few.values()) <= 12
