"""What says that an artifact is in the store whole: written last, it names every file with its size and SHA-256."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from proxy_models.errors import DataMissing, ObjectDamaged

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
            found = {str(PurePosixPath(file.relative_to(path))): FileEntry.of(file) for file in files}
        except OSError as error:
            raise DataMissing(path, f"cannot be read: {error.strerror or error}") from error
        if not found:
            raise DataMissing(path, "is not there, or empty")
        return cls(found, False)

    def to_json(self) -> bytes:
        """The form that is stored."""
        content = {"format": FORMAT, "version": self.version, **asdict(self)}
        return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def read(cls, address: str, content: bytes) -> "Manifest":
        """What `to_json` gave. Raises `ObjectDamaged` for anything else, names that lead out of a folder included."""
        try:
            found = json.loads(content)
            files = {
                str(name): FileEntry(int(one["size"]), str(one["sha256"]))
                for name, one in found["files"].items()
            }
            manifest = cls(files, bool(found["is_file"]))
            is_good = found["format"] == FORMAT and found["version"] == manifest.version
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
        entry, found = self.files[name], FileEntry.of(path)
        if found.size != entry.size:
            raise ObjectDamaged(address, f"has {found.size} bytes, {entry.size} were published")
        if found.sha256 != entry.sha256:
            raise ObjectDamaged(
                address, f"has SHA-256 {found.sha256[:16]}..., {entry.sha256[:16]}... was published"
            )
