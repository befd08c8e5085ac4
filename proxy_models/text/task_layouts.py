"""Records of the usual benchmarks as records of ours: ARC, HellaSwag, and the samples that lm-eval logs.

Contexts and choices are worded as lm-eval 0.4.13 does (``lm_eval/tasks/arc``, ``lm_eval/tasks/hellaswag``), which
joins a context and what follows by a space. A layout is told by its members.
"""

import re
from collections.abc import Mapping
from typing import Any

Record = dict[str, Any]


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
