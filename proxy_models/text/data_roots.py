"""The one opening of files that lie below a user's path: corpora, tasks, tokenizers and models to start from.

A path is checked when it is posted and read hours later by a worker; meanwhile the file, or a folder on the way to
it, may have become a link to somewhere else. So what is checked is what was opened, and not the name it was opened
by: first it is only held, by a descriptor that cannot read; the kernel says where that lies; and if that is where it
may be, the held file itself is opened. Whatever the links do meanwhile, nothing outside is ever open for reading.
Libraries that take names get one of what is open (`name_of`, `held_folder`).

The address of an object in a store is its only name (`stores.object_path`), so for it the name is enough.
"""

import fcntl
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath, ObjectPath, data_path

Digests = dict[DataPath, Any]
"""A `hashlib` object for each file, of everything that was read of it."""
Root = DataPath | str

_allowed: ContextVar[tuple[tuple[DataPath, ...], ...] | None] = ContextVar("allowed", default=None)
_HOLD = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_CLOEXEC
"""Linux holds without opening; elsewhere a pipe must not make us wait."""


@contextmanager
def reading_below(roots: Sequence[Root] | None, own: Sequence[Root] = ()) -> Iterator[None]:
    """Within the block only what is below the ``roots`` is opened, or below the service's ``own`` directories.

    What is named below the one may not lie below the other. With None every file is opened. Holds for this thread
    or request, and for the threads it hands its context to.
    """
    groups = None if roots is None else (_both_names(tuple(roots)), _both_names(tuple(own)))
    before = _allowed.set(groups)
    try:
        yield
    finally:
        _allowed.reset(before)


def readable() -> dict[str, list[str]] | None:
    """What `reading_below` has to be given in another process for it to open what is opened here."""
    groups = _allowed.get()
    return (
        None
        if groups is None
        else {n: list(map(str, g)) for n, g in zip(("roots", "own"), groups, strict=True)}
    )


@lru_cache(maxsize=64)
def _both_names(roots: tuple[Root, ...]) -> tuple[DataPath, ...]:
    """The roots as they are named and as they are found: the operator may have made one of them a link."""
    places = [data_path(str(root)) for root in roots]
    return (*places, *(place.resolve() for place in places if isinstance(place, Path)))


def open_data(path: DataPath, digests: Digests | None = None) -> io.BufferedReader:
    """The regular file or object at ``path``, for reading; with ``digests`` in order, and into its digest.

    Raises OSError, `StoreError`, and `CorpusError` for anything else than a file and for one outside.
    """
    stream = _opened(path)
    if digests is None:
        return stream
    digests[path] = hashlib.sha256()
    return io.BufferedReader(_DigestedStream(stream, digests[path]), 2**17)


def _opened(path: DataPath) -> io.BufferedReader:
    if isinstance(path, ObjectPath):
        _require_below(path, path)
        return path.open()
    with _held(path) as held:
        if not stat.S_ISREG(os.fstat(held).st_mode):
            raise CorpusError(path, None, "is not a regular file")
        return os.fdopen(_reopened(held, os.O_RDONLY), "rb")


@contextmanager
def entries_of(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What lies in a local folder, in no order. Raises OSError, and `CorpusError` for a folder outside."""
    with _held(folder) as held:
        descriptor = _reopened(held, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def found(path: Path) -> tuple[Path, int] | None:
    """Where a local path leads, links followed, and the mode of what is there; None where there is nothing.

    Raises OSError, and `CorpusError` for what leads outside, whether there is something or not.
    """
    with suppress(FileNotFoundError, NotADirectoryError), _held(path) as held:
        return _place_of(held), os.fstat(held).st_mode
    return None


def is_data_file(path: Path) -> bool:
    """Whether `found` finds a regular file."""
    there = found(path)
    return there is not None and stat.S_ISREG(there[1])


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """A descriptor of what ``path`` names, which lies where it may."""
    try:
        held = os.open(path, _HOLD)
    except OSError:
        _require_below(path, Path(os.path.realpath(path)))  # nobody learns what is not there outside
        raise
    try:
        _require_below(path, _place_of(held))
        yield held
    finally:
        os.close(held)


def _place_of(descriptor: int) -> Path:
    """Where the kernel says that it lies, without links."""
    if (command := getattr(fcntl, "F_GETPATH", None)) is not None:  # macOS
        return Path(os.fsdecode(fcntl.fcntl(descriptor, command, bytes(1024)).rstrip(b"\0")))
    return Path(os.readlink(f"/dev/fd/{descriptor}"))  # noqa: PTH115 - one path less for every file


def _reopened(held: int, flags: int) -> int:
    return os.open(f"/dev/fd/{held}", flags | os.O_CLOEXEC)


def name_of(stream: IO[bytes]) -> str:
    """A name of the very file that is open, as long as it is, for a library that opens files by name."""
    return f"/dev/fd/{stream.fileno()}"


@contextmanager
def held_folder(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """A private folder of those of ``names`` that are in ``folder``, for libraries that open files by name.

    Each leads to what was opened, so nothing is copied. Raises what `open_data` raises.
    """
    with ExitStack() as opened, tempfile.TemporaryDirectory(prefix="mixwright-") as private:
        for name in names:
            with suppress(FileNotFoundError):
                stream = opened.enter_context(open_data(folder / name))
                Path(private, name).symlink_to(name_of(stream))
        yield Path(private)


class _DigestedStream(io.RawIOBase):
    """Whatever is read of ``source`` goes into ``digest`` too."""

    def __init__(self, source: io.BufferedReader, digest: Any) -> None:
        self.source, self.digest = source, digest

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.source.tell()

    def readinto(self, buffer: Any) -> int:
        count = self.source.readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        self.source.close()
        super().close()


def undigested(stream: io.BufferedReader) -> io.BufferedReader:
    """The stream beneath one of `open_data`: what is read of it goes into no digest."""
    return stream.raw.source if isinstance(stream.raw, _DigestedStream) else stream


def _require_below(named: DataPath, place: DataPath) -> None:
    """Raise `CorpusError` unless ``place``, which is what ``named`` leads to, lies below the roots it is named by."""
    groups = _allowed.get()
    if groups is None or any(is_below(named, group) and is_below(place, group) for group in groups):
        return
    raise CorpusError(named, None, "leads outside the data roots")


def is_below(path: DataPath, roots: Collection[DataPath]) -> bool:
    """Whether the path is one of the roots, or lies in one, by its name."""
    if isinstance(path, ObjectPath):
        return any(isinstance(root, ObjectPath) and path.is_below(root) for root in roots)
    name = str(path)  # a comparison of parts takes as long as opening the file
    tops = (str(root) for root in roots if isinstance(root, Path))
    return any(name == top or name.startswith(f"{top.rstrip('/')}/") for top in tops)
