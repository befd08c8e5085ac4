"""What a run or a launch has to run, by the store's rows: told to a worker or a scheduler, or shown by a dry run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mixing.document import Document
from proxy_models.stores.object_path import is_address
from store.documents import LaunchDocument, TaskDocument, TrainingDocument
from store.launchers.base import Commanded, Launcher, Trained, Work
from store.problems import NotReady
from store.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from store.tables import MixtureRow, Revision, Run


def work_of(
    run: "Run",
    mixture: "MixtureRow",
    document: LaunchDocument,
    launcher: Launcher,
    settings: Settings,
    number: int = 1,
) -> Work:
    """The work of a launch's run, as submission ``number``."""
    launch_id = run.launch_id or ""
    directory = settings.artifacts / "launches" / launch_id
    revision = mixture.revision
    about = {
        "launch_id": launch_id,
        "mixture_id": mixture.id,
        "name": document.name or launch_id,
        "target_tokens": document.tokens,
        "seed": document.seed,
        "domain_set": revision.domain_set.name,
        "revision": revision.number,
    }
    paths = {"directory": str(directory), "mixture_file": str(directory / "mixture.json")}
    if isinstance(launcher, Commanded):
        paths |= {name: str(directory / file) for name, file in launcher.format_files.items()}
    domains = {
        row.name: {
            "weight": mixture.weights[row.name],
            "tokens": row.tokens,
            "files": row.files,
            **({"reading": row.reading} if row.reading else {}),
        }
        for row in revision.domains
    }
    order = None if launcher.is_program else _order(run, mixture, document, launcher, settings)
    return Work(
        launch_id=launch_id,
        number=number,
        directory=directory,
        values={name: str(value) for name, value in {**about, **paths}.items()},
        mixture={**about, "weights": mixture.weights, "domains": domains},
        run_directory=settings.artifacts / "runs" / run.id,
        order=order,
    )


def exports_of(
    session: "Session", launcher: Commanded, mixture: "MixtureRow", document: LaunchDocument
) -> dict[str, dict[str, Any]]:
    """`{format: what exchange.formats.export takes beside the weights}` of those that the command names.

    A domain's files follow the launcher's ``path``; without one they are the token files that were written for the
    format, or the domain's own where its trainer reads text.
    """
    from store.revisions.token_files import LAYOUTS, TokenFiles

    rows, run = (
        mixture.revision.domains,
        launcher.model_dump(include={"path", "sequence_length", "batch_rows"}),
    )
    shared = {
        "tokens": {row.name: row.tokens for row in rows},
        "documents": {row.name: row.documents_of_tokens for row in rows},
        "target_tokens": document.tokens,
        "repetition_cap": document.repetition_cap,
        "seed": document.seed,
        **run,
    }
    exports: dict[str, dict[str, Any]] = {}
    for file in launcher.format_files.values():
        name = file.partition("/")[0]
        files: dict[str, list[str]] = {} if name in LAYOUTS else {row.name: list(row.files) for row in rows}
        wanted = None
        if name in LAYOUTS and not launcher.path:
            length, batch = launcher.sequence_length, launcher.batch_rows
            wanted = TokenFiles.for_run(name, mixture, document.tokens, length, batch)
        exports[name] = {**shared, "files": files if wanted is None else wanted.written(session)}
    return exports


def _order(
    run: "Run", mixture: "MixtureRow", document: LaunchDocument, launcher: Launcher, settings: Settings
) -> Mapping[str, Any]:
    order = run_order(run, mixture.revision, document, document.tasks, settings)
    if isinstance(launcher, Trained):
        order["device"] = launcher.device
    engine = {} if document.engine is None else {"engine": asdict(document.engine)}
    reading = {"roots": [str(root) for root in settings.roots], "own": [str(settings.artifacts)]}
    return {"run": order, **engine, **settings.store_order, "reading": reading}


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
