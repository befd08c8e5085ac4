"""A warning speaks of the numbers that are shown: each is a field of the document it stands in."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixing.answer.proposal import propose
from mixing.errors import MixingError
from mixing.runs.evidence import RunEvidence
from tests.mixing.test_proposal import POOL, question_of

Document = dict[str, Any]

SHOWN: dict[str, Callable[[Document], Sequence[Any]]] = {
    "gain_uncertain": lambda shown: [*shown["objective"]["gain_interval"], 0],
    "noise_comparable_to_gain": lambda shown: [shown["objective"]["noise"], shown["objective"]["gain"]],
    "low_rank_correlation": lambda shown: [
        shown["objective"]["rank_correlation"],
        shown["held_out_rank_correlation"],
    ],
    "few_runs": lambda shown: [shown["runs_used"], len(shown["domains"]), shown["runs_recommended"]],
    "weak_transfer": lambda shown: [shown["agreement"]],
    "sizes_not_apart": lambda shown: [value for one in shown["anchors_left_out"] for value in one.values()],
    "beyond_the_runs": lambda shown: [
        shown["support"]["proposed"],
        shown["support"]["runs"],
        shown["nearest_run_distance"],
    ],
    "coarse_rows": lambda shown: [shown["rounding"], *shown["without_rows"].values(), shown["runs_used"]],
    "without_rows": lambda shown: [*shown["without_rows"].values(), shown["runs_used"]],
    "doubtful_run": lambda shown: [one[name] for one in shown["set_aside"] for name in ("value", "expected")],
    "little_to_decide": lambda shown: [
        shown["domains"][0]["natural_epochs"],
        4,  # the cap that was asked for
        100 * shown["freedom"],
    ],
}
"""What a warning may quote; one that is not here quotes nothing."""


def numbers(message: str, names: Sequence[str]) -> Iterator[str]:
    """Those of a sentence that are none of a name, and none of a measure's (`L1`)."""
    for name in sorted(names, key=len, reverse=True):
        message = message.replace(name, "")
    yield from re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?(?![\w])", message)


def fields(part: Any) -> list[float]:
    """Every number in a document."""
    if isinstance(part, dict | list | tuple):
        members = part.values() if isinstance(part, dict) else part
        return [number for member in members for number in fields(member)]
    return [part] if isinstance(part, int | float) else []


def is_shown(said: str, value: float) -> bool:
    """Whether the text is the value, rounded to the digits that it has."""
    if "e" in said:
        return float(said) == float(f"{value:.4g}")
    digits = len(said.partition(".")[2])
    return float(said) == pytest.approx(round(value, digits), abs=0.5001 * 10**-digits)


def check(document: Document, names: Sequence[str]) -> None:
    for warning in document["warnings"]:
        shown = [value for value in SHOWN.get(warning["code"], lambda _: [])(document) if value is not None]
        for said in numbers(warning["message"], names):
            assert any(is_shown(said, value) for value in shown), (said, shown, warning)


@given(
    seed=st.integers(0, 2**20),
    runs=st.integers(8, 34),
    noise=st.sampled_from([1e-6, 0.003, 0.1, 1.0]),
    epochs=st.sampled_from([None, 1.2, 3.73]),
    rows=st.sampled_from([16, 40, 10_000]),
    broken=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_every_number_of_a_warning_is_a_field_of_its_document(
    seed: int, runs: int, noise: float, epochs: float | None, rows: int, broken: bool
) -> None:
    question, given_runs = question_of(noise, runs=30, seed=seed % 50)
    if epochs is not None:
        question = replace(question, repetition_cap=4.0, target_tokens=epochs * sum(POOL.values()))
    generator = np.random.default_rng(seed)
    evidence = [coarse(run, rows, generator) for run in given_runs[:runs]]
    if broken:
        evidence[3] = replace(evidence[3], metrics={"code": 1e4, "prose": 80.0})
    try:
        document = propose(question, evidence).to_dict()
    except MixingError:  # too few different runs, or a mixture that caps forbid: there is no answer
        assume(False)
        return
    check(document, [*POOL, *(run.id for run in evidence)])
    codes = {warning["code"] for warning in document["warnings"]}
    assert ("little_to_decide" in codes) == (epochs == 3.73)


def coarse(run: RunEvidence, rows: int, generator: np.random.Generator) -> RunEvidence:
    """The run as so many whole rows train it."""
    drawn = generator.multinomial(rows, [*run.mixture.values()]) / rows
    trained = dict(zip(run.mixture, drawn.tolist(), strict=True))
    return replace(run, mixture=trained, requested=run.mixture)
