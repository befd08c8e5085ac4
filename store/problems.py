"""What goes wrong with what somebody asked for, each kind with the HTTP status it is answered with. Free of FastAPI.

- Problem
  - NotFound             404  nothing has that id
  - Conflict             409  the request contradicts what is already there
  - NotReady             409  what the request needs is still being prepared
    - NotCounted         409  it will be: ask again (``Retry-After``)
  - Invalid              422  a field is wrong; ``field`` names it
  - Unauthorized         401
  - Forbidden            403
  - TooManyRequests      429  more than one user may have (``Retry-After``)
    - TooManyAttempts    429
  - Unavailable          503  a store of corpora or artifacts does not answer (``Retry-After``)
"""

import errno
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from mixing.errors import MixingError

_FULL = ("53100", "53400")  # disk_full, configuration_limit_exceeded


class Problem(Exception):
    """A request that cannot be done, with what is at fault and what to do about it."""

    status: int = 500
    headers: Mapping[str, str] | None = None

    def __init__(self, code: str, detail: str, field: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field
        self.extra = extra


class NotFound(Problem):
    """Nothing has the id that was asked for."""

    status = 404

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"{what.replace(' ', '_')}_not_found", f"There is no {what} {name!r}.")


Found = TypeVar("Found")


def existing(found: Found | None, what: str, name: str) -> Found:
    """What was looked up by name.

    Raises:
        NotFound: nothing was found.
    """
    if found is None:
        raise NotFound(what, name)
    return found


class Conflict(Problem):
    """The request contradicts what is already stored."""

    status = 409


class NotReady(Problem):
    """What the request needs is still being prepared, or its preparation failed."""

    status = 409


class NotCounted(NotReady):
    """The domains are still being counted: the same request will do later."""

    headers = MappingProxyType({"Retry-After": "5"})


class Invalid(Problem):
    """A field of the request is wrong."""

    status = 422


class Unavailable(Problem):
    """Something the service itself needs does not answer; the same request may do later."""

    status = 503
    headers = MappingProxyType({"Retry-After": "5"})


class Unauthorized(Problem):
    """No token, or one this service does not know."""

    status = 401
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    """The request comes from somewhere it may not come from."""

    status = 403


class TooManyRequests(Problem):
    """A user has asked for more than one user may have; the same request may do later."""

    status = 429

    def __init__(self, code: str, detail: str, wait_seconds: int) -> None:
        super().__init__(code, detail)
        self.headers = MappingProxyType({"Retry-After": str(wait_seconds)})


class TooManyAttempts(TooManyRequests):
    """Too many wrong tokens came from one address."""

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(
            "too_many_attempts",
            f"Too many wrong tokens came from this address; try again in {wait_seconds} s.",
            wait_seconds,
        )


def unavailable(error: Exception) -> Unavailable | None:
    """What is answered where the database or a disk cannot take what it is given now; None for any other fault."""
    code, orig = getattr(error, "errno", None), getattr(error, "orig", None)
    said = str(orig or error).strip().partition("\n")[0]
    full = code in (errno.ENOSPC, errno.EDQUOT) or getattr(orig, "sqlstate", None) in _FULL
    primary = getattr(orig, "sqlite_errorcode", 0) & 0xFF  # an extended code says more in its other bytes
    if full or primary == sqlite3.SQLITE_FULL:
        return Unavailable("storage_full", f"There is no room left to store anything ({said}).")
    if primary == sqlite3.SQLITE_IOERR:  # as where there is no room for what lies beside the database
        return Unavailable("storage_failed", f"The database's disk does not take what it is given ({said}).")
    if code == errno.EROFS or "readonly database" in said:
        return Unavailable("storage_read_only", f"What is stored cannot be changed ({said}).")
    # Whoever trains raises problems too, and knows no database.
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(error, OperationalError | PoolTimeout):
        return Unavailable(
            "database_unavailable", f"The database does not answer ({type(orig or error).__name__})."
        )
    return None


def invalid(error: MixingError, field: str | None = None) -> Invalid:
    """The mathematics' own complaint about an input, as an answer to the request that sent it."""
    return Invalid(error.code, str(error), field or error.field, names=list(error.names))
