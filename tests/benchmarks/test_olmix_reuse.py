import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.olmix_configs import STACK_EDU, read_case_study, read_config
from benchmarks.olmix_file import OlmixConfigError
from benchmarks.olmix_reuse import Step, apart, outside, updates_of, walk
from benchmarks.reuse_updates import Shape, updates

ASKED = ("full", "partial", "auto")
REVISIONS = ("first", "add code", "add sources", "revise", "remove", "split")


def check(steps: tuple[Step, ...]) -> None:
    """What is promised of every step of every strategy."""
    assert [step.strategy for step in steps] == [name for name in ASKED for _ in range(5)]
    for step in steps:
        assert step.violated == (), (step.strategy, step.revision)
        assert step.excess <= 1e-9
        assert step.ratio_error <= 1e-9
        assert (step.frozen > 1) == (step.kind != "none") == (step.binding_member is not None)
        if step.virtual_cap is not None:
            assert step.virtual_weight is not None
            assert step.virtual_weight <= step.virtual_cap + 1e-9


@pytest.mark.parametrize("scarcity", [pytest.param(1.0, marks=pytest.mark.long), 1.6])
def test_every_limit_holds_on_leaves_along_a_chain_like_the_case_study(scarcity: float) -> None:
    pool = updates(np.random.default_rng(0), Shape(web=6, code=4, sources=3, parts=5))
    steps = walk(replace(pool, target_tokens=scarcity * pool.target_tokens), REVISIONS, ASKED)
    check(steps)
    assert scarcity == 1 or any(step.at_cap for step in steps)
    kinds = {step.strategy: {one.kind for one in steps if one.strategy == step.strategy} for step in steps}
    assert "none" not in kinds["full"]
    assert kinds["partial"] <= {"partial"}


@pytest.mark.parametrize(
    ("mixture", "says"),
    [
        ({"a": 0.25, "b": 0.75}, []),
        ({"a": 0.25 + 1e-6, "b": 0.75 - 1e-6}, ["a weighs"]),
        ({"a": 0.25, "b": 0.74}, ["sum to 0.99"]),
        ({"a": -0.1, "b": 1.1}, ["a weighs", "b weighs"]),
    ],
)
def test_the_check_tells_what_a_mixture_breaks(mixture: dict[str, float], says: list[str]) -> None:
    found = outside(mixture, {"a": 0.25, "b": 1.0})
    assert len(found) == len(says)
    assert all(said in line for said, line in zip(says, found, strict=True))


def test_the_check_tells_ratios_that_moved() -> None:
    assert apart({"a": 0.2, "b": 0.4, "c": 0.4}, {"a": 1 / 3, "b": 2 / 3}) == pytest.approx(0, abs=1e-15)
    assert apart({"a": 0.3, "b": 0.3, "c": 0.4}, {"a": 1 / 3, "b": 2 / 3}) == pytest.approx(1 / 6)


@pytest.fixture
def published() -> Path:
    directory = os.environ.get("MIXWRIGHT_OLMIX_DATA")
    if not directory:
        pytest.skip(
            "NOT TESTED: the published configurations; MIXWRIGHT_OLMIX_DATA names no folder that holds them"
        )
    return Path(directory)


def test_every_limit_holds_on_leaves_along_the_published_case_study(published: Path) -> None:
    names, pool = updates_of(published)
    config = next(iter(read_case_study(published).values()))
    assert (pool.target_tokens, pool.repetition_cap) == (config.target_tokens, config.repetition_factor)
    check(walk(pool, names, ASKED))


def test_the_malformed_configuration_is_refused_with_file_and_line(published: Path) -> None:
    with pytest.raises(OlmixConfigError, match=rf"{STACK_EDU}:23: 'token_counts'"):
        read_config(published / STACK_EDU)
