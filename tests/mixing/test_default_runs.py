"""As many runs as a method trains where nobody says are enough to judge its law by runs it has not seen."""

from collections.abc import Sequence

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.errors import InvalidSetting
from mixing.methods import METHODS, combine
from mixing.parts import REGRESSIONS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.swarm.sample import sample_round

NAMES = ("api", "books", "code")
TRAINED = [name for name, method in METHODS.items() if method.trains_runs]
NOISE = 0.002


def truth(weights: np.ndarray, tokens: float) -> dict[str, float]:
    """Two tasks that want different domains, and lose less the longer a run."""
    effects = {"reading": np.array([1.0, 0.3, 0.1]), "coding": np.array([0.2, 1.5, 0.4])}
    return {
        task: 1.0 + float(np.exp(-effect[: len(weights)] @ weights)) * tokens**-0.1
        for task, effect in effects.items()
    }


def codes(method: str, domains: int, regression: str | None = None) -> set[str]:
    """The warnings of an answer over the default runs."""
    recipe = combine(METHODS[method], regression=regression)
    rounds = METHODS[method].split(recipe, METHODS[method].default_runs(domains, recipe), domains)
    pool = Domains.of({name: 1e7 * (index + 1) for index, name in enumerate(NAMES[:domains])})
    question = Question(
        method=method,
        recipe=recipe,
        domains=pool,
        objective={"reading": 1.0, "coding": 1.0},
        target_tokens=1e7,
        proxy_tokens=1e6,
        rounds=rounds,
    )
    generator = np.random.default_rng(0)
    runs: list[RunEvidence] = []
    for number in range(len(rounds)):
        runs += [
            RunEvidence(
                f"run-{number}-{index}",
                sampled.mixture,
                {
                    task: value + NOISE * generator.standard_normal()
                    for task, value in truth(sampled.mixture.align(pool.names), sampled.tokens).items()
                },
                dict.fromkeys(("reading", "coding"), NOISE),
                tokens=sampled.tokens,
                round=number,
            )
            for index, sampled in enumerate(sample_round(question, number, tuple(runs)))
        ]
    return {warning["code"] for warning in propose(question, runs).to_dict()["warnings"]}


def methods_but_designs() -> Sequence[str]:
    """Those whose sampler takes any number of runs, and whose law any task."""
    return [name for name in TRAINED if name not in ("autoscale", "bimix")]


@pytest.mark.parametrize("domains", [2, 3])
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.long) if name == "regmix" else name
        for name in methods_but_designs()
    ],
)
def test_the_default_runs_over_few_domains_are_cross_validated(method: str, domains: int) -> None:
    assert not {"not_cross_validated", "few_runs"} & codes(method, domains)


def test_a_design_without_a_run_to_spare_says_that_it_is_not() -> None:
    """AutoScale's perturbations are exactly as many as its law has unknowns."""
    assert "not_cross_validated" in codes("autoscale", 2)


@pytest.mark.long
@pytest.mark.parametrize("method", methods_but_designs())
@pytest.mark.parametrize("regression", list(REGRESSIONS))
def test_so_they_are_with_every_regression_that_a_method_takes(method: str, regression: str) -> None:
    try:
        found = codes(method, 2, regression)
    except InvalidSetting as refused:
        pytest.skip(str(refused))
    assert "not_cross_validated" not in found
