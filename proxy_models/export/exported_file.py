"""Files of an export: known by name and size, read piece by piece when they are written or sent. Free of torch."""

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy_models.errors import DataMissing, InvalidSpec
from proxy_models.storage import storage_errors

PIECE = 2**20
"""Bytes of a file that are in memory at once."""
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class ExportedFile:
    """A file to be; ``pieces`` gives its ``size`` bytes, anew at each call."""

    name: str
    size: int
    pieces: Callable[[], Iterator[bytes]]

    @classmethod
    def of(cls, name: str, content: bytes) -> "ExportedFile":
        """A small file that is in memory already."""
        return cls(name, len(content), lambda: iter((content,)))

    @classmethod
    def copy(cls, path: Path, name: str | None = None) -> "ExportedFile":
        """A file as it is on the disk. Raises `DataMissing`."""
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataMissing(path, f"cannot be read: {error.strerror or error}") from error
        return cls(name or path.name, size, lambda: byte_range(path, 0, size))


def byte_range(path: Path, begin: int, end: int) -> Iterator[bytes]:
    """The bytes ``begin`` to ``end`` of a file, `PIECE` at a time. Raises `DataMissing` where it ends before."""
    with path.open("rb") as stream:
        stream.seek(begin)
        while begin < end:
            piece = stream.read(min(PIECE, end - begin))
            if not piece:
                raise DataMissing(path, f"ends at byte {begin}; {end} were expected")
            begin += len(piece)
            yield piece


def write_folder(files: Sequence[ExportedFile], directory: Path) -> None:
    """Write a new directory of the files, whole or not at all.

    Raises `InvalidSpec` naming ``to`` where there is something of that name already, `StorageFailed`, `DataMissing`.
    """
    if directory.exists() or directory.is_symlink():
        raise InvalidSpec(f"{directory} exists already; name a directory that does not", "to")
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    with storage_errors(directory):
        temporary.mkdir(parents=True)
        try:
            for file in files:
                with (temporary / file.name).open("xb") as stream:
                    stream.writelines(file.pieces())
            temporary.rename(directory)  # fails where somebody else made it meanwhile and put something in
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _header(folder: str, file: ExportedFile) -> bytes:
    entry = tarfile.TarInfo(f"{folder}/{file.name}")
    entry.size, entry.mode = file.size, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def tar_size(files: Sequence[ExportedFile], folder: str) -> int:
    """Bytes of the archive that `tar_pieces` gives."""
    return sum(len(_header(folder, file)) + -(-file.size // _BLOCK) * _BLOCK for file in files) + 2 * _BLOCK


def tar_pieces(files: Sequence[ExportedFile], folder: str) -> Iterator[bytes]:
    """A tar archive of the files below ``folder``, piece by piece; the same files give the same bytes."""
    for file in files:
        yield _header(folder, file)
        yield from file.pieces()
        yield bytes(-file.size % _BLOCK)
    yield bytes(2 * _BLOCK)
