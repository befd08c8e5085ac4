"""The database's own clock, so that leases do not depend on the clocks of the machines that hold them."""

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction


class database_now(GenericFunction[float]):
    """Seconds since the Unix epoch, UTC, read by the database at the moment the statement runs."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    # clock_timestamp, not now(): the latter stands still inside a transaction.
    return "extract(epoch from clock_timestamp())::double precision"
