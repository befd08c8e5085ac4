"""What a person is told before relying on an answer: how much there was to decide, and how well it was predicted."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.laws.diagnostics import kept_in_folds
from mixing.limits import Limits
from mixing.methods import METHODS, method_named
from mixing.parts import REGRESSIONS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.runs.table import RunTable


@given(st.lists(st.integers(1, 100), min_size=2, max_size=5), st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_no_mixture_under_the_caps_is_further_from_reading_evenly_than_is_said(
    tokens: list[int], full: float
) -> None:
    domains = Domains.of({f"d{number}": count for number, count in enumerate(tokens)})
    limits = Limits(domains, 4.0 * sum(tokens) * full, 4.0)
    furthest = 0.0
    for subset in range(1, 2 ** len(tokens)):  # of the sum of the weights of some domains the largest gain
        gaining = np.array([subset >> number & 1 for number in range(len(tokens))], float)
        bounds = [(0, min(cap, 1)) for cap in limits.caps]
        best = linprog(-gaining, A_eq=np.ones((1, len(tokens))), b_eq=[1], bounds=bounds)
        if best.success:
            furthest = max(furthest, -best.fun - gaining @ domains.natural_weights)
    assert furthest <= limits.freedom + 1e-7
    assert (limits.little_to_decide() is None) == (limits.freedom >= 0.1)


def test_an_answer_under_nearly_full_caps_says_that_there_was_little_to_decide() -> None:
    domains = Domains.of({"books": 3e6, "web": 1e6})
    said = Limits(domains, 3.73 * 4e6, 4.0).little_to_decide()
    assert said is not None
    assert "read 3.73 times, and the cap is 4" in said
    assert "at most 6.8% of its tokens" in said
    assert Limits(domains, 2 * 4e6, 4.0).little_to_decide() is None


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.recipe])
@pytest.mark.parametrize("domains", [2, 3, 5])
def test_the_default_number_of_runs_is_enough_to_hold_some_out(name: str, domains: int) -> None:
    method = method_named(name)
    assert method.recipe is not None
    if name == "autoscale":
        pytest.skip("its design is one number of runs, and its law is exact in them")
    part = REGRESSIONS[method.recipe.regression]
    runs = method.default_runs(domains)
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(domains), runs)
    names = tuple(f"d{number}" for number in range(domains))
    columns = tuple(f"held-out/{one}" for one in names)
    table = RunTable.of(names, columns, weights, 1 + weights)
    kept = kept_in_folds(part.make(table), weights, generator, 5, 1)
    assert kept.sum(axis=1).min() >= 1
    assert runs - math.ceil(runs / 5) >= 2


def test_a_warning_speaks_of_the_numbers_that_are_shown() -> None:
    generator = np.random.default_rng(3)
    runs = [
        RunEvidence(f"run-{number}", {"a": float(row[0]), "b": float(row[1]), "c": float(row[2])}, noise)
        for number, row in enumerate(generator.dirichlet(np.ones(3), 14))
        if (noise := {"t": float(generator.uniform(1, 2)), "u": float(generator.uniform(1, 2) + row[0])})
    ]
    domains = Domains.of({"a": 1e6, "b": 1e6, "c": 1e6})
    question = Question(domains=domains, target_tokens=1e6, objective={"t": 0.5, "u": 0.5}, rounds=(14,))
    evidence = propose(question, runs).to_dict()
    (warning,) = [one for one in evidence["warnings"] if one["code"] == "low_rank_correlation"]
    assert f"{evidence['held_out_rank_correlation']:.2f} on average" in warning["message"]
    assert f"{evidence['objective']['rank_correlation']:.2f} and" in warning["message"]
