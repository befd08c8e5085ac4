"""The artifacts on this machine that are in the store as well, so that the local ones may go when space is wanted.

Beside the artifacts, ``.published/<name>.json`` is the manifest of each, its time that of the last use, and
``.published/<name>.lock`` is held by whoever uses it: shared by readers, alone by who fetches or removes it. The
kernel gives a lock back when its process dies.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from proxy_models.errors import ObjectDamaged
from proxy_models.storage import storage_errors, write_atomically
from proxy_models.stores.manifest import Manifest

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
