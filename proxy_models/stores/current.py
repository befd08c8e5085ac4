"""The artifact store of the job under way.

Artifacts have names that other machines know them by; a run keeps its checkpoints, model and result there, so that
they outlive the machine that trains.
"""

import logging
import resource
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from proxy_models.errors import ObjectDamaged, ObjectMissing, StoreError, StoreMisconfigured, StoreUnreachable
from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.file_system import patiently, waiting
from proxy_models.stores.object_path import is_address

PATIENCE_SECONDS = 600.0
"""How long a job waits for a store that does not answer before its attempt fails; as long as for the database."""

_current: ArtifactStore | None = None  # of the whole process: a worker's child has one job at a time


@contextmanager
def using_store(order: Mapping[str, Any] | None, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Within the block artifacts are published in the store of `ArtifactStore.to_dict`, and fetched from it.

    None is no store: everything is local. Corpora in stores are waited for alike.
    """
    global _current
    before = _current
    _current = store = None if order is None else ArtifactStore.from_dict(order)
    if store is not None:
        _allow_many_files()
    try:
        with waiting(patience):
            yield
    finally:
        _current = before
        if store is not None:
            store.close()


def _allow_many_files() -> None:
    """Each fetched artifact is held by an open file, and a revision may have thousands of shards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def current_store() -> ArtifactStore | None:
    """The store of the job under way."""
    return _current


def is_here(path: Path) -> bool:
    """Whether an artifact is on this machine, fetched from the store where another has made it."""
    return path.exists() if _current is None else _current.fetch(path)


def reference_of(path: Path) -> str:
    """How the database names an artifact that is here: its address once published, without a store its path.

    Publishes it, waiting for the store. Raises `StoreError`.
    """
    if _current is None:
        return str(path)
    if path.exists():  # else it is known from the store alone
        _current.publish_once(path)
    return _current.address_of(path)


def folder_of(path: Path) -> str | None:
    """Where others read the files of an artifact that is here: its folder in the store, published first.

    None without a store. A store that is a directory answers a path.
    """
    if _current is None:
        return None
    _current.publish_once(path)
    return _current.folder_of(path).removeprefix("file://")


def local_artifact(reference: str) -> str:
    """The local path of what `reference_of` named, fetched where it is not here; anything else unchanged.

    Raises `DataMissing` where it is not in the store, `StoreError`.
    """
    if not is_address(reference):
        return reference
    if _current is None:
        raise StoreMisconfigured(
            reference, "is an artifact in a store; set MIXWRIGHT_ARTIFACT_STORE here to that of the service"
        )
    return str(_current.require(_current.path_of(reference)))


@contextmanager
def one_file_each(references: Mapping[str, str], file: str) -> Iterator[dict[str, Path]]:
    """One file of each artifact, by its name, without fetching the rest; those without such a file are left out."""
    store, paths = _current, {}
    with ExitStack() as stack:
        for name, reference in references.items():
            if store is None or not is_address(reference):
                place = Path(reference)
            elif not ((place := store.path_of(reference)) / file).exists():
                place = Path(stack.enter_context(TemporaryDirectory(dir=store.directory)))
                store.fetch_file(store.path_of(reference), file, place / file)
            if (place / file).exists():
                paths[name] = place / file
        yield paths


log = logging.getLogger("mixwright.stores")


@dataclass(frozen=True)
class PublishedRun:
    """The run whose local files are in ``directory``."""

    store: ArtifactStore
    directory: Path

    @classmethod
    def of(cls, directory: Path) -> "PublishedRun | None":
        """None where the job under way has no store, or the run keeps its files outside the artifacts."""
        store = current_store()
        if store is None or not directory.is_relative_to(store.directory):
            return None
        return cls(store, directory)

    def fetch_result(self, name: str) -> None:
        """Have the result here if another machine has finished the run, or publish the one that is here."""
        path = self.directory / name
        if path.exists():
            self.publish_result(name)
        elif patiently(lambda: self.store.published(path)) is not None:
            self.store.fetch(path)

    def fetch_checkpoints(self, checkpoints: Path) -> None:
        """Have every published checkpoint here; one that is damaged is left out, and the run begins before it."""
        for name in patiently(lambda: self.store.names_in(checkpoints)):
            try:
                self.store.fetch(checkpoints / name)
            except (ObjectDamaged, ObjectMissing) as error:
                log.warning(
                    "a published checkpoint cannot be used, training goes on from before it: %s", error
                )

    def publish_checkpoint(self, path: Path) -> None:
        """Publish a new checkpoint. A store that does not answer stops no training: the next one is tried again."""
        try:
            self.store.publish(path)
        except StoreUnreachable as error:
            log.warning("a checkpoint is on this machine only: %s", error)

    def drop_older_checkpoints(self, checkpoints: Path, kept: int = 1) -> None:
        """Keep so many published ones, the newest."""
        try:
            for name in self.store.names_in(checkpoints)[:-kept]:
                self.store.remove(checkpoints / name)
        except StoreUnreachable as error:
            log.warning("old checkpoints stay in the store: %s", error)

    def publish_result(self, name: str) -> None:
        """Publish the model, then the result, which marks the run as finished, then drop the checkpoints."""
        self.store.publish_once(self.directory / "model")
        self.store.publish_once(self.directory / name)
        try:
            self.store.remove(self.directory / "checkpoints")
        except StoreError as error:
            log.warning("the checkpoints of a finished run stay in the store: %s", error)
