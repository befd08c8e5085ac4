"""A database of its own for a benchmark, gone afterwards."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


@contextmanager
def database_url(kind: str, directory: Path) -> Iterator[str]:
    """Address of an empty database: a file in ``directory``, or one made on the PostgreSQL server and dropped."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'mixwright.db'}"
        return
    server = make_url(os.environ.get("MIXWRIGHT_TEST_POSTGRES", POSTGRES))
    name = f"mixwright_benchmark_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    engine.dispose()
