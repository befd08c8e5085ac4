"""A tar archive that comes piece by piece, written as a folder: nothing outside it, and whole or not at all."""

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def unpack_folder(pieces: Iterator[bytes], directory: Path) -> None:
    """Write the one folder of an archive as ``directory``, which must not exist.

    Raises tarfile.TarError for an archive that is cut short, has no single folder, or reaches out of it.
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=io.BufferedReader(_Stream(pieces)), mode="r|") as archive:
            archive.extractall(temporary, filter="data")
        folders = list(temporary.iterdir())
        if len(folders) != 1 or not folders[0].is_dir():
            raise tarfile.ReadError("the archive holds no single folder")
        folders[0].rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
