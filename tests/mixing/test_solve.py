from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmarks.laws import ExponentialLaw
from mixing.errors import InvalidSetting, InvalidWeights
from mixing.simplex_map import SimplexMap
from mixing.solve.conic import solve_conic
from mixing.solve.constraints import LinearConstraint
from mixing.solve.exact import solve
from mixing.solve.problem import GuardRail, MixtureProblem, RepetitionCost, TaskMean
from tests.mixing.solve.problems import (
    LAWS,
    at_least,
    grid,
    names,
    pinned_at,
    problem_of,
    share_between,
    single_tasks,
)

CAPS = np.array([0.5, 0.45, 0.8])
CERTIFIED = 1e-9


def with_objective(problem: MixtureProblem, **changes: object) -> MixtureProblem:
    return replace(problem, objective=replace(problem.objective, **changes))


def permuted(problem: MixtureProblem, order: list[int]) -> MixtureProblem:
    law = problem.objective.law
    assert isinstance(law, ExponentialLaw)
    changed = with_objective(
        problem,
        law=replace(law, coefficients=law.coefficients[:, order]),
        prior=problem.objective.prior[order],
    )
    space = SimplexMap.identity([problem.space.leaves[j] for j in order])
    return replace(changed, space=space, caps=problem.caps[order])


@pytest.mark.parametrize("law", LAWS)
@given(seed=st.integers(0, 10**6), kl_weight=st.sampled_from([0.0, 0.05, 0.5]))
@hypothesis_settings(max_examples=8)
def test_no_point_of_a_fine_grid_is_better(law: type, seed: int, kl_weight: float) -> None:
    problem = problem_of(seed, 3, law=law, kl_weight=kl_weight, caps=CAPS)
    solution = solve(problem)
    points = grid(3, 60)
    best = min(problem.objective.value(point) for point in points[(points <= CAPS + 1e-12).all(1)])
    assert solution.value <= best + CERTIFIED
    assert best - solution.value < 0.05, "the objective is Lipschitz on a cell, so the grid cannot be far off"


@pytest.mark.parametrize("law", LAWS)
@given(seed=st.integers(0, 10**6), domains=st.integers(3, 40))
@hypothesis_settings(max_examples=8)
def test_the_gap_is_certified_and_the_caps_hold_to_the_last_bit(law: type, seed: int, domains: int) -> None:
    caps = np.random.default_rng(seed).uniform(1.5 / domains, 4 / domains, domains)
    for kl_weight in (0.05, 0.0):
        solution = solve(problem_of(seed, domains, law=law, caps=caps, kl_weight=kl_weight))
        assert solution.gap <= CERTIFIED
        assert (solution.weights <= caps).all()
        assert solution.weights.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kl_weight", [0.0, 1e-6, 0.05])
@pytest.mark.parametrize("cap", [1e-6, 1e-7])
def test_a_domain_that_can_hardly_give_anything_does_not_keep_the_others_from_their_best(
    cap: float, kl_weight: float
) -> None:
    """Its whole cap is below what a linear programme usually takes for zero."""
    caps = np.array([cap, 0.6, 0.3, 0.3, 0.2])
    share = share_between("first two", names(5)[:2], 0.05, 0.4)
    problem = problem_of(110, 5, tasks=3, kl_weight=kl_weight, caps=caps, constraints=(share,))
    solution, conic = solve(problem), solve_conic(problem, problem.system)
    assert solution.gap <= 1e-5
    assert (solution.weights <= caps).all()
    assert conic is not None
    assert solution.value <= problem.objective.value(np.maximum(conic.free, 0.0)) + 1e-6


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kl_weight", [0.0, 0.05])
def test_a_conic_solver_agrees_on_everything_at_once(law: type, kl_weight: float) -> None:
    share = share_between("first two", names(5)[:2], 0.3, 0.5)
    least = at_least("d0003", 0.05)
    problem = problem_of(
        4, 5, law=law, tasks=3, kl_weight=kl_weight, caps=np.full(5, 0.4), constraints=(share, least)
    )
    problem = with_objective(
        problem, families=single_tasks(3), repetition=RepetitionCost(0.2, np.full(5, 0.15))
    )
    solution = solve(problem)
    assert solution.gap <= CERTIFIED
    conic = solve_conic(problem, problem.system)
    assert conic is not None
    assert solution.value <= problem.objective.value(conic.free) + 1e-7
    np.testing.assert_allclose(solution.weights, conic.free, atol=2e-3)


@pytest.mark.parametrize("law", LAWS)
def test_the_worst_family_is_that_of_brute_force(law: type) -> None:
    problem = problem_of(12, 4, law=law, tasks=4, kl_weight=0.02, caps=np.full(4, 0.6))
    halves = problem.objective.task_weights * np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    families = tuple(TaskMean(f"half {k}", half / half.sum()) for k, half in enumerate(halves))
    worst = with_objective(problem, families=families)
    solution = solve(worst)
    assert solution.gap <= CERTIFIED

    def value(weights: np.ndarray) -> float:
        predicted = worst.objective.law.predict(weights[None])[0][0]
        means = [
            np.average(predicted[rows], weights=worst.objective.task_weights[rows])
            for rows in (slice(0, 2), slice(2, 4))
        ]
        return max(means) + 0.02 * float(np.sum(weights * np.log(weights / worst.objective.prior)))

    points = grid(4, 30)
    points = points[(points <= 0.6 + 1e-12).all(1) & (points > 0).all(1)]
    best = min(value(point) for point in points)
    assert solution.value == pytest.approx(value(solution.weights), abs=1e-12)
    assert best - 0.05 < solution.value <= best + CERTIFIED
    assert sum(item.price for item in solution.active if item.kind == "family") == pytest.approx(1, abs=1e-6)


def test_the_worst_of_one_family_is_its_mean() -> None:
    problem = problem_of(2, 6)
    family = TaskMean("all", problem.objective.task_weights)
    worst = solve(with_objective(problem, families=(family,)))
    np.testing.assert_allclose(worst.weights, solve(problem).weights, atol=1e-5)


@pytest.mark.parametrize("law", LAWS)
def test_guard_rails_are_kept_and_cost_what_their_price_says(law: type) -> None:
    problem = problem_of(6, 6, law=law)
    free = solve(problem)
    task = single_tasks(5)[2]

    def guarded(bound: float) -> MixtureProblem:
        return replace(problem, guard_rails=(GuardRail(task, bound),))

    alone = solve(with_objective(problem, task_weights=task.weights, kl_weight=0.0)).value
    now = problem.objective.law.predict(free.weights[None])[0][0, 2]
    bound = alone + 0.4 * (now - alone)
    solution = solve(guarded(bound))
    assert solution.gap <= CERTIFIED
    assert problem.objective.law.predict(solution.weights[None])[0][0, 2] <= bound + 1e-9
    assert solution.value > free.value
    (rail,) = (item for item in solution.active if item.kind == "guard_rail")
    step = 1e-4 * (now - alone)
    slope = (solve(guarded(bound - step)).value - solve(guarded(bound + step)).value) / (2 * step)
    assert rail.price == pytest.approx(slope, rel=1e-3)


def priced(kind: str, problem: MixtureProblem, step: float) -> MixtureProblem:
    """The problem with one bound moved by `step` in the direction in which its price is stated."""
    if kind == "cap":
        return replace(problem, caps=problem.caps + step * (np.arange(len(problem.caps)) == 0))
    constraints = list(problem.constraints)
    index = {"share": 0, "pin": 1, "minimum": 2}[kind]
    old = constraints[index]
    moved = {
        "share": replace(old, upper=old.upper + step),
        "pin": replace(old, lower=old.lower + step, upper=old.upper + step),
        "minimum": replace(old, lower=old.lower - step),
    }
    constraints[index] = moved[kind]
    return replace(problem, constraints=tuple(constraints))


@pytest.mark.parametrize("kind", ["cap", "share", "pin", "minimum"])
@pytest.mark.parametrize("law", LAWS)
def test_a_shadow_price_is_what_relaxing_the_bound_gains(law: type, kind: str) -> None:
    every = names(6)
    constraints = (
        share_between("group", every[1:3], 0.0, 0.12),
        pinned_at(every[3], 0.3),
        at_least(every[4], 0.25),
    )
    caps = np.array([0.1, *[np.inf] * 5])
    problem = problem_of(3, 6, law=law, caps=caps, constraints=constraints)
    solution = solve(problem)
    wanted = {"cap": every[0], "share": "group", "pin": constraints[1].name, "minimum": constraints[2].name}
    (item,) = (item for item in solution.active if item.name == wanted[kind])
    assert item.bound == {"cap": 0.1, "share": 0.12, "pin": 0.3, "minimum": 0.25}[kind]
    step = 1e-4
    slope = (solve(priced(kind, problem, -step)).value - solve(priced(kind, problem, step)).value) / (
        2 * step
    )
    assert item.price == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_the_price_of_a_cap_is_the_same_from_both_methods() -> None:
    problem = problem_of(9, 20)
    quick = solve(problem)
    idle = share_between("everything", names(20), 0.0, 2.0)
    general = solve(replace(problem, constraints=(idle,)))
    np.testing.assert_allclose(quick.weights, general.weights, atol=1e-6)
    np.testing.assert_allclose(quick.cap_prices, general.cap_prices, atol=1e-6)
    assert quick.cap_prices.max() > 1e-3


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=10)
def test_adding_a_constraint_never_improves_the_optimum(seed: int) -> None:
    plain = problem_of(seed, 3, caps=np.full(3, np.inf))
    capped = replace(plain, caps=np.array([0.5, np.inf, np.inf]))
    share = share_between("two", names(3)[:2], 0.3, 0.6)
    both = replace(capped, constraints=(share,))
    values = [solve(problem).value for problem in (plain, capped, both)]
    assert values[0] <= values[1] + CERTIFIED
    assert values[1] <= values[2] + CERTIFIED
    assert 0.3 - 1e-9 <= solve(both).weights[:2].sum() <= 0.6 + 1e-9


@pytest.mark.parametrize("kl_weight", [0.05, 0.0])
def test_splitting_a_domain_into_halves_changes_nothing_but_their_sum(kl_weight: float) -> None:
    problem = problem_of(3, 3, caps=np.array([0.6, 0.7, 0.8]), kl_weight=kl_weight)
    law = problem.objective.law
    assert isinstance(law, ExponentialLaw)
    split = with_objective(
        problem,
        law=replace(law, coefficients=law.coefficients[:, [0, 0, 1, 2]]),
        prior=problem.objective.prior[[0, 0, 1, 2]] * [0.5, 0.5, 1, 1],
    )
    space = SimplexMap.identity(("a1", "a2", "b", "c"))
    halves = solve(replace(split, space=space, caps=np.array([0.3, 0.3, 0.7, 0.8])))
    whole = solve(problem)
    assert halves.value == pytest.approx(whole.value, abs=2e-9)
    np.testing.assert_allclose([halves.weights[:2].sum(), *halves.weights[2:]], whole.weights, atol=1e-4)


@given(st.integers(0, 10**6), st.permutations(range(5)))
@hypothesis_settings(max_examples=10)
def test_permuting_domains_permutes_the_answer(seed: int, order: list[int]) -> None:
    problem = problem_of(seed, 5)
    np.testing.assert_allclose(
        solve(permuted(problem, order)).weights, solve(problem).weights[order], atol=1e-5
    )


def test_frozen_ratios_hold_and_the_first_member_to_run_out_caps_them() -> None:
    problem = problem_of(5, 3, caps=np.array([0.15, 0.9, 0.9]))
    every = names(3)
    space = SimplexMap.freeze(every, {"frozen": {every[0]: 3, every[1]: 1}})
    solution = solve(replace(problem, space=space))
    assert solution.gap <= CERTIFIED
    assert solution.weights[0] == pytest.approx(3 * solution.weights[1], rel=1e-9)
    assert solution.weights[0] <= 0.15

    def value(cap: float) -> float:
        return solve(replace(problem, space=space, caps=np.array([cap, 0.9, 0.9]))).value

    slope = (value(0.15 - 1e-4) - value(0.15 + 1e-4)) / 2e-4
    assert solution.cap_prices[0] == pytest.approx(max(slope, 0), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kl_weight", [0.05, 0.0])
def test_columns_that_share_leaves(kl_weight: float) -> None:
    # Both columns reach the second leaf, and no column reaches the fourth.
    space = SimplexMap(names(4), ("x", "y"), np.array([[0.7, 0.0], [0.3, 0.2], [0.0, 0.8], [0.0, 0.0]]))
    problem = replace(problem_of(5, 4, caps=np.full(4, 0.9), kl_weight=kl_weight), space=space)
    solution = solve(problem)
    assert solution.gap <= CERTIFIED
    values = [problem.objective.value(space.expand(np.array([x, 1 - x]))) for x in np.linspace(0, 1, 2001)]
    assert min(values) - 1e-5 < solution.value <= min(values) + CERTIFIED


def test_constraints_that_leave_a_face_or_a_point_are_solved_on_it() -> None:
    every = names(5)
    zero = LinearConstraint("none of it", {every[0]: 1.0, every[1]: 1.0}, upper=0.0)
    problem = problem_of(2, 5, caps=np.full(5, 0.7), constraints=(zero,), kl_weight=0.05)
    solution = solve(problem)
    assert solution.gap <= CERTIFIED
    assert solution.weights[:2].max() <= 1e-12
    law = problem.objective.law
    assert isinstance(law, ExponentialLaw)
    rest = with_objective(
        problem, law=replace(law, coefficients=law.coefficients[:, 2:]), prior=problem.objective.prior[2:]
    )
    smaller = replace(rest, space=SimplexMap.identity(every[2:]), caps=np.full(3, 0.7), constraints=())
    assert solution.value == pytest.approx(solve(smaller).value, abs=2e-9)

    point = problem_of(2, 3, caps=np.array([0.5, 0.3, 0.2]), kl_weight=0.0)
    np.testing.assert_allclose(solve(point).weights, point.caps, atol=1e-9)


def test_pins_that_say_the_same_twice_are_no_trouble() -> None:
    every = names(4)
    pins = (
        pinned_at(every[0], 0.3),
        pinned_at(every[1], 0.2),
        share_between("both", every[:2], 0.5, 0.5),
    )
    solution = solve(problem_of(1, 4, caps=np.full(4, 0.6), constraints=pins))
    assert solution.gap <= CERTIFIED
    np.testing.assert_allclose(solution.weights[:2], [0.3, 0.2], atol=1e-9)


def test_a_cap_of_nothing_leaves_a_domain_out() -> None:
    solution = solve(problem_of(1, 4, caps=np.array([0.0, 0.7, 0.7, 0.7])))
    assert solution.gap <= CERTIFIED
    assert solution.weights[0] == 0


def test_two_constraints_of_one_name_are_refused() -> None:
    twice = share_between("group", names(3)[:2], 0.1, 0.5)
    with pytest.raises(InvalidSetting, match="'group'"):
        problem_of(1, 3, constraints=(twice, twice))
    with pytest.raises(InvalidSetting, match="'d0000'"):
        problem_of(1, 3, constraints=(replace(twice, name="d0000"),))


def test_families_and_guard_rails_over_other_tasks_are_refused() -> None:
    with pytest.raises(InvalidWeights, match="'task 0' weighs 4 tasks"):
        problem_of(1, 3, tasks=5, families=single_tasks(4))
