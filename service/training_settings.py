"""Checks of training settings and task files that an optimization and a launch share."""

import hashlib
from collections.abc import Sequence

from proxy_models.config import TrainingConfig, size_named
from proxy_models.errors import ProxyError
from proxy_models.task_file import read_task
from service.errors import Invalid
from service.files import resolve_files
from service.optimizations.schemas import TaskRequest, TrainingRequest
from service.settings import Settings


def check_training(training: TrainingRequest, tokens: int, prefix: str) -> None:
    """Raise Invalid naming the field below ``prefix`` when no such model can be trained."""
    try:
        size_named(training.size)
        TrainingConfig(
            tokens=tokens,
            sequence_length=training.sequence_length,
            batch_rows=training.batch_rows,
            learning_rate=training.learning_rate,
            evaluations=training.evaluations,
        )
    except ProxyError as error:
        field = f"{prefix}{error.field}" if error.field else prefix.rstrip(".")
        raise Invalid(error.code, str(error), field) from error


def check_tasks(tasks: Sequence[TaskRequest], settings: Settings) -> list[dict[str, object]]:
    """The tasks as stored, paths resolved. Raises Invalid naming the task, its file and the line at fault."""
    seen: set[str] = set()
    stored = []
    for index, task in enumerate(tasks):
        if task.name in seen:
            raise Invalid("duplicate_task", f"The task {task.name!r} appears twice.", f"tasks[{index}].name")
        seen.add(task.name)
        field = f"tasks[{index}].path"
        files = resolve_files(task.path, settings.roots, field)
        if len(files) != 1:
            raise Invalid("not_one_file", f"{task.path!r} names {len(files)} files; a task is one.", field)
        try:
            read_task(files[0])
        except ProxyError as error:
            raise Invalid(error.code, f"Task {task.name!r}: {error}", field) from error
        # Runs are compared by what they measured, and a file may be edited in its place.
        digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
        stored.append({**task.model_dump(), "path": str(files[0]), "digest": digest})
    if tasks and not any(task.weight > 0 for task in tasks):
        raise Invalid("no_objective", "At least one task needs a weight above 0.", "tasks")
    return stored
