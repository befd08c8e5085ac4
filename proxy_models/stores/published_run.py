"""A run's checkpoints, model and result in the artifact store: they outlive the machine that trains."""

import logging
from dataclasses import dataclass
from pathlib import Path

from proxy_models.errors import ObjectDamaged, ObjectMissing, StoreError, StoreUnreachable
from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.current import current_store
from proxy_models.stores.file_system import patiently

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

    def drop_older_checkpoints(self, checkpoints: Path) -> None:
        """Keep the newest published one only."""
        try:
            for name in self.store.names_in(checkpoints)[:-1]:
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
