"""Whether a process and the database's schema fit, asked when the process starts and by ``/readyz``.

A process that runs goes on while a newer version migrates the database under it: the rule for migrations
(docs/operations.md, "Updating without stopping") is what makes that safe. One that starts wants its own schema.
"""

from functools import cache

from alembic.migration import MigrationContext

from store.engine import Database
from store.schema.migrate import UnknownRevision, current, head, known_revisions

OLDER = "older"
NEWER = "newer"
SAME = "same"


class OldSchema(RuntimeError):
    """The database has not been migrated to the schema this version works with."""


def require_schema(url: str) -> None:
    """Raise OldSchema or UnknownRevision, saying what to do, unless the database at ``url`` is at this schema."""
    now = current(url)
    age = age_of(now)
    if age == OLDER:
        raise OldSchema(
            f"the database is at schema {now or 'none'} and this version of Mixwright needs {newest()}: "
            "run 'mixwright migrate' first"
        )
    if age == NEWER:
        raise UnknownRevision(
            f"the database is at schema {now}, which this version of Mixwright (schema {newest()}) does not know: "
            "start the version that migrated it, or a newer one"
        )


def schema_of(database: Database) -> str | None:
    """The schema the database says it has; None when it was never migrated."""
    with database.read() as session:
        return MigrationContext.configure(session.connection()).get_current_revision()


def age_of(revision: str | None) -> str:
    """`OLDER`, `SAME` or `NEWER` than this version's schema; what it does not know was made by a newer one."""
    if revision == newest():
        return SAME
    return OLDER if revision is None or revision in known_revisions() else NEWER


@cache
def newest() -> str | None:
    """This version's schema."""
    return head()
