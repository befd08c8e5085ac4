import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.domains import Domains
from mixing.errors import InvalidSetting
from mixing.limits import Limits
from mixing.simplex_map import SimplexMap
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem, Objective, RepetitionCost
from tests.mixing.solve.problems import effective_tokens, problem_of


@pytest.mark.parametrize(
    ("epochs", "value"), [(2, 0.9841), (4, 0.9314), (8, 0.8280), (16, 0.6614), (40, 0.3792)]
)
def test_what_is_lost_is_what_the_published_curve_leaves(epochs: int, value: float) -> None:
    cost = RepetitionCost(1.0, np.array([0.01, 1.0]))
    weights = np.array([0.01 * epochs, 0.0])
    assert 1 - cost.value(weights) / weights[0] == pytest.approx(value, abs=5e-5)


@given(st.integers(0, 10**6))
def test_it_is_the_share_of_tokens_that_are_not_effective_and_its_derivatives_hold(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tokens, target = generator.uniform(1, 100, 5), 300.0
    weights = generator.dirichlet(np.ones(5))
    cost = RepetitionCost(0.7, tokens / target)
    lost = target - effective_tokens(tokens, weights * target).sum()
    value, slope, curvature = cost.expand(weights)
    assert value == pytest.approx(0.7 * lost / target, abs=1e-12)
    step = 1e-6 * np.eye(5)
    ahead = np.array([cost.value(weights + row) for row in step])
    behind = np.array([cost.value(weights - row) for row in step])
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, atol=1e-6)
    assert (curvature >= 0).all()


def test_a_dearer_repetition_repeats_less_and_a_free_one_changes_nothing() -> None:
    problem = problem_of(3, 6, caps=np.full(6, np.inf))
    once = problem.objective.prior / 3
    repeated = []
    for price in (0.0, 0.1, 1.0, 10.0):
        cost = RepetitionCost(price, once)
        objective = Objective(
            problem.objective.law, problem.objective.task_weights, problem.objective.prior, 0.05, (), cost
        )
        solution = solve(MixtureProblem(objective, problem.space, problem.caps))
        assert solution.gap <= 1e-9
        repeated.append(RepetitionCost(1.0, once).value(solution.weights))
    assert repeated == sorted(repeated, reverse=True)
    assert repeated[0] == pytest.approx(RepetitionCost(1.0, once).value(solve(problem).weights), abs=1e-6)


def test_the_scale_of_token_counts_cancels() -> None:
    law = problem_of(3, 3).objective.law
    answers = []
    for scale in (1.0, 1e9):
        domains = Domains.of({"a": 10 * scale, "b": 30 * scale, "c": 5 * scale})
        target = 60 * scale
        natural = domains.natural().align(domains.names)
        cost = RepetitionCost(0.3, domains.tokens / target)
        objective = Objective(law, np.full(5, 0.2), natural, 0.05, (), cost)
        caps = Limits(domains, target, 2.5).caps
        answers.append(solve(MixtureProblem(objective, SimplexMap.identity(domains.names), caps)).weights)
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-9)


def test_a_price_below_zero_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="price of repetition"):
        RepetitionCost(-1.0, np.ones(3))
