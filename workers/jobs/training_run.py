"""Training one model: what a proxy run and a full run have in common."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from service.database.models import Metric, Revision, Run
from service.settings import Settings
from workers.failures import JobError

Document = dict[str, Any]
TRAINING = ("tokens", "sequence_length", "batch_rows", "learning_rate", "evaluations")


def describe_run(
    run: Run, revision: Revision, training: Mapping[str, Any], tasks: list[Document], settings: Settings
) -> Document:
    """The specification ``proxy_models.run_spec.RunSpec`` reads."""
    shards = {row.name: row.shard_directory for row in revision.domains}
    for name, directory in shards.items():
        if directory is None:
            raise JobError("data_missing", f"domain {name!r} has no token shard")
    return {
        "size": training["size"],
        "vocabulary_size": revision.vocabulary_size,
        "mixture": run.weights,
        "shards": shards,
        "tokenizer": revision.tokenizer_path,
        "tasks": [{"name": task["name"], "path": task["path"]} for task in tasks],
        "directory": str(settings.artifacts / "runs" / run.id),
        "max_epochs": training.get("repetition_cap"),
        "device": settings.device,
        "training": {**{name: training[name] for name in TRAINING}, "seed": run.seed},
    }


def execute_run(spec: Document, report: Callable[[Document], None]) -> Document:
    """Train and evaluate, from the last checkpoint if there is one."""
    from proxy_models.run import train_run
    from proxy_models.run_spec import RunSpec

    result = train_run(RunSpec.from_dict(spec), lambda progress: report(progress.to_dict()))
    return result.to_dict()


def store_run(session: Session, run: Run, result: Document) -> None:
    """Store a run's measurements: the series as rows, the rest as one document."""
    series = result["metrics"]
    run.result = {name: value for name, value in result.items() if name != "metrics"}
    session.add_all(Metric(run_id=run.id, **metric) for metric in series)
