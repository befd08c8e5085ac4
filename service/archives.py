"""An archive that comes piece by piece, as the folder it holds."""

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path


class _Stream(io.RawIOBase):
    """Pieces of bytes, none of them empty or longer than is asked for, as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1, /) -> bytes:
        return next(self._pieces, b"")


def unpack_folder(pieces: Iterator[bytes], directory: Path) -> None:
    """Write the one folder of an archive, in pieces of at most `tarfile.RECORDSIZE`, as a new ``directory``.

    Raises tarfile.TarError for an archive that is cut short, has no single folder, or reaches out of it.
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=_Stream(pieces), mode="r|") as archive:
            archive.extractall(temporary, filter="data")
        folders = list(temporary.iterdir())
        if len(folders) != 1 or not folders[0].is_dir():
            raise tarfile.ReadError("the archive holds no single folder")
        folders[0].rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
