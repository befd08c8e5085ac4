"""Looking at and reading single objects: corpora, task files."""

import hashlib
import io
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from proxy_models.errors import CorpusError, ObjectMissing, StoreUnreachable
from proxy_models.stores.file_system import file_system, patiently, store_errors
from proxy_models.stores.object_path import ObjectPath, ObjectStatus

BLOCK_BYTES = 4 * 2**20
"""Of an object asked for at once."""
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "content_md5")
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")


def status_of(path: ObjectPath) -> ObjectStatus:
    """Size and version of an object as it is now. Raises `StoreError`."""

    def look() -> ObjectStatus:
        with store_errors(path):
            info = file_system(path.protocol, path).info(str(path))
        if info.get("type") != "file":
            raise ObjectMissing(
                path, f"is a folder, not an object: say '{path}/*' or '{path}/**' for those in it"
            )
        return _status(info)

    return patiently(look)


def _status(info: Mapping[str, Any]) -> ObjectStatus:
    said = next((info[name] for name in (*_VERSIONS, *_TIMES) if info.get(name)), "")
    if isinstance(said, datetime):  # one call gives a date where another gives seconds
        said = said.timestamp()
    digest = hashlib.sha256(str(said).strip('"').encode()).digest()
    return ObjectStatus(int(info["size"]), int.from_bytes(digest[:7], "big"))


def matching_objects(pattern: ObjectPath, most: int) -> list[ObjectPath]:
    """The objects a glob names, at most ``most``, in any order. Raises `StoreError`."""

    def look() -> list[ObjectPath]:
        with store_errors(pattern):
            found: Any = file_system(pattern.protocol, pattern).glob(str(pattern), detail=True)
        files = (info for info in found.values() if info.get("type") == "file")
        return [
            ObjectPath(pattern.protocol, str(info["name"]).lstrip("/"), _status(info))
            for info in islice(files, most)
        ]

    return patiently(look)


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
        with store_errors(self._path):
            return file_system(self._path.protocol, self._path).open(
                str(self._path), "rb", block_size=BLOCK_BYTES, cache_type="readahead"
            )

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
