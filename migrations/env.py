"""What Alembic runs for every command: one open connection in, one transaction around everything.

There is no ``alembic.ini`` and so no address written down anywhere: ``store.schema`` opens the
connection, takes the lock and passes it in ``config.attributes["connection"]``.
"""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import JSON

from store.tables import Base

DOCUMENT = 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'


def render(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """Source of a JSON column's type; Alembic's own names ``Text`` in it without importing it."""
    if kind == "type" and isinstance(item, JSON):
        autogenerate.imports.add("from sqlalchemy.dialects import postgresql")
        return DOCUMENT
    return False


def run() -> None:
    """Bring the given connection to the revision asked for; raises RuntimeError without a connection."""
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("migrations run through store.schema, which holds the lock")
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite alters a table only by building it again: without batches a later migration cannot drop
        # a column or a constraint there.
        render_as_batch=True,
        compare_type=True,
        render_item=render,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
