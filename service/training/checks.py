"""Checks of training settings and task files that an optimization and a launch share."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mixing.document import from_document
from mixing.sense import suggested_direction
from proxy_models.config import TrainingConfig, size_named
from proxy_models.errors import InvalidSpec, ProxyError, StoreUnreachable
from proxy_models.families.architecture import Architecture, checked_architecture
from proxy_models.families.start import StartFolder, read_published_start, read_start
from proxy_models.stores.object_path import DataPath, file_identity, is_address
from proxy_models.text.data_roots import open_data
from proxy_models.text.task_file import DEFAULT_NORMALIZATION, TaskExample, example_warnings, read_task
from service.http.schemas import NAME_PATTERN
from service.optimizations.schemas import DEFAULT_SIZE, TaskRequest, TrainingRequest
from store.documents import TaskDocument, TrainingDocument
from store.files import identity_hash, resolve_files, resolve_place, store_problems
from store.problems import Invalid, Unavailable
from store.settings import Settings
from store.tables import Revision


def check_training(
    training: TrainingRequest, tokens: int, prefix: str, settings: Settings
) -> tuple[TrainingDocument, StartFolder | None]:
    """The settings as stored, and what the model starts from: path resolved, shape named, content identified.

    Raises Invalid naming the field below ``prefix`` when no such model can be trained, as far as that can be said
    without the tokenizer (`check_vocabulary`) and without tensors (the worker, before its first step). What
    is said of an architecture by the library itself is checked later (`device.check_counted`).
    """
    stored = training.model_dump()
    start = None
    try:
        if training.start is not None:
            start, stored["start"], stored["start_content"] = _start(training.start, prefix, settings)
        stored["size"], stored["architecture"] = _model(training, start)
        document = from_document(TrainingDocument, {**stored, "tokens": tokens})
        TrainingConfig(**document.chosen)
    except ProxyError as error:
        raise _invalid(error, prefix) from error
    return document, start


def check_rows(training: TrainingDocument, domains: int, prefix: str) -> None:
    """Raise Invalid where a run has fewer rows than domains to read: some would be trained on none of them."""
    if training.rows < domains:
        raise Invalid(
            "too_few_rows",
            f"{training.tokens} tokens are {training.rows} rows of {training.sequence_length}, of one domain each,"
            f" and there are {domains} domains: some would not be read. Train on more tokens, or shorten the rows.",
            f"{prefix}tokens",
        )


def require_corpus(revision: Revision, field: str) -> None:
    """Raise Invalid where the domains have no text: nothing can be trained on what is only declared."""
    if not revision.has_corpus:
        raise Invalid(
            "no_corpus",
            f"Revision {revision.number} of {revision.domain_set.name!r} only declares its domains' tokens; without"
            " their files nothing can be trained on it here. Bring runs that were trained elsewhere"
            " (POST /v1/swarms), or post a revision with files.",
            field,
        )


def check_vocabulary(start: StartFolder | None, vocabulary_size: int | None, field: str) -> None:
    """Raise Invalid where the checkpoint's vocabulary is not the tokenizer's; unknown before there is one."""
    if start is None or vocabulary_size is None:
        return
    try:
        start.check_vocabulary(vocabulary_size)
    except ProxyError as error:
        raise Invalid(error.code, str(error), field) from error


def _invalid(error: ProxyError, prefix: str) -> Invalid:
    return Invalid(error.code, str(error), f"{prefix}{error.field}" if error.field else prefix.rstrip("."))


def _start(path: str, prefix: str, settings: Settings) -> tuple[StartFolder, str, str]:
    """The folder as its files say, and its place and content; below a data root, or a model that a run here saved."""
    if is_address(path):
        start, content = _published_start(path, f"{prefix}start", settings)
        return start, path, content
    roots = (*settings.roots, (settings.artifacts / "runs").resolve())
    start = read_start(resolve_place(path, roots, f"{prefix}start"))
    return start, str(start.folder), identity_hash(map(file_identity, start.files))


def _published_start(address: str, field: str, settings: Settings) -> tuple[StartFolder, str]:
    store = settings.store
    with store_problems(field):
        name = None if store is None else store.name_of(store.path_of(address)).split("/")
        if store is None or name is None or [name[0], name[-1]] != ["runs", "model"]:
            raise Invalid(
                "bad_path", f"{address!r} is not the model of a run in the service's artifact store.", field
            )
        return read_published_start(store, store.path_of(address))


def _model(training: TrainingRequest, start: StartFolder | None) -> tuple[str | None, dict[str, Any] | None]:
    """Size or architecture: what was asked for, else the checkpoint's, else the default."""
    if training.architecture is not None:
        settings = checked_architecture(training.architecture)
        if start is not None:
            start.check_shape(Architecture(settings, start.shape.vocabulary_size))
        found: tuple[str | None, dict[str, Any] | None] = (None, dict(settings))
    elif training.size is None and start is not None and isinstance(start.shape, Architecture):
        found = (None, dict(start.shape.settings))
    else:
        size = size_named(training.size or (DEFAULT_SIZE if start is None else start.shape.name))
        if start is not None:
            start.check_shape(size)
        found = (size.name, None)
    if start is not None and start.saved is None and training.learning_rate is None:
        raise InvalidSpec(
            f"{start.folder} does not say at which learning rate it ended; give learning_rate",
            "learning_rate",
        )
    return found


def check_tasks_elsewhere(tasks: Sequence[TaskRequest]) -> tuple[TaskDocument, ...]:
    """Tasks that are measured elsewhere, as stored. Raises Invalid naming the task at fault."""
    stored = []
    for field, task in _each(tasks, "'accuracy' (a share of 1) or 'higher', or 'lower'"):
        for name in ("path", "normalization", "fields"):
            if getattr(task, name) is not None:
                raise Invalid(
                    "measured_elsewhere",
                    f"Task {task.name!r} is measured where the runs are trained; leave {name} out.",
                    f"{field}.{name}",
                )
        stored.append(
            TaskDocument(
                name=task.name, weight=task.weight, family=task.family, metric=task.metric or "lower"
            )
        )
    return tuple(stored)


def check_tasks(tasks: Sequence[TaskRequest], settings: Settings) -> tuple[TaskDocument, ...]:
    """The tasks as stored, paths resolved. Raises Invalid naming the task, its file and the line at fault."""
    if not tasks:
        return ()
    return tuple(
        _measured_here(task, field, settings) for field, task in _each(tasks, "'accuracy', or 'bpb'")
    )


def _each(tasks: Sequence[TaskRequest], choices: str) -> Iterator[tuple[str, TaskRequest]]:
    """Each task with its field. Raises Invalid for a name given twice, an unclear direction, no task that counts.

    A direction is unclear of what is called like an accuracy, where nobody said the metric: one of these ``choices``.
    """
    seen: set[str] = set()
    for index, task in enumerate(tasks):
        if task.name in seen:
            raise Invalid("duplicate_task", f"The task {task.name!r} appears twice.", f"tasks[{index}].name")
        seen.add(task.name)
        if task.metric is None and suggested_direction(task.name) == "higher":
            raise Invalid(
                "unclear_direction",
                f"Task {task.name!r} is called like an accuracy, better when higher, and nothing says what it stands"
                f" for: give its metric, {choices}, which is better when lower.",
                f"tasks[{index}].metric",
            )
        yield f"tasks[{index}]", task
    if not any(task.weight > 0 for task in tasks):
        raise Invalid("no_objective", "At least one task needs a weight above 0.", "tasks")


def _measured_here(task: TaskRequest, field: str, settings: Settings) -> TaskDocument:
    if task.path is None or task.metric in ("lower", "higher"):
        raise Invalid(
            "missing_path" if task.path is None else "measured_elsewhere",
            f"Task {task.name!r}: what is trained here is measured here, on a file, in BPB or as an accuracy.",
            f"{field}.path" if task.path is None else f"{field}.metric",
        )
    if not re.fullmatch(NAME_PATTERN, task.name):
        raise Invalid(
            "bad_name",
            f"The task {task.name!r}: a name is letters, digits, '.', '_' and '-', at most 64.",
            f"{field}.name",
        )
    files = resolve_files(task.path, settings.roots, f"{field}.path")
    if len(files) != 1:
        raise Invalid(
            "not_one_file", f"{task.path!r} names {len(files)} files; a task is one.", f"{field}.path"
        )
    fields = None if task.fields is None else task.fields.model_dump(exclude_none=True)
    examples = _examples(task, files[0], fields, field)
    ranked = bool(examples[0].choices)
    if task.normalization is not None and not ranked:
        raise Invalid(
            "no_choices",
            f"Task {task.name!r}: {files[0]} has no choices to rank; leave the normalization out.",
            f"{field}.normalization",
        )
    # Runs are compared by what they measured, and a file may be edited in its place.
    with open_data(files[0]) as stream:
        digest = hashlib.file_digest(stream, "sha256")
        size = max(stream.tell(), sum(len(text.encode()) for one in examples for text in one.texts))
    if fields is not None:
        digest.update(json.dumps(fields, sort_keys=True).encode())
    return TaskDocument(
        name=task.name,
        weight=task.weight,
        family=task.family,
        metric=task.metric or "bpb",
        path=str(files[0]),
        normalization=(task.normalization or DEFAULT_NORMALIZATION) if ranked else None,
        examples=len(examples),
        size_bytes=size,
        digest=digest.hexdigest(),
        warnings=tuple(example_warnings(examples)),
        fields=fields,
    )


def _examples(
    task: TaskRequest, file: DataPath, fields: Mapping[str, Any] | None, field: str
) -> tuple[TaskExample, ...]:
    try:
        return read_task(file, "accuracy" if task.metric == "accuracy" else "bpb", fields)
    except StoreUnreachable as error:
        raise Unavailable(error.code, f"Task {task.name!r}: {error}", f"{field}.path") from error
    except ProxyError as error:
        at_fault = f"{field}.metric" if error.field == "metric" else f"{field}.path"
        raise Invalid(error.code, f"Task {task.name!r}: {error}", at_fault) from error
