"""Pages of the real application over a real store."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from store.engine import Database
from store.settings import Settings
from tests.service.dashboard.store import Store


@pytest.fixture
def store(client: TestClient, settings: Settings) -> Iterator[Store]:
    """Rows for the application of ``client``."""
    database = Database(settings.resolved_database_url)
    yield Store(database)
    database.close()
