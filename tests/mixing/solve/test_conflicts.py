from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from mixing.domains import Domains
from mixing.errors import Infeasible
from mixing.limits import Limits
from mixing.solve.conflicts import is_feasible, linear_conflict
from mixing.solve.constraints import LinearConstraint, share_of
from mixing.solve.exact import solve
from mixing.solve.problem import GuardRail, MixtureProblem
from tests.mixing.solve.problems import names, pinned_at, problem_of, share_between, single_tasks

EVERY = names(6)
OPEN = np.full(6, np.inf)


def with_constraints(*constraints: LinearConstraint, caps: np.ndarray = OPEN) -> MixtureProblem:
    return problem_of(0, 6, caps=caps, constraints=constraints)


def possible(problem: MixtureProblem, chosen: tuple[str, ...]) -> bool:
    """By a linear programme of its own over the constraints and caps that are named."""
    rows, bounds = [], []
    for constraint in problem.constraints:
        if constraint.name in chosen:
            row = constraint.row(EVERY)
            for sign, end in ((1, constraint.upper), (-1, constraint.lower)):
                if np.isfinite(end):
                    rows.append(sign * row)
                    bounds.append(sign * end)
    upper = [min(cap, 1) if name in chosen else 1 for name, cap in zip(EVERY, problem.caps, strict=True)]
    solved = linprog(
        np.zeros(6),
        np.array(rows).reshape(-1, 6),
        bounds,
        np.ones((1, 6)),
        [1.0],
        [(0, cap) for cap in upper],
    )
    return solved.status == 0


def test_two_of_many_constraints_are_named_and_nothing_else() -> None:
    problem = with_constraints(
        share_between("code", EVERY[:2], 0.4, 0.6),
        share_between("web", EVERY[2:4], 0.1, 0.9),
        pinned_at(EVERY[0], 0.5),
        caps=np.array([0.2, 0.9, 0.9, 0.9, 0.9, 0.9]),
    )
    with pytest.raises(Infeasible, match=r"by 0\.3") as refused:
        solve(problem)
    assert set(refused.value.names) == {EVERY[0], "d0000 at 0.5"}
    assert refused.value.field == "constraints"


def test_caps_that_cannot_hold_a_mixture_are_all_needed_for_the_conflict() -> None:
    with pytest.raises(Infeasible, match="relaxes") as refused:
        solve(problem_of(0, 3, caps=np.array([0.2, 0.3, 0.4])))
    assert refused.value.names == names(3)


def test_one_constraint_that_no_mixture_satisfies_is_the_smallest_conflict() -> None:
    # The pair is in conflict too; the set of one is smaller.
    problem = with_constraints(
        share_between("low", EVERY[:3], 0.0, 0.3),
        share_between("high", EVERY[:3], 0.6, 1.0),
        LinearConstraint("beyond", dict.fromkeys(EVERY, 1.0), lower=1.5),
    )
    conflict = linear_conflict(problem.system)
    assert conflict.constraints == ("beyond",)
    assert conflict.is_smallest


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=12)
def test_the_set_is_the_smallest_in_conflict_and_the_relaxation_ends_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    constraints = []
    for index in range(4):
        group = generator.choice(EVERY, size=generator.integers(1, 4), replace=False)
        lower = generator.uniform(0.2, 0.7)
        constraints.append(share_between(f"share {index}", list(group), lower, lower + 0.1))
    problem = with_constraints(*constraints, caps=generator.uniform(0.1, 0.5, 6))
    system = problem.system
    if is_feasible(system):
        assert possible(problem, system.names)
        return
    conflict = linear_conflict(system)
    assert not possible(problem, conflict.constraints)
    for size in range(len(conflict.constraints)):
        assert all(possible(problem, chosen) for chosen in combinations(system.names, size))
    assert conflict.is_smallest
    eased = with_constraints(
        *(
            replace(
                item,
                lower=item.lower - conflict.relaxation.get(item.name, 0.0),
                upper=item.upper + conflict.relaxation.get(item.name, 0.0),
            )
            for item in problem.constraints
        ),
        caps=problem.caps + [conflict.relaxation.get(name, 0.0) + 1e-12 for name in EVERY],
    )
    assert is_feasible(eased.system)
    total = sum(conflict.relaxation.values())
    less = with_constraints(
        *(
            replace(item, lower=item.lower - 0.9 * total / 10, upper=item.upper + 0.9 * total / 10)
            for item in problem.constraints
        ),
        caps=problem.caps + 0.9 * total / 10,
    )
    assert not is_feasible(less.system), "ten bounds moved by less than the total in sum"


def test_guard_rails_that_no_mixture_keeps_are_named() -> None:
    problem = problem_of(6, 6)
    tasks = single_tasks(5)
    lowest = [
        solve(
            replace(problem, objective=replace(problem.objective, task_weights=task.weights, kl_weight=0.0))
        ).value
        for task in tasks
    ]
    impossible = GuardRail(tasks[1], lowest[1] - 0.01)
    easy = GuardRail(tasks[0], 10.0)
    with pytest.raises(Infeasible) as refused:
        solve(replace(problem, guard_rails=(easy, impossible)))
    assert "task 1" in refused.value.names
    assert "task 0" not in refused.value.names
    solve(replace(problem, guard_rails=(easy, GuardRail(tasks[1], lowest[1] + 1e-3))))


def test_two_guard_rails_may_conflict_where_each_can_be_kept() -> None:
    problem = problem_of(6, 6, caps=OPEN)
    tasks = single_tasks(5)

    def lowest(weights: np.ndarray) -> float:
        objective = replace(problem.objective, task_weights=weights, kl_weight=0.0)
        return solve(replace(problem, objective=objective)).value

    both = replace(problem.objective, families=tasks[:2], kl_weight=0.0)
    worst = solve(replace(problem, objective=both)).value
    bound = worst - 1e-3
    assert max(lowest(task.weights) for task in tasks[:2]) < bound
    rails = tuple(GuardRail(task, bound) for task in tasks[:2])
    with pytest.raises(Infeasible, match=r"by 0\.001") as refused:
        solve(replace(problem, guard_rails=rails))
    assert set(refused.value.names) == {"task 0", "task 1"}


def test_a_thousand_caps_that_are_too_small_are_told_without_a_thousand_trials() -> None:
    problem = problem_of(0, 1000, caps=np.full(1000, 0.9e-3))
    with pytest.raises(Infeasible, match="and 990 more") as refused:
        solve(problem)
    assert refused.value.names == names(1000)


def test_a_cap_that_keeps_a_guard_rail_out_of_reach_is_named_with_it() -> None:
    open_problem = problem_of(3, 12, caps=np.full(12, np.inf), kl_weight=0.0)
    task = single_tasks(5)[0]
    alone = replace(open_problem, objective=replace(open_problem.objective, task_weights=task.weights))
    reachable = solve(alone)
    best = int(np.argmax(reachable.weights))
    caps = np.where(np.arange(12) == best, reachable.weights[best] / 2, 1.0)
    capped = solve(replace(alone, caps=caps)).value
    rail = GuardRail(task, (reachable.value + capped) / 2)
    with pytest.raises(Infeasible) as refused:
        solve(replace(open_problem, caps=caps, guard_rails=(rail,)))
    assert set(refused.value.names) == {"task 0", names(12)[best]}


def test_of_two_hundred_shares_over_two_thousand_domains_those_are_named_that_are_too_much_together() -> None:
    leaves = names(2000)
    shares = tuple(
        share_of(leaves[10 * i : 10 * i + 10], leaves, minimum=0.01, name=f"share {i}") for i in range(200)
    )
    limits = Limits(Domains.of(dict.fromkeys(leaves, 1e9)), target_tokens=4e11, constraints=shares)
    with pytest.raises(Infeasible, match="relaxes") as refused:
        limits.check()
    # A hundred of them sum to 1, and any one more is too much.
    assert len(refused.value.names) == 101
    assert set(refused.value.names) < {share.name for share in shares}


def test_among_thousands_of_caps_the_one_share_in_conflict_is_named_with_its_two() -> None:
    leaves = names(2000)
    generator = np.random.default_rng(1)
    drawn = [generator.choice(leaves[2:], 8, replace=False).tolist() for _ in range(199)]
    shares = [
        share_of(group, leaves, minimum=0.0001, maximum=0.5, name=f"s{i}") for i, group in enumerate(drawn)
    ]
    shares.append(share_of(leaves[:2], leaves, minimum=0.011, name="too much"))
    limits = Limits(Domains.of(dict.fromkeys(leaves, 1e9)), 4e11, repetition_cap=2, constraints=tuple(shares))
    with pytest.raises(Infeasible, match=r"'too much' by 0\.001") as refused:
        limits.check()
    assert set(refused.value.names) == {*leaves[:2], "too much"}


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=25)
def test_shares_and_caps_are_feasible_exactly_where_a_linear_programme_says_so(seed: int) -> None:
    generator = np.random.default_rng(seed)
    constraints = []
    for index in range(6):
        group = generator.choice(EVERY, size=generator.integers(1, 5), replace=False).tolist()
        lower = generator.uniform(0, 0.5)
        constraints.append(share_between(f"share {index}", group, lower, lower + generator.choice([0, 0.2])))
    problem = with_constraints(*constraints, caps=generator.uniform(0.1, 0.9, 6))
    system = problem.system
    assert is_feasible(system) == possible(problem, system.names)
    if not is_feasible(system):
        conflict = linear_conflict(system).constraints
        assert not possible(problem, conflict)
        assert all(possible(problem, tuple(set(conflict) - {name})) for name in conflict)
