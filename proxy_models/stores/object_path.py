"""Where a corpus file lies: a local path, or the address of an object, ``s3://bucket/folder/file.jsonl``.

An address is taken literally by a store, so two spellings are two objects, and what a client sends must not be one
thing to our check and another to the store. So there is one spelling: no empty, ``.`` or ``..`` parts, no encoded
dots or slashes, no chained file systems (``zip://a::s3://b``), no user names, no versions.
"""

import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from proxy_models.errors import BadAddress

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}(:\d{1,5})?")
_ENCODED = re.compile(r"%(2e|2f|5c|25|0[0-9a-f]|1[0-9a-f])", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\\]")
_ALIASES = {"s3a": "s3", "gcs": "gs", "local": "file"}
_LONGEST = 4000


@dataclass(frozen=True)
class ObjectStatus:
    """Size in bytes, and a number that changes with the object: of its ETag or generation, else its time.

    Named as in `os.stat_result`, so that whoever tells files apart need not know where they lie.
    """

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, order=True)
class ObjectPath:
    """An object of a store, as far as possible like a `Path`; it has no ``__fspath__``, so nothing opens it locally.

    ``key`` is ``bucket/folder/file``. ``known`` is the status found when the object was listed.
    """

    protocol: str
    key: str
    known: ObjectStatus | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.protocol}://{self.key}"

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.key).name

    @property
    def suffix(self) -> str:
        """The last suffix of the name, with its dot."""
        return PurePosixPath(self.key).suffix

    def with_suffix(self, suffix: str) -> "ObjectPath":
        """The object of this name with another suffix."""
        return ObjectPath(self.protocol, str(PurePosixPath(self.key).with_suffix(suffix)))

    def with_name(self, name: str) -> "ObjectPath":
        """The object of another name beside this one."""
        return ObjectPath(self.protocol, str(PurePosixPath(self.key).with_name(name)))

    def is_below(self, root: "ObjectPath") -> bool:
        """Whether it is ``root`` or lies in it."""
        inside = self.key == root.key or self.key.startswith(f"{root.key}/")
        return self.protocol == root.protocol and inside

    def stat(self) -> ObjectStatus:
        """Size and version. Raises `StoreError`: `ObjectMissing`, which is a FileNotFoundError, for no object."""
        from proxy_models.stores.file_system import status_of

        return self.known or status_of(self)

    def exists(self) -> bool:
        """Whether there is such an object. Raises `StoreError` where nobody can say."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def open(self) -> io.BufferedReader:
        """For reading; see `objects.open_object`."""
        from proxy_models.stores.file_system import open_object

        return open_object(self)

    def read_bytes(self) -> bytes:
        """The whole object. Raises `StoreError`."""
        with self.open() as stream:
            return stream.read()


DataPath = Path | ObjectPath


FileIdentity = tuple[str, int, int]
"""Path, size in bytes and time of the last change in nanoseconds, of an object a number for its version: what changes
with a file, without reading it."""


def file_identity(path: DataPath) -> FileIdentity:
    """The file's or object's identity as it is now. Raises OSError, `StoreError`."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def is_address(text: str) -> bool:
    """Whether a string is an address and no local path."""
    return _ADDRESS.match(text) is not None


def data_path(text: str) -> DataPath:
    """The file a string names; ``file:///data`` is the local path. Raises `BadAddress` saying what is wrong."""
    if (match := _ADDRESS.fullmatch(text)) is None:
        return Path(text)
    protocol = _ALIASES.get(match[1].lower(), match[1].lower())
    if protocol == "file":
        if not match[2].startswith("/"):
            raise BadAddress(text, "names a machine; file:// takes an absolute path, file:///data")
        return Path(match[2])
    return ObjectPath(protocol, _key(text, match[2]))


def _key(text: str, rest: str) -> str:
    if len(text) > _LONGEST:
        raise BadAddress(f"{text[:200]}...", "is longer than an address can be")
    if "::" in text or "?versionId=" in text:
        raise BadAddress(text, "is not the plain address of an object")
    if _UNPRINTABLE.search(text) or _ENCODED.search(text):
        raise BadAddress(text, "has a backslash, or a control character, dot, slash or percent sign in code")
    bucket, *parts = rest.removesuffix("/").split("/")
    if "@" in bucket:
        raise BadAddress("the address", "has a user name; credentials come from the environment")
    if not _BUCKET.fullmatch(bucket):
        raise BadAddress(text, "names no bucket")
    if any(part in ("", ".", "..") for part in parts):
        raise BadAddress(text, "has an empty part, '.' or '..'")
    return "/".join([bucket, *parts])


def split_roots(text: str) -> list[str]:
    """The parts between ``os.pathsep``, which is a colon here and must not cut ``s3://bucket`` in two."""
    parts: list[str] = []
    for part in text.split(os.pathsep):
        if parts and part.startswith("//") and _SCHEME.fullmatch(parts[-1]):
            parts[-1] = f"{parts[-1]}{os.pathsep}{part}"
        else:
            parts.append(part)
    return [part for part in parts if part]


def store_address(text: str) -> str:
    """The one spelling of an artifact store's address; a directory's is ``file:///...``. Raises `BadAddress`."""
    place = data_path(text)
    if isinstance(place, Path):
        return f"file://{place.expanduser().resolve()}"
    return str(place)
