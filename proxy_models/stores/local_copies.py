"""The artifacts on this machine that are in the store as well, so that the local ones may go when space is wanted.

A manifest says that an artifact is in the store whole: written last, it names every file with its size and SHA-256.
Beside the artifacts, ``.published/<name>.json`` is the manifest of each, its time that of the last use, and
``.published/<name>.lock`` is held by whoever uses it: shared by readers, alone by who fetches or removes it. The
kernel gives a lock back when its process dies.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from proxy_models.errors import DataMissing, ObjectDamaged
from proxy_models.storage import storage_errors, write_atomically

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class FileEntry:
    """Bytes of a file, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileEntry":
        """Reads the file. Raises OSError."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return cls(stream.tell(), digest)


@dataclass(frozen=True)
class Manifest:
    """The files of an artifact by their names within it; ``is_file`` where it is one file and no folder."""

    files: Mapping[str, FileEntry]
    is_file: bool

    @property
    def version(self) -> str:
        """16 hexadecimal digits of the content: where the files lie, so that other content goes elsewhere."""
        names = json.dumps({name: entry.sha256 for name, entry in self.files.items()}, sort_keys=True)
        return hashlib.sha256(names.encode()).hexdigest()[:16]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    @classmethod
    def of(cls, path: Path) -> "Manifest":
        """Of a file or a folder as it is now. Raises `DataMissing`."""
        try:
            if path.is_file():
                return cls({path.name: FileEntry.of(path)}, True)
            files = sorted(file for file in path.rglob("*") if file.is_file())
            entries = {str(PurePosixPath(file.relative_to(path))): FileEntry.of(file) for file in files}
        except OSError as error:
            raise DataMissing(path, f"cannot be read: {error.strerror or error}") from error
        if not entries:
            raise DataMissing(path, "is not there, or empty")
        return cls(entries, False)

    def to_json(self) -> bytes:
        """The form that is stored."""
        content = {"format": FORMAT, "version": self.version, **asdict(self)}
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def read(cls, address: str, content: bytes) -> "Manifest":
        """What `to_json` gave. Raises `ObjectDamaged` for anything else, names that lead out of a folder included."""
        try:
            document = json.loads(content)
            files = {
                str(name): FileEntry(int(entry["size"]), str(entry["sha256"]))
                for name, entry in document["files"].items()
            }
            manifest = cls(files, bool(document["is_file"]))
            is_good = document["format"] == FORMAT and document["version"] == manifest.version
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ObjectDamaged(address, f"is not a manifest: {error}") from error
        safe = all(name and not name.startswith("/") and ".." not in name.split("/") for name in files)
        if not (is_good and safe):
            raise ObjectDamaged(address, "is not a manifest of this version of Mixwright, or was changed")
        return manifest

    def names(self, path: Path) -> dict[str, Path]:
        """Where each file lies when the artifact is ``path``."""
        return {name: path if self.is_file else path / name for name in self.files}

    def fits(self, path: Path) -> bool:
        """Whether the files are there, by their sizes: what was written or fetched whole is not read again."""
        try:
            return all(
                file.stat().st_size == self.files[name].size for name, file in self.names(path).items()
            )
        except OSError:
            return False

    def check(self, name: str, path: Path, address: str) -> None:
        """Raise `ObjectDamaged` where a file that was fetched from ``address`` is not the one that was published."""
        entry, actual = self.files[name], FileEntry.of(path)
        if actual.size != entry.size:
            raise ObjectDamaged(address, f"has {actual.size} bytes, {entry.size} were published")
        if actual.sha256 != entry.sha256:
            raise ObjectDamaged(
                address, f"has SHA-256 {actual.sha256[:16]}..., {entry.sha256[:16]}... was published"
            )


log = logging.getLogger("mixwright.stores")
PUBLISHED = ".published"


class Hold:
    """A lock on a local copy; while one lives the copy stays."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def share(self) -> None:
        """Let other readers in."""
        assert self._descriptor is not None
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Give it back; done too when nobody refers to it any more."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


@dataclass(frozen=True)
class LocalCopies:
    """What is published of the artifacts in ``directory``, kept below ``limit_bytes``; None keeps all."""

    directory: Path
    limit_bytes: int | None = None

    def _beside(self, name: str, suffix: str) -> Path:
        return self.directory / PUBLISHED / f"{name}{suffix}"

    def hold(self, name: str, alone: bool) -> Hold:
        """Wait for the lock of an artifact."""
        held = self._lock(name, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        assert held is not None, "only a try can fail"
        return held

    def _lock(self, name: str, how: int) -> Hold | None:
        path = self._beside(name, ".lock")
        with storage_errors(path):
            while True:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                except FileNotFoundError:
                    continue  # the folder was cleared away in between
                try:
                    fcntl.flock(descriptor, how)
                    with suppress(FileNotFoundError):
                        if os.path.samestat(os.fstat(descriptor), path.stat()):
                            return Hold(descriptor)
                except BlockingIOError:
                    os.close(descriptor)
                    return None
                os.close(descriptor)  # who removed the artifact removed this lock while we waited for it

    def manifest(self, name: str) -> Manifest | None:
        """What of the artifact is published, as far as this machine knows."""
        path = self._beside(name, ".json")
        try:
            return Manifest.read(str(path), path.read_bytes())
        except (FileNotFoundError, ObjectDamaged):
            return None

    def is_there(self, name: str) -> bool:
        """Whether the artifact is here and whole; one that nobody published yet is whole when it has its name."""
        path, manifest = self.directory / name, self.manifest(name)
        if manifest is None:
            return path.exists()
        if not manifest.fits(path):
            return False
        with suppress(OSError):
            os.utime(self._beside(name, ".json"))
        return True

    def note(self, name: str, manifest: Manifest) -> None:
        """The artifact is here and published."""
        write_atomically(self._beside(name, ".json"), manifest.to_json())

    def forget(self, name: str) -> None:
        """The artifact is not published any more."""
        self._beside(name, ".json").unlink(missing_ok=True)

    def prune(self) -> list[str]:
        """Remove the copies that were not used for longest until the rest is within the limit; answers their names.

        Those in use stay, and so does everything that is not in the store.
        """
        if self.limit_bytes is None:
            return []
        known = sorted(self._known())
        total, removed = sum(size for _, size, _ in known), []
        for _, size, name in known:
            if total <= self.limit_bytes:
                break
            with self._alone_if_unused(name) as is_mine:
                if is_mine:
                    self._remove(name)
                    total -= size
                    removed.append(name)
        if removed:
            log.info("removed %d local copies of published artifacts", len(removed))
        return removed

    def _known(self) -> Iterator[tuple[float, int, str]]:
        root = self.directory / PUBLISHED
        for path in root.rglob("*.json"):
            name = str(path.relative_to(root))[: -len(".json")]
            if (manifest := self.manifest(name)) is None:
                continue
            if not manifest.fits(self.directory / name):  # its owner removed it, as runs do with checkpoints
                with self._alone_if_unused(name) as is_mine:
                    if is_mine:
                        self._remove(name)
                continue
            with suppress(FileNotFoundError):  # another process prunes too
                yield path.stat().st_mtime, manifest.size, name

    @contextmanager
    def _alone_if_unused(self, name: str) -> Iterator[bool]:
        held = self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield held is not None
        finally:
            if held is not None:
                held.close()

    def _remove(self, name: str) -> None:
        path = self.directory / name
        self.forget(name)
        if path.is_dir():
            aside = path.with_name(f".{path.name}.pruned")
            shutil.rmtree(aside, ignore_errors=True)
            with suppress(FileNotFoundError):
                path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        self._beside(name, ".lock").unlink(missing_ok=True)
