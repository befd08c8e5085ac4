"""Records of other layouts as records of ours: ARC, HellaSwag, the samples that lm-eval logs, and what a user says.

Contexts and choices are worded as lm-eval 0.4.13 does (``lm_eval/tasks/arc``, ``lm_eval/tasks/hellaswag``), which
joins a context and what follows by a space. A layout is told by its members, or said by `TaskFields`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
