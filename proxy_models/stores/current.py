"""The artifact store of the job under way, and artifacts by the names other machines know them by."""

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy_models.errors import StoreMisconfigured
from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.file_system import waiting
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
