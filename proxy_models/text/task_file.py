"""Tasks as records of gold continuations or of choices to rank. Free of torch, so the service can check them.

A record is ``{"context", "continuation"}``, or ``{"context", "choices": [...], "gold": index}``: the cloze
formulation of a multiple-choice question (OLMES, arXiv 2406.08446), in which the text of every choice is scored as a
continuation of the context and the likeliest one is the answer. A file holds records of one kind: JSON lines, a JSON
array, or rows of Parquet or Arrow. Records of ARC, HellaSwag and lm-eval's samples, and those that the user says how
to read, are read too (`TaskFields`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from proxy_models.errors import CorpusError, InvalidSpec, NoChoices
from proxy_models.stores.object_path import DataPath
from proxy_models.text.formats.catalogue import EMPTY, format_of
from proxy_models.text.formats.lines import encodable, text_field
from proxy_models.text.formats.opened import OpenedFile, opened
from proxy_models.text.reading import BY_CONTENT

MetricName = Literal["bpb", "accuracy"]
Normalization = Literal["none", "character", "token", "byte"]

BPB: MetricName = "bpb"
ACCURACY: MetricName = "accuracy"
DEFAULT_NORMALIZATION: Normalization = "character"
"""OLMES ranks by log-likelihood per character unless a data set is known to need otherwise (none for BoolQ and
WinoGrande, pointwise mutual information, which is not here, for choices of rare words)."""


@dataclass(frozen=True)
class TaskMeasure:
    """What a task's stored metric is, and what the log-likelihood of a choice is divided by before ranking.

    Raises `InvalidSpec` naming the field for a word that is not known.
    """

    metric: MetricName = BPB
    normalization: Normalization = DEFAULT_NORMALIZATION

    def __post_init__(self) -> None:
        for field, known in (("metric", get_args(MetricName)), ("normalization", get_args(Normalization))):
            if (value := getattr(self, field)) not in known:
                raise InvalidSpec(f"{field} {value!r} is none of {', '.join(known)}", field)

    @property
    def further(self) -> MetricName:
        """The other metric of a task with choices: measured and reported, not what the task stands for."""
        return ACCURACY if self.metric == BPB else BPB


PLAIN = TaskMeasure()


def further_series(task: str, metric: MetricName) -> str:
    """The name a task's other metric is reported under."""
    return f"{task}/{metric}"


@dataclass(frozen=True)
class TaskExample:
    """A context, possibly empty, its gold continuation, and where there are any all choices, the gold one among them.

    Every text is scored as it stands, leading space included.
    """

    context: str
    continuation: str
    choices: tuple[str, ...] = ()

    @property
    def scored(self) -> tuple[str, ...]:
        """The continuations to score: the choices, or the gold one alone."""
        return self.choices or (self.continuation,)

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is read of it."""
        return (self.context, *self.scored)


def read_task(
    path: DataPath, metric: MetricName = BPB, fields: Mapping[str, Any] | None = None
) -> tuple[TaskExample, ...]:
    """All examples of a task file, compressed or not; ``fields`` are those of `TaskFields`.

    Raises `CorpusError` naming file and line: not of records, a field missing or of another type, an empty
    continuation or choice, fewer than two choices, the same one twice, a gold index out of range, records of both
    kinds, or a file without examples; `NoChoices` for an accuracy of records without choices. Other fields are
    ignored.
    """
    examples: list[TaskExample] = []
    with opened(path) as file:
        for number, record in _records(file, fields):
            example = _choices(path, number, record) if "choices" in record else _gold(path, number, record)
            if metric == ACCURACY and not example.choices:
                raise NoChoices(path, number)
            if examples and bool(examples[0].choices) != bool(example.choices):
                kinds = ("a continuation", "choices")
                mine, first = kinds[bool(example.choices)], kinds[bool(examples[0].choices)]
                raise CorpusError(
                    path, number, f"has {mine} where the first record has {first}; use one kind a file"
                )
            examples.append(example)
    if not examples:
        raise CorpusError(path, None, "holds no examples")
    return tuple(examples)


def _records(file: OpenedFile, fields: Mapping[str, Any] | None) -> Iterator[tuple[int, dict[str, object]]]:
    found = format_of(file, BY_CONTENT)
    if found is EMPTY:
        return
    if found.records is None:
        reason = f"is {found.name}; a task is JSON lines, a JSON array, Parquet or Arrow"
        raise CorpusError(file.path, None, reason)
    as_ours = of_ours if fields is None else TaskFields(**fields).record
    for number, record in found.records(file):
        try:
            yield number, as_ours(record)
        except ValueError as error:
            raise CorpusError(file.path, number, str(error)) from error


ENOUGH = 20
"""Questions, of which the first choice is right for one at least."""


def example_warnings(examples: Sequence[TaskExample]) -> Iterator[str]:
    """What is doubtful: spaces between contexts and what is scored after them, answers that may count from 1."""
    doubled = [
        number
        for number, example in enumerate(examples, 1)
        if example.context[-1:].isspace() and any(text[0].isspace() for text in example.scored)
    ]
    blank = [number for number, example in enumerate(examples, 1) if any(map(str.isspace, example.scored))]
    for numbers, said in (
        (doubled, "have a space at the end of the context and another at the beginning of what follows"),
        (blank, "score nothing but spaces"),
    ):
        if numbers:
            yield f"{len(numbers):,} of {len(examples):,} examples {said}, the first is number {numbers[0]}."
    is_first = [example.choices[:1] == (example.continuation,) for example in examples if example.choices]
    if len(is_first) >= ENOUGH and not any(is_first):
        yield "The first choice is never the right one; where answers count from 1, give the choices' labels."


LAYOUT = "fields of the task say which is what"


def _gold(path: DataPath, number: int, record: dict[str, object]) -> TaskExample:
    context, continuation = (
        text_field(path, number, record, name, LAYOUT) for name in ("context", "continuation")
    )
    if not continuation:
        raise CorpusError(path, number, "its continuation is empty")
    return TaskExample(context, continuation)


def _choices(path: DataPath, number: int, record: dict[str, object]) -> TaskExample:
    if "continuation" in record:
        raise CorpusError(path, number, "has both 'continuation' and 'choices'; give one of them")
    context = text_field(path, number, record, "context", LAYOUT)
    given, gold = record["choices"], record.get("gold")
    if not isinstance(given, list) or not all(isinstance(choice, str) for choice in given):
        raise CorpusError(path, number, "'choices' is not a list of strings")
    choices = tuple(encodable(path, number, choice) for choice in given)
    if len(choices) < 2:
        raise CorpusError(path, number, f"has {len(choices)} choices; ranking takes at least two")
    for index, choice in enumerate(choices):
        if not choice:
            raise CorpusError(path, number, f"its choice {index} is empty")
        if choice in choices[:index]:
            raise CorpusError(path, number, f"its choices {choices.index(choice)} and {index} are the same")
    if not isinstance(gold, int) or isinstance(gold, bool):
        raise CorpusError(path, number, "has no whole number 'gold', the index of the right choice")
    if not 0 <= gold < len(choices):
        raise CorpusError(path, number, f"'gold' is {gold}; the choices are 0 to {len(choices) - 1}")
    return TaskExample(context, choices[gold], choices)


# Records of other layouts as records of ours: ARC, HellaSwag, the samples that lm-eval logs, and what a user says.
#
# Contexts and choices are worded as lm-eval 0.4.13 does (``lm_eval/tasks/arc``, ``lm_eval/tasks/hellaswag``), which
# joins a context and what follows by a space. A layout is told by its members, or said by `TaskFields`.

Record = dict[str, Any]
_BRACES = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class TaskFields:
    """Where the records of a task have what is scored, by the names of their members; a dot leads into a nested one.

    What follows a context is joined to it by a space where neither has one.

    Attributes:
        context: a member, or a template with members in braces.
        continuation: likewise; None where there are choices.
        choices: the member that is their list, or a member for each.
        gold: which of them is right: by its index from 0, its text, its letter from A, or its label.
        labels: the member that is the list of their labels; with it ``gold`` is one of these.

    >>> arc = TaskFields("Question: {question}\\nAnswer:", choices="choices.text", gold="key", labels="choices.label")
    >>> arc.record({"question": "1 + 1?", "choices": {"text": ["1", "2"], "label": ["A", "B"]}, "key": "B"})
    {'context': 'Question: 1 + 1?\\nAnswer:', 'choices': [' 1', ' 2'], 'gold': 1}
    """

    context: str
    continuation: str | None = None
    choices: str | Sequence[str] | None = None
    gold: str | None = None
    labels: str | None = None

    def record(self, record: Record) -> Record:
        """The record as one of ours. Raises ValueError naming the member at fault."""
        context = _filled(record, self.context)
        if self.choices is None:
            return {
                "context": context,
                "continuation": _joined(context, _filled(record, str(self.continuation))),
            }
        texts = _texts(record, self.choices)
        labels = None if self.labels is None else _texts(record, self.labels)
        gold = _index(_member(record, str(self.gold)), texts, labels, str(self.gold))
        return {"context": context, "choices": [_joined(context, text) for text in texts], "gold": gold}


def _joined(context: str, text: str) -> str:
    apart = not text or not context or context[-1].isspace() or text[0].isspace()
    return text if apart else f" {text}"


def _filled(record: Record, said: str) -> str:
    """A member, or a template with its members filled in."""
    if "{" not in said:
        return _text(_member(record, said), said)
    if not _BRACES.search(said):
        raise ValueError(f"is the same for every record: {said!r} has no member in braces")
    return _BRACES.sub(lambda found: _text(_member(record, found[1]), found[1]), said)


def _texts(record: Record, said: str | Sequence[str]) -> list[str]:
    if not isinstance(said, str):
        return [_filled(record, name) for name in said]
    values = _member(record, said)
    if not isinstance(values, list):
        raise ValueError(f"its {said!r} is no list")
    return [_text(value, said) for value in values]


def _text(value: object, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"its {name!r} is neither text nor a number")
    return str(value)


def _member(value: Any, name: str) -> Any:
    """What the name leads to; of a list of objects the list of what it leads to in each."""
    if isinstance(value, Mapping) and name in value:
        return value[name]
    for step in name.split("."):
        if isinstance(value, list):
            value = [one.get(step) if isinstance(one, Mapping) else None for one in value]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            raise ValueError(f"has no member {name!r}")
    return value


def _index(gold: object, choices: Sequence[str], labels: Sequence[str] | None, name: str) -> int:
    if labels is not None:
        if str(gold) not in labels:
            raise ValueError(f"its {name!r} is {gold!r}, none of the labels of its choices")
        return labels.index(str(gold))
    if isinstance(gold, int) and not isinstance(gold, bool):
        return gold
    said = str(gold)
    means = {choices.index(said)} if said in choices else set()
    if re.fullmatch(r"[A-Z]", said):
        means.add(ord(said) - ord("A"))
    elif said.isdecimal():
        means.add(int(said))
    if len(means) != 1:
        many = (
            "may be the text of a choice or its number"
            if means
            else "is no index, letter or text of a choice"
        )
        raise ValueError(f"its {name!r}, {said!r}, {many}; the choices' labels would tell")
    return means.pop()


def of_ours(record: Record) -> Record:
    """The record with ``context`` and ``choices`` or ``continuation``; one of no known layout as it is.

    Raises ValueError saying what is wrong with one of a known layout.
    """
    if {"question", "choices", "answerKey"} <= record.keys() and isinstance(record["choices"], Mapping):
        return _arc(record)
    if {"endings", "label"} <= record.keys():
        return _hellaswag(record)
    if {"arguments", "target", "doc"} <= record.keys():
        return _logged(record)
    return record


def _arc(record: Record) -> Record:
    texts, labels = record["choices"].get("text"), record["choices"].get("label")
    if not isinstance(texts, list) or not isinstance(labels, list) or record["answerKey"] not in labels:
        raise ValueError("its answerKey is none of the labels of its choices")
    return {
        "context": f"Question: {record['question']}\nAnswer:",
        "choices": [f" {text}" for text in texts],
        "gold": labels.index(record["answerKey"]),
    }


def _hellaswag(record: Record) -> Record:
    label = str(record["label"])
    if not label.isdecimal() or not isinstance(record["endings"], list):
        raise ValueError(f"its label {label!r} is no index of an ending; test splits have none")
    context = record.get("ctx", "")
    if "ctx_a" in record and "ctx_b" in record:
        context = f"{record['ctx_a']} {str(record['ctx_b']).capitalize()}"
    if "activity_label" in record:
        context = f"{record['activity_label']}: {context}"
    return {
        "context": _without_marks(context),
        "choices": [f" {_without_marks(str(ending))}" for ending in record["endings"]],
        "gold": int(label),
    }


def _without_marks(text: str) -> str:
    """Without the brackets that WikiHow's pages left behind."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def _logged(record: Record) -> Record:
    """Requests of a sample: one a choice with the gold one's index, or one with the gold text."""
    arguments = record["arguments"]
    requests = [
        [*one.values()] if isinstance(one, Mapping) else one
        for one in (arguments.values() if isinstance(arguments, Mapping) else arguments)
    ]
    if not requests or not all(isinstance(one, list) and len(one) > 1 for one in requests):
        raise ValueError("its arguments are no requests with a context and what follows")
    target = str(record["target"])
    if isinstance(requests[0][1], Mapping):  # generated: what follows are settings
        return {"context": requests[0][0], "continuation": f" {target.removeprefix(' ')}"}
    if len(requests) == 1:
        return {"context": requests[0][0], "continuation": requests[0][1]}
    if not target.isdecimal() or len({one[0] for one in requests}) > 1:
        raise ValueError("its requests do not share a context, or its target is no index of one")
    return {"context": requests[0][0], "choices": [one[1] for one in requests], "gold": int(target)}
