from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import scratch_database


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database without a single table; the SQLite file and its directory do not exist yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'data % of' / 'mixwright.db'}"
    else:
        with scratch_database(request.getfixturevalue("postgres_server")) as url:
            yield url
