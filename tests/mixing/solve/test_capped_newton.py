import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from mixing.laws.regression import Expansion
from mixing.solve.capped_newton import CappedProblem, knapsack, minimize_capped
from mixing.solve.problem import MixtureProblem
from tests.mixing.solve.problems import LAWS, problem_of


def capped(problem: MixtureProblem) -> CappedProblem:
    objective = problem.objective
    return CappedProblem(
        lambda weights: objective.smooth(weights, objective.task_weights),
        objective.prior,
        objective.kl_weight,
        problem.caps,
    )


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kl_weight", [1.0, 0.05, 1e-3])
@pytest.mark.parametrize("domains", [2, 5, 40, 200])
def test_certified_to_1e_9_within_the_caps(law: type, kl_weight: float, domains: int) -> None:
    problem = problem_of(domains, domains, law=law, tasks=12, kl_weight=kl_weight)
    found = minimize_capped(capped(problem))
    assert found.gap <= 1e-9
    assert (found.weights <= problem.caps).all()
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert found.weights.min() > 0, "the KL term keeps every domain in"


@pytest.mark.parametrize("law", LAWS)
def test_the_optimum_satisfies_the_karush_kuhn_tucker_conditions(law: type) -> None:
    problem = problem_of(3, 30, law=law)
    found = minimize_capped(capped(problem), tolerance=1e-13)
    held = found.weights >= problem.caps
    assert held.any()
    assert not held.all()
    slope = problem.objective.expand(found.weights, problem.objective.task_weights).gradient
    np.testing.assert_allclose(slope[~held], found.level, atol=1e-8)
    assert (slope[held] <= found.level + 1e-8).all()


@pytest.mark.parametrize("law", LAWS)
def test_sequential_quadratic_programming_finds_nothing_better(law: type) -> None:
    problem = problem_of(8, 6, law=law)
    objective, caps = problem.objective, problem.caps
    found = minimize_capped(capped(problem))
    other = minimize(
        lambda weights: objective.value(np.maximum(weights, 1e-12)),
        found.weights[::-1] * 0.1 + 0.9 * np.minimum(objective.prior, caps),
        method="SLSQP",
        bounds=[(1e-9, min(cap, 1)) for cap in caps],
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert objective.value(found.weights) <= other.fun + 1e-9
    np.testing.assert_allclose(found.weights, other.x, atol=1e-4)


def test_caps_that_sum_to_one_leave_one_mixture() -> None:
    caps = np.array([0.5, 0.3, 0.2])
    found = minimize_capped(capped(problem_of(1, 3, caps=caps)))
    np.testing.assert_allclose(found.weights, caps, atol=1e-15)


@given(st.integers(0, 10**6), st.integers(2, 30))
@hypothesis_settings(max_examples=20)
def test_the_knapsack_is_the_linear_programme(seed: int, domains: int) -> None:
    generator = np.random.default_rng(seed)
    gradient, caps = generator.normal(size=domains), generator.uniform(1 / domains, 3 / domains, domains)
    solved = linprog(
        gradient, A_eq=np.ones((1, domains)), b_eq=[1], bounds=[(0, min(cap, 1)) for cap in caps]
    )
    assert knapsack(gradient, caps) == pytest.approx(solved.fun, abs=1e-12)


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=15)
def test_the_gap_bounds_what_is_lost_at_any_point(seed: int) -> None:
    problem = problem_of(seed, 8)
    best = minimize_capped(capped(problem))
    halfway = minimize_capped(capped(problem), iterations=1)
    value, least = problem.objective.value(halfway.weights), problem.objective.value(best.weights)
    assert value - least <= halfway.gap + 1e-12


def test_a_weight_that_was_as_good_as_nothing_can_rise_again() -> None:
    """The prior all but excludes the domain that is worth most, so the first weights are far below the last."""
    slopes = np.array([-40.0, 0.0, 1.0])

    def smooth(weights: np.ndarray) -> Expansion:
        return Expansion(float(slopes @ weights), slopes, np.zeros(3), np.zeros((0, 3)))

    problem = CappedProblem(smooth, np.array([1e-250, 0.5, 0.5]), 0.05, np.array([0.6, 1.0, 1.0]))
    found = minimize_capped(problem)
    assert found.gap <= 1e-9
    # Of what the cap leaves the two others get shares in proportion to prior e^(-slope / lambda).
    np.testing.assert_allclose(found.weights, [0.6, 0.4, 0.4 * np.exp(-20.0)], rtol=1e-7)
