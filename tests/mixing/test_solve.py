import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.errors import Infeasible
from mixing.optimization.convex import solve, solve_many
from mixing.optimization.problem import LinearConstraint, MixtureProblem, Objective, normalized
from mixing.simplex_map import SimplexMap

NAMES = ("a", "b", "c")


def problem_of(
    seed: int, caps: np.ndarray, kl_weight: float = 0.05, constraints: tuple[LinearConstraint, ...] = ()
) -> MixtureProblem:
    generator = np.random.default_rng(seed)
    domains = len(caps)
    objective = Objective(
        generator.normal(-0.5, 1.0, (4, domains)),
        normalized(np.ones(4)),
        generator.dirichlet(np.ones(domains) * 3) * 0.97 + 0.03 / domains,
        kl_weight,
    )
    names = NAMES[:domains] if domains <= 3 else tuple(f"d{index:02d}" for index in range(domains))
    return MixtureProblem(objective, SimplexMap.identity(names), caps, constraints)


def grid(steps: int) -> np.ndarray:
    """Every mixture of three domains with weights in multiples of 1 / steps."""
    pairs = itertools.product(range(steps + 1), repeat=2)
    return np.array([(i, j, steps - i - j) for i, j in pairs if i + j <= steps]) / steps


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 0.5]))
@hypothesis_settings(max_examples=12)
def test_no_point_of_a_fine_grid_is_better(seed: int, kl_weight: float) -> None:
    caps = np.array([0.5, 0.45, 0.8])
    problem = problem_of(seed, caps, kl_weight)
    solution = solve(problem)
    points = grid(120)
    points = points[(points <= caps + 1e-12).all(1)]
    best = min(problem.objective.value(point) for point in points)
    assert solution.value <= best + 1e-9
    # The objective is Lipschitz on the grid's cell, so the grid cannot be far off either.
    assert best - solution.value < 0.01


@given(st.integers(0, 10**6), st.integers(3, 40))
@hypothesis_settings(max_examples=15)
def test_the_gap_is_certified_and_the_caps_hold_to_the_last_bit(seed: int, domains: int) -> None:
    caps = np.random.default_rng(seed).uniform(1.5 / domains, 4 / domains, domains)
    solution = solve(problem_of(seed, caps))
    assert solution.optimality_gap < 1e-9
    assert (solution.weights <= caps).all()
    assert solution.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (solution.weights > 0).all(), "the KL term keeps every domain in"


def test_a_shadow_price_is_what_relaxing_the_cap_gains() -> None:
    caps = np.array([0.2, 0.9, 0.9])
    problem = problem_of(7, caps)
    while solve(problem).cap_prices[0] <= 1e-3:
        problem = problem_of(int(problem.objective.coefficients.sum() * 1e6) % 2**31, caps)
    price = solve(problem).cap_prices[0]
    step = 1e-4
    relaxed = solve(MixtureProblem(problem.objective, problem.space, caps + np.array([step, 0, 0]))).value
    tightened = solve(MixtureProblem(problem.objective, problem.space, caps - np.array([step, 0, 0]))).value
    assert (tightened - relaxed) / (2 * step) == pytest.approx(price, rel=1e-3)


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=10)
def test_adding_a_constraint_never_improves_the_optimum(seed: int) -> None:
    free = np.full(3, np.inf)
    plain = solve(problem_of(seed, free)).value
    capped = solve(problem_of(seed, np.array([0.5, np.inf, np.inf]))).value
    share = LinearConstraint("a and b", {"a": 1, "b": 1}, lower=0.3, upper=0.6)
    both = solve(problem_of(seed, np.array([0.5, np.inf, np.inf]), constraints=(share,)))
    certified = 1e-9
    assert plain <= capped + certified
    assert capped <= both.value + certified
    assert 0.3 - 1e-9 <= both.weights[:2].sum() <= 0.6 + 1e-9


def test_splitting_a_domain_into_equal_halves_changes_nothing_but_their_sum() -> None:
    objective = problem_of(3, np.array([0.6, 0.7, 0.8])).objective
    whole = solve(MixtureProblem(objective, SimplexMap.identity(NAMES), np.array([0.6, 0.7, 0.8])))
    halves = Objective(
        objective.coefficients[:, [0, 0, 1, 2]],
        objective.task_weights,
        objective.prior[[0, 0, 1, 2]] * [0.5, 0.5, 1, 1],
        objective.kl_weight,
    )
    space = SimplexMap.identity(("a1", "a2", "b", "c"))
    split = solve(MixtureProblem(halves, space, np.array([0.3, 0.3, 0.7, 0.8])))
    np.testing.assert_allclose([split.weights[:2].sum(), *split.weights[2:]], whole.weights, atol=1e-6)
    assert split.weights[0] == pytest.approx(split.weights[1], abs=1e-6)


def test_permuting_domains_permutes_the_answer() -> None:
    problem = problem_of(11, np.array([0.5, 0.6, 0.7]))
    order = [2, 0, 1]
    objective = problem.objective
    permuted = MixtureProblem(
        Objective(
            objective.coefficients[:, order],
            objective.task_weights,
            objective.prior[order],
            objective.kl_weight,
        ),
        SimplexMap.identity(tuple(NAMES[j] for j in order)),
        problem.caps[order],
    )
    np.testing.assert_allclose(solve(permuted).weights, solve(problem).weights[order], atol=1e-7)


def test_all_ones_are_the_same_as_no_weights_and_their_scale_plays_no_part() -> None:
    np.testing.assert_allclose(normalized(np.ones(4)), normalized(np.full(4, 17.0)))


def test_frozen_ratios_hold_and_leaf_caps_too() -> None:
    objective = problem_of(5, np.full(3, np.inf)).objective
    space = SimplexMap.freeze(NAMES, {"ab": {"a": 3, "b": 1}})
    caps = np.array([0.3, 0.9, 0.9])
    solution = solve(MixtureProblem(objective, space, caps))
    assert solution.weights[0] == pytest.approx(3 * solution.weights[1], rel=1e-9)
    assert (solution.weights <= caps).all()


def test_constraints_that_cannot_hold_together_are_named() -> None:
    caps = np.array([0.2, np.inf, np.inf])
    pinned = LinearConstraint("a is half", {"a": 1}, lower=0.5, upper=0.5)
    with pytest.raises(Infeasible, match="a"):
        solve(problem_of(0, caps, constraints=(pinned,)))
    with pytest.raises(Infeasible):
        solve(problem_of(0, np.array([0.2, 0.3, 0.4])))


def test_many_solves_agree_with_one() -> None:
    problem = problem_of(21, np.array([0.5, 0.6, 0.9]))
    batch = np.stack([problem_of(seed, problem.caps).objective.coefficients for seed in range(5)])
    together = solve_many(problem, batch)
    for coefficients, weights in zip(batch, together, strict=True):
        objective = Objective(
            coefficients, problem.objective.task_weights, problem.objective.prior, problem.objective.kl_weight
        )
        alone = solve(MixtureProblem(objective, problem.space, problem.caps))
        np.testing.assert_allclose(weights, alone.weights, atol=1e-5)
