"""fsspec file systems, and what goes wrong with them in our own words.

Credentials and endpoints are found the way the providers' own tools find them (``AWS_ACCESS_KEY_ID``,
``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, an instance's role), or as fsspec is
configured (``FSSPEC_S3_ENDPOINT_URL``): nothing of them is a setting of ours, so nothing of them is stored.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from proxy_models.errors import (
    ObjectMissing,
    ProxyError,
    StoreDenied,
    StoreError,
    StoreMisconfigured,
    StoreUnreachable,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger("mixwright.stores")
T = TypeVar("T")

AGAIN_SECONDS = 2.0
"""Between two tries to reach a store that does not answer."""
EXTRAS = {"s3": "s3", "gs": "gcs"}
_THEIRS = frozenset(
    {"botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "s3fs", "fsspec", "urllib3", "requests"}
)
"""Packages whose exceptions are no OSError and come from the network all the same."""
_LOCAL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What is wrong with this machine's disk while an object is written to it."""
_UNKNOWN_TO_THEM = (
    "Credential",
    "Unauthorized",
    "Forbidden",
    "RefreshError",
    "TokenRetrieval",
    "ProfileNotFound",
)

_patience = 0.0  # of the whole process, as in `data_roots`


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """Within the block `patiently` waits so long for a store that does not answer; outside it does not wait."""
    global _patience
    before, _patience = _patience, seconds
    try:
        yield
    finally:
        _patience = before


def patiently(operation: Callable[[], T]) -> T:
    """``operation()``, again and again while the store is away: hours of work may hang on it."""
    give_up = time.monotonic() + _patience
    while True:
        try:
            return operation()
        except StoreUnreachable as error:
            if time.monotonic() + AGAIN_SECONDS > give_up:
                raise
            log.warning("the store does not answer, trying again: %s", error)
            time.sleep(AGAIN_SECONDS)


def file_system(protocol: str, address: object) -> "AbstractFileSystem":
    """The file system of a protocol; ``address`` is what it is wanted for. Raises `StoreMisconfigured`.

    fsspec keeps one for each thread of each process, so asking again costs nothing and a fork shares no connection.
    """
    import fsspec
    from fsspec.config import conf

    options: dict[str, Any] = {"use_listings_cache": False}  # others write beside us
    if protocol == "file":
        options = {"auto_mkdir": True}
    elif protocol == "s3" and "config_kwargs" not in conf.get("s3", {}):
        options["config_kwargs"] = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}}
    try:
        with store_errors(address):
            return fsspec.filesystem(protocol, **options)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        advice = f"install mixwright[{extra}]" if extra else str(error)
        raise StoreMisconfigured(address, f"{protocol}:// cannot be used here: {advice}") from error
    except ValueError as error:
        raise StoreMisconfigured(address, f"{protocol}:// cannot be used: {error}") from error


@contextmanager
def store_errors(address: object) -> Iterator[None]:
    """Turn what file systems raise about ``address`` into `StoreError`; what is no network's fault goes through."""
    try:
        yield
    except ProxyError:
        raise
    except Exception as error:  # the packages' exceptions have no common base
        if (told := _told(address, error)) is None:
            raise
        raise told from error


def _told(address: object, error: Exception) -> StoreError | None:
    if isinstance(error, OSError) and error.errno in _LOCAL:
        return None
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    theirs = type(error).__module__.partition(".")[0] in _THEIRS
    if isinstance(error, ImportError):
        return None
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(address)
    if isinstance(error, PermissionError) or (
        theirs and any(word in type(error).__name__ for word in _UNKNOWN_TO_THEM)
    ):
        return StoreDenied(address, f"the store refuses: {reason}")
    if isinstance(error, OSError) or theirs:  # a TimeoutError is an OSError
        return StoreUnreachable(address, f"the store does not answer: {reason}")
    return None
