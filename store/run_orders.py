"""The order for a training run, as ``proxy_models.training.run_spec.RunSpec`` reads it, from the store's rows."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from mixing.document import Document
from proxy_models.stores.object_path import is_address
from store.documents import TaskDocument, TrainingDocument
from store.problems import NotReady
from store.settings import Settings

if TYPE_CHECKING:
    from store.tables import Revision, Run


def run_order(
    run: "Run",
    revision: "Revision",
    training: TrainingDocument,
    tasks: Sequence[TaskDocument],
    settings: Settings,
) -> Document:
    """A run of a swarm, or of a launch; a domain that was not counted yet has no shard in it (`require_shards`)."""
    # Of a published model what it was when it was asked for: whoever fetches it looks.
    content = (
        {"start_content": training.start_content} if training.start and is_address(training.start) else {}
    )
    return {
        "size": training.size,
        "architecture": training.architecture,
        "start": training.start,
        **content,
        "vocabulary_size": revision.vocabulary_size,
        "mixture": run.weights,
        "shards": {row.name: row.shard_directory for row in revision.domains},
        "tokenizer": revision.tokenizer_path,
        "tasks": [
            {"name": task.name, "path": task.path, "measure": task.measure, "fields": task.fields}
            for task in tasks
        ],
        "directory": str(settings.artifacts / "runs" / run.id),
        "max_epochs": training.repetition_cap,
        "device": settings.device,
        **({"keeping": asdict(keeping)} if (keeping := getattr(training, "keeping", None)) else {}),
        "training": {
            **training.chosen,
            "tokens": run.requested_tokens if run.tokens is None else run.tokens,
            "seed": run.seed,
        },
    }


def require_shards(revision: "Revision") -> None:
    """Raise NotReady where a domain has no shard to train on."""
    for row in revision.domains:
        if row.shard_directory is None:
            raise NotReady("data_missing", f"domain {row.name!r} has no token shard")
