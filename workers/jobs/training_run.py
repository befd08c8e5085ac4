"""Training one model: what a proxy run and a full run have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from proxy_models.errors import ProxyError
from proxy_models.families.start import read_start
from proxy_models.stores.object_path import is_address
from store.documents import training_values
from store.files import file_identity, identity_hash
from store.settings import Settings
from store.tables import Metric, Revision, Run
from workers.claims.failures import JobError

Document = dict[str, Any]


def describe_run(
    run: Run, revision: Revision, training: Mapping[str, Any], tasks: list[Document], settings: Settings
) -> Document:
    """The specification ``proxy_models.training.run_spec.RunSpec`` reads."""
    shards = {row.name: row.shard_directory for row in revision.domains}
    for name, directory in shards.items():
        if directory is None:
            raise JobError("data_missing", f"domain {name!r} has no token shard")
    return {
        "size": training["size"],
        "architecture": training.get("architecture"),
        **_start(training),
        "vocabulary_size": revision.vocabulary_size,
        "mixture": run.weights,
        "shards": shards,
        "tokenizer": revision.tokenizer_path,
        "tasks": [_task(task) for task in tasks],
        "directory": str(settings.artifacts / "runs" / run.id),
        "max_epochs": training.get("repetition_cap"),
        "device": settings.device,
        **settings.store_order,
        "training": {**training_values(training), "seed": run.seed},
    }


def _start(training: Mapping[str, Any]) -> Document:
    """A folder is looked at here; a published model is fetched and looked at by `wave.local_spec`."""
    start = training.get("start")
    if start is not None and is_address(start):
        return {"start": start, "start_content": training["start_content"]}
    return {"start": unchanged_start(training)}


def unchanged_start(training: Mapping[str, Any]) -> str | None:
    """The folder to start from; raises `JobError` where it is not what it was when it was asked for."""
    if (start := training.get("start")) is None:
        return None
    try:
        files = [file_identity(file) for file in read_start(Path(start)).files]
    except (ProxyError, OSError) as error:
        raise JobError("data_missing", f"the model to start from is gone: {error}") from error
    if identity_hash(files) != training["start_content"]:
        raise JobError(
            "data_changed", f"the model to start from, {start}, was changed since it was asked for"
        )
    return start


def _task(task: Document) -> Document:
    """A stored task as ``proxy_models.training.run_spec.TaskSpec`` reads it; one from before there were
    choices says less."""
    measure = {name: task[name] for name in ("metric", "normalization") if task.get(name)}
    return {"name": task["name"], "path": task["path"], "measure": measure}


def store_run(session: Session, run: Run, result: Document) -> None:
    """Store a run's measurements: the series as rows, the rest as one document."""
    series = result["metrics"]
    run.result = {name: value for name, value in result.items() if name != "metrics"}
    session.add_all(Metric(run_id=run.id, **metric) for metric in series)
