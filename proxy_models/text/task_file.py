"""Tasks as records of gold continuations or of choices to rank. Free of torch, so the service can check them.

A record is ``{"context", "continuation"}``, or ``{"context", "choices": [...], "gold": index}``: the cloze
formulation of a multiple-choice question (OLMES, arXiv 2406.08446), in which the text of every choice is scored as a
continuation of the context and the likeliest one is the answer. A file holds records of one kind: JSON lines, a JSON
array, or rows of Parquet or Arrow. Records of ARC, HellaSwag and lm-eval's samples, and those that the user says how
to read, are read too (`task_layouts`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from proxy_models.errors import CorpusError, InvalidSpec, NoChoices
from proxy_models.stores.object_path import DataPath
from proxy_models.text.formats.catalogue import EMPTY, format_of
from proxy_models.text.formats.lines import encodable, text_field
from proxy_models.text.formats.opened import OpenedFile, opened
from proxy_models.text.reading import BY_CONTENT
from proxy_models.text.task_layouts import TaskFields, of_ours

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


def _gold(path: DataPath, number: int, record: dict[str, object]) -> TaskExample:
    context = text_field(path, number, record, "context")
    continuation = text_field(path, number, record, "continuation")
    if not continuation:
        raise CorpusError(path, number, "its continuation is empty")
    return TaskExample(context, continuation)


def _choices(path: DataPath, number: int, record: dict[str, object]) -> TaskExample:
    if "continuation" in record:
        raise CorpusError(path, number, "has both 'continuation' and 'choices'; give one of them")
    context = text_field(path, number, record, "context")
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
