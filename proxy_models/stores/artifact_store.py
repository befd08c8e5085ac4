"""Artifacts kept in a store beside the local directory, under the same names.

    <address>/shards/<key>/manifest.json               what the artifact is, written last
    <address>/shards/<key>/<version>/tokens.bin        its files, never changed

The local directory stays where everything is written and mapped into memory. What is finished there is published:
first its files, then its manifest, so what is half uploaded is never seen. Files lie below a version made of their
content, so two writers of one artifact cannot mix theirs; the later manifest counts. Another machine fetches what it
needs and compares every file's SHA-256 with the manifest.
"""

import logging
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy_models.errors import BadAddress, DataMissing, ObjectDamaged, ObjectMissing, StoreUnreachable
from proxy_models.storage import flush, storage_errors
from proxy_models.stores.file_system import patiently, reaching
from proxy_models.stores.local_copies import MANIFEST, Hold, LocalCopies, Manifest
from proxy_models.stores.object_path import data_path, is_address

log = logging.getLogger("mixwright.stores")

FETCH_TRIES = 3
"""Of a file that comes with other bytes than were published: a broken transfer is not a broken object."""


@dataclass(frozen=True)
class ArtifactStore:
    """The store at ``address`` (no slash at its end) for the local ``directory``.

    Every method names an artifact by its local path and raises `StoreError`; what fetches, `StorageFailed` too.
    """

    address: str
    directory: Path
    limit_bytes: int | None = None
    _held: dict[Path, Hold] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "ArtifactStore":
        """What `to_dict` gave."""
        return cls(content["address"], Path(content["directory"]), content["limit_bytes"])

    def to_dict(self) -> dict[str, Any]:
        """For JSON, on its way to a child process."""
        return {
            "address": self.address,
            "directory": str(self.directory),
            "limit_bytes": self.limit_bytes,
        }

    @property
    def copies(self) -> LocalCopies:
        """The local side."""
        return LocalCopies(self.directory, self.limit_bytes)

    def name_of(self, path: Path) -> str:
        """``shards/<key>`` of a path in the local directory."""
        return path.relative_to(self.directory).as_posix()

    def address_of(self, path: Path) -> str:
        """Where the artifact is published: how other machines are told of it."""
        return f"{self.address}/{self.name_of(path)}"

    def folder_of(self, path: Path) -> str:
        """Where the files of an artifact lie that this machine has published."""
        manifest = self.copies.manifest(self.name_of(path))
        if manifest is None:
            raise DataMissing(path, "is not published")
        return f"{self.address_of(path)}/{manifest.version}"

    def path_of(self, address: str) -> Path:
        """The local path of a published artifact. Raises `BadAddress` for one of another store."""
        data_path(address)  # one spelling only
        if not address.startswith(f"{self.address}/"):
            raise BadAddress(address, f"is not in the artifact store {self.address}")
        return self.directory / address.removeprefix(f"{self.address}/")

    def local_path(self, reference: str) -> Path | None:
        """`path_of` where ``reference`` is an address, None for a local path or a name. Raises `BadAddress`."""
        return self.path_of(reference) if is_address(reference) else None

    def publish(self, path: Path) -> None:
        """Upload a finished artifact, its manifest last; what is there already is not sent again."""
        name, manifest = self.name_of(path), Manifest.of(path)
        if self.published(path) != manifest:
            for file, local in manifest.names(path).items():
                address = self._file(name, manifest, file)
                with reaching(address) as fs:
                    with self._whole(address) as target:
                        fs.put_file(str(local), target)
                    if fs.size(address) != manifest.files[file].size:
                        raise StoreUnreachable(address, "was not taken whole")
            address = f"{self.address}/{name}/{MANIFEST}"
            with reaching(address) as fs, self._whole(address) as target:
                fs.pipe_file(target, manifest.to_json())
        self.copies.note(name, manifest)
        self.copies.prune()

    def publish_once(self, path: Path) -> None:
        """Publish it unless this machine knows that it is."""
        manifest = self.copies.manifest(self.name_of(path))
        if manifest is None or not manifest.fits(path):
            patiently(lambda: self.publish(path))

    def published(self, path: Path) -> Manifest | None:
        """What is in the store under the artifact's name; None where there is nothing, or nothing whole."""
        address = f"{self.address}/{self.name_of(path)}/{MANIFEST}"
        try:
            with reaching(address) as fs:
                content: Any = fs.cat_file(address)
            return Manifest.read(address, content)
        except ObjectMissing:
            return None
        except ObjectDamaged as error:
            log.warning("%s", error)
            return None

    def names_in(self, directory: Path) -> list[str]:
        """The last parts of the names of artifacts published in a local directory, sorted."""
        pattern = f"{self.address}/{self.name_of(directory)}/*/{MANIFEST}"
        with reaching(pattern) as fs:
            manifests = fs.glob(pattern)
        return sorted(str(path).split("/")[-2] for path in manifests)

    def fetch(self, path: Path) -> bool:
        """Have the artifact here until `close`; False where it is neither here nor published."""
        if path not in self._held and (held := self.obtain(path)) is not None:
            self._held[path] = held
        return path in self._held

    def require(self, path: Path) -> Path:
        """The artifact, fetched. Raises `DataMissing` where there is none."""
        if not self.fetch(path):
            raise DataMissing(self.address_of(path), "is not in the artifact store")
        return path

    def obtain(self, path: Path) -> Hold | None:
        """Have the artifact here as long as the answer lives; None where it is neither here nor published."""
        name, copies = self.name_of(path), self.copies
        while True:
            held = copies.hold(name, alone=False)
            if copies.is_there(name):
                return held
            held.close()
            held = copies.hold(name, alone=True)
            if not copies.is_there(name):
                manifest = patiently(lambda: self.published(path))
                if manifest is None:
                    held.close()
                    return None
                patiently(lambda manifest=manifest: self._download(name, manifest, path))
                copies.note(name, manifest)
            held.share()  # not at one stroke: somebody may have removed it in between
            if copies.is_there(name):
                copies.prune()
                return held
            held.close()

    def read_file(self, path: Path, file: str) -> bytes | None:
        """One small file of a published artifact, checked, without fetching the rest; None where it is not there."""
        temporary = path.with_name(f".{path.name}.{file}.part")
        try:
            return temporary.read_bytes() if self.fetch_file(path, file, temporary) else None
        finally:
            temporary.unlink(missing_ok=True)

    def fetch_file(self, path: Path, file: str, target: Path) -> bool:
        """Write one file of a published artifact, checked, to ``target``; False where it is not there."""
        manifest = patiently(lambda: self.published(path))
        if manifest is None or file not in manifest.files:
            return False
        patiently(lambda: self._download_file(self.name_of(path), manifest, file, target))
        return True

    def remove(self, path: Path) -> None:
        """Take an artifact out of the store, its manifest first. What is here locally stays."""
        name = self.name_of(path)
        address = f"{self.address}/{name}"
        with reaching(address) as fs:
            for target, recursive in ((f"{address}/{MANIFEST}", False), (address, True)):
                with suppress(FileNotFoundError):
                    fs.rm(target, recursive=recursive)
        self.copies.forget(name)

    def probe(self) -> None:
        """Write, read and remove a small object, without waiting for a store that does not answer."""
        address, content = f"{self.address}/.ready-{uuid.uuid4().hex}", b"ready"
        with reaching(address) as fs:
            fs.pipe_file(address, content)
            back = fs.cat_file(address)
            fs.rm_file(address)
        if back != content:
            raise ObjectDamaged(address, "came back with other bytes than were written")

    def close(self) -> None:
        """Let the fetched artifacts go."""
        while self._held:
            self._held.popitem()[1].close()

    def _file(self, name: str, manifest: Manifest, file: str) -> str:
        return f"{self.address}/{name}/{manifest.version}/{file}"

    @contextmanager
    def _whole(self, address: str) -> Iterator[str]:
        """Where to write an object. A store shows one when it is whole; a directory does not, so there it is renamed.

        Process numbers do not tell the machines apart that share the directory.
        """
        if not address.startswith("file://"):
            yield address
            return
        path = Path(address.removeprefix("file://"))
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield f"file://{temporary}"
            flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _download(self, name: str, manifest: Manifest, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.fetched")
        with storage_errors(path):
            _clear(temporary)
            try:
                for file, local in manifest.names(temporary).items():
                    local.parent.mkdir(parents=True, exist_ok=True)
                    self._download_file(name, manifest, file, local)
                _clear(path)
                temporary.rename(path)
            finally:
                _clear(temporary)

    def _download_file(self, name: str, manifest: Manifest, file: str, local: Path) -> None:
        address = self._file(name, manifest, file)
        local.parent.mkdir(parents=True, exist_ok=True)
        for tries_left in reversed(range(FETCH_TRIES)):
            with reaching(address) as fs:
                fs.get_file(address, str(local))
            try:
                manifest.check(file, local, address)
            except ObjectDamaged:
                if not tries_left:
                    raise
            else:
                return


def _clear(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
