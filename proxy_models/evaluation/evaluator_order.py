"""What an evaluator is told at its start, as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from proxy_models.batches.windows import Window
from proxy_models.evaluation.scores import Ranking, Scored
from proxy_models.text.task_file import TaskMeasure
from proxy_models.training.run_spec import RunSpec

Document = dict[str, Any]


def shape_of(spec: RunSpec, device: str) -> Document:
    """The run as another process needs it to build its model on ``device``, without its files.

    These may be where only this process was allowed to read, or have changed since they were opened.
    """
    return {**spec.to_dict(), "shards": {}, "tokenizer": None, "tasks": [], "device": device}


def tasks_to_json(tasks: Mapping[str, Scored]) -> Document:
    """The tasks as they were tokenized; `tasks_from_json` answers equal ones, to the last bit."""
    return {name: _scored_to_json(scored) for name, scored in tasks.items()}


def tasks_from_json(content: Mapping[str, Document]) -> dict[str, Scored]:
    """What `tasks_to_json` was given, in the same order."""
    return {name: _scored_from_json(scored) for name, scored in content.items()}


def _scored_to_json(scored: Scored) -> Document:
    ranking = scored.ranking
    return {
        "windows": [(window.document, window.tokens, window.scored) for window in scored.windows],
        "document_bytes": scored.document_bytes.tolist(),
        "pooled": scored.pooled,
        "ranking": None if ranking is None else _ranking_to_json(ranking),
    }


def _scored_from_json(content: Document) -> Scored:
    ranking = content["ranking"]
    return Scored(
        windows=tuple(_window(*window) for window in content["windows"]),
        document_bytes=np.array(content["document_bytes"], float),
        pooled=content["pooled"],
        ranking=None if ranking is None else _ranking_from_json(ranking),
    )


def _window(document: int, tokens: Sequence[int], scored: int) -> Window:
    return Window(document, tuple(tokens), scored)


def _ranking_to_json(ranking: Ranking) -> Document:
    return {
        "first": ranking.first.tolist(),
        "gold": ranking.gold.tolist(),
        "lengths": ranking.lengths.tolist(),
        "measure": {"metric": ranking.measure.metric, "normalization": ranking.measure.normalization},
    }


def _ranking_from_json(content: Document) -> Ranking:
    return Ranking(
        first=np.array(content["first"], np.int64),
        gold=np.array(content["gold"], np.int64),
        lengths=np.array(content["lengths"], float),
        measure=TaskMeasure(**content["measure"]),
    )
