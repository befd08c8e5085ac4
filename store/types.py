"""What the databases' own types need said twice."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast


def big_integer(member: Any) -> ColumnElement[int]:
    """A member of a JSON document as a whole number of 64 bits; `as_integer` is of 32 on PostgreSQL."""
    return cast(member.as_string(), BigInteger)
