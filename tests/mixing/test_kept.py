"""What was fitted is read again as it was: to the last bit, for every regression that is arrays."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from mixing.answer.whatif import Judge
from mixing.kept import NotKept, read, written
from mixing.methods import combine, method_named
from mixing.parts import REGRESSIONS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from tests.mixing.test_whatif import FAR, NATURAL, question, runs

assert question
assert runs
NOT_ARRAYS = {"lightgbm", "lightgbm-climb"}
"""Of LightGBM's own kind."""


@pytest.mark.parametrize("regression", [name for name, part in REGRESSIONS.items() if part.offered])
def test_a_law_that_was_kept_says_what_it_said(
    regression: str, question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    asked = replace(
        question, recipe=combine(method_named("mixwright"), regression=regression), guard_rails=()
    )
    judge = Judge.of(asked, runs)
    if regression in NOT_ARRAYS:
        with pytest.raises(NotKept):
            written(judge)
        return
    document, arrays = written(judge)
    again = read(json.loads(json.dumps(document)), arrays)
    mixtures = {"far": FAR, "natural": NATURAL}
    assert repr(again.evaluate(mixtures)) == repr(judge.evaluate(mixtures))


def test_what_is_referred_to_twice_is_kept_once() -> None:
    numbers = np.arange(3.0)
    document, arrays = written((numbers, {"same": numbers}, [float("nan"), None, True, "text"]))
    assert len(arrays) == 1
    first, second, rest = read(json.loads(json.dumps(document)), arrays)
    assert first is second["same"]
    assert repr(rest) == "[nan, None, True, 'text']"


@pytest.mark.parametrize(
    "node",
    [
        ["os", "system", {"command": "true"}],
        ["mixing.kept", "_Writer", {}],
        ["mixing.kept", "importlib", {}],
        ["mixing.domains", "Mixture", {"other": 1}],
        ["mixing.nothing", "Mixture", {}],
        "text",
    ],
)
def test_nothing_is_made_but_this_package_s_own_values(node: object) -> None:
    loaded = set(sys.modules)
    with pytest.raises(NotKept):
        read({"whole": {"node": 0}, "nodes": [node]}, {})
    assert set(sys.modules) == loaded


@pytest.mark.parametrize("thing", [object(), len, np.array([object()]), RunEvidence, lambda: None])
def test_what_is_no_number_is_not_kept(thing: object) -> None:
    with pytest.raises(NotKept):
        written({"it": thing})
