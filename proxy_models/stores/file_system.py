"""fsspec file systems, reading single objects of them, and what goes wrong with them in our own words.

Credentials and endpoints are found the way the providers' own tools find them (``AWS_ACCESS_KEY_ID``,
``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``, an instance's role), or as fsspec is
configured (``FSSPEC_S3_ENDPOINT_URL``): nothing of them is a setting of ours, so nothing of them is stored.
"""

import errno
import hashlib
import io
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from glob import has_magic
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar

from proxy_models.errors import (
    CorpusError,
    ObjectMissing,
    ProxyError,
    StoreDenied,
    StoreError,
    StoreMisconfigured,
    StoreUnreachable,
    TooManyObjects,
)
from proxy_models.stores.object_path import ObjectPath, ObjectStatus

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

    def note(error: Exception) -> None:
        log.warning("the store does not answer, trying again: %s", error)

    return again(operation, StoreUnreachable, _patience, AGAIN_SECONDS, note)


def again(
    operation: Callable[[], T],
    passing: type[Exception] | tuple[type[Exception], ...],
    seconds: float,
    pause: float,
    note: Callable[[Exception], None] = lambda error: None,
    wait: Callable[[float], object] = time.sleep,
) -> T:
    """``operation()``, for so many seconds again and again while it raises a ``passing`` error; then that error.

    Args:
        operation: may be done twice.
        passing: what another try may not meet any more.
        seconds: from now to the last try.
        pause: seconds between two tries.
        note: is given the error before the pause.
        wait: spends the pause; the tries end with one after which it answers true.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            return operation()
        except passing as error:
            if time.monotonic() + pause > give_up:
                raise
            note(error)
            if wait(pause):
                raise


@contextmanager
def reaching(address: object) -> "Iterator[AbstractFileSystem]":
    """The file system of an address; what goes wrong with it within the block is a `StoreError`."""
    with store_errors(address):
        yield file_system(address)


def file_system(address: object) -> "AbstractFileSystem":
    """The file system of an address. Raises `StoreMisconfigured`.

    fsspec keeps one for each thread of each process, so asking again costs nothing and a fork shares no connection.
    """
    import fsspec
    from fsspec.config import conf

    protocol = str(address).partition("://")[0]
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
        if (failure := _failure_of(address, error)) is None:
            raise
        raise failure from error


def _failure_of(address: object, error: Exception) -> StoreError | None:
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


BLOCK_BYTES = 4 * 2**20
"""Of an object asked for at once."""
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "content_md5")
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")


def status_of(path: ObjectPath) -> ObjectStatus:
    """Size and version of an object as it is now. Raises `StoreError`."""

    def look() -> ObjectStatus:
        with reaching(path) as fs:
            info = fs.info(str(path))
        if info.get("type") != "file":
            raise ObjectMissing(
                path, f"is a folder, not an object: say '{path}/*' or '{path}/**' for those in it"
            )
        return _status(info)

    return patiently(look)


def _status(info: Mapping[str, Any]) -> ObjectStatus:
    version = next((info[name] for name in (*_VERSIONS, *_TIMES) if info.get(name)), "")
    if isinstance(version, datetime):  # one call gives a date where another gives seconds
        version = version.timestamp()
    digest = hashlib.sha256(str(version).strip('"').encode()).digest()
    return ObjectStatus(int(info["size"]), int.from_bytes(digest[:7], "big"))


_TOO_MANY = "looks through too many objects; name the folders that have the files"


def matching_objects(pattern: ObjectPath, most: int, seconds: float) -> list[ObjectPath]:
    """The objects a glob names, in any order, for which at most so many names are looked at, for so long.

    Folder after folder, for a store's own glob has listed all there is before anybody can count.
    Raises `StoreError`: `TooManyObjects` where there is more.
    """
    return patiently(lambda: list(_matching(pattern, most, time.monotonic() + seconds)))


def _matching(pattern: ObjectPath, most: int, until: float) -> Iterator[ObjectPath]:
    from fsspec.utils import glob_translate

    parts = pattern.key.split("/")
    is_named = re.compile(glob_translate(pattern.key)).match
    deepest = math.inf if "**" in parts else len(parts)
    folders = ["/".join(takewhile(lambda part: not has_magic(part), parts))]
    with reaching(pattern) as fs:
        while folders:
            folder = folders.pop()
            for info in _entries(fs, ObjectPath(pattern.protocol, folder), most + 1, until):
                most -= 1
                if most < 0 or time.monotonic() > until:
                    raise TooManyObjects(pattern, _TOO_MANY)
                name = str(info["name"]).strip("/")
                if info.get("type") == "directory":
                    if name != folder and name.count("/") + 1 < deepest:
                        folders.append(name)
                elif info.get("type") == "file" and is_named(name):
                    yield ObjectPath(pattern.protocol, name, _status(info))


def _entries(fs: "AbstractFileSystem", folder: ObjectPath, most: int, until: float) -> list[dict[str, Any]]:
    """What lies in a folder; of one in a bucket, that may hold millions, so many at least or what came until then.

    Raises `TooManyObjects` for one that would take longer.
    """
    from fsspec.exceptions import FSTimeoutError

    try:
        if folder.protocol == "s3":
            return _first_of_s3(fs, folder, most, until)
        if folder.protocol == "gs":
            left = max(until - time.monotonic(), 1.0)
            return fs.ls(str(folder), detail=True, max_results=most, timeout=left)
        return fs.ls(str(folder), detail=True)
    except FileNotFoundError:  # there is none, or it is gone since it was listed
        return []
    except FSTimeoutError as error:
        raise TooManyObjects(folder, _TOO_MANY) from error


def _first_of_s3(fs: Any, folder: ObjectPath, most: int, until: float) -> list[dict[str, Any]]:
    """Page after page (s3fs lists to the end), for `ls` would have it all in memory before anybody can count."""
    from fsspec.asyn import sync
    from s3fs.errors import translate_boto_error

    bucket, _, key = folder.key.partition("/")

    async def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for info in fs._iterdir(bucket, most, prefix=f"{key}/" if key else ""):
            found.append(info)
            if len(found) >= most or time.monotonic() > until:
                break
        return found

    try:
        return sync(fs.loop, listed) or []
    except Exception as error:
        raise translate_boto_error(error) from error


def open_object(path: ObjectPath) -> io.BufferedReader:
    """The object for reading, `BLOCK_BYTES` at a time; a store that goes away meanwhile is waited for.

    Raises `StoreError`, and `CorpusError` while reading where the object was changed under it.
    """
    return io.BufferedReader(_ObjectStream(path), 2**17)


class _ObjectStream(io.RawIOBase):
    def __init__(self, path: ObjectPath) -> None:
        self._path, self._at = path, 0
        self._first: ObjectStatus | None = None
        self._file = patiently(self._opened)

    def _opened(self) -> Any:
        now = status_of(ObjectPath(self._path.protocol, self._path.key))
        if self._first not in (None, now):
            raise CorpusError(self._path, None, "was changed while it was read")
        self._first = now
        with reaching(self._path) as fs:
            return fs.open(str(self._path), "rb", block_size=BLOCK_BYTES, cache_type="readahead")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert self._first is not None
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._first.st_size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = patiently(lambda: self._read(len(buffer)))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _read(self, size: int) -> bytes:
        assert self._first is not None
        if self._file is None:
            self._file = self._opened()
        try:
            with store_errors(self._path):
                if self._file.tell() != self._at:
                    self._file.seek(self._at)
                return self._file.read(min(size, max(0, self._first.st_size - self._at)))
        except StoreUnreachable:
            self._file = None  # a connection that broke is not asked again
            raise

    def close(self) -> None:
        if not self.closed and (file := getattr(self, "_file", None)) is not None:
            file.close()
        super().close()
