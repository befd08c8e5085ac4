from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.laws.exponential.log_linear import FittedLogLinear
from mixing.solve import interior_point
from mixing.solve.conic import task_cones
from mixing.solve.exact import solve
from mixing.solve.interior_point import ConvexProgram, certified_gap, lower_bound, objective_value
from mixing.solve.problem import GuardRail, MixtureProblem
from mixing.solve.search import Region
from tests.mixing.solve.problems import (
    LAWS,
    at_least,
    names,
    pinned_at,
    problem_of,
    share_between,
    single_tasks,
)


def everything(seed: int, law: type, families: bool) -> MixtureProblem:
    """Caps, a group's share, a pin, a minimum and a guard rail that some mixtures break."""
    every = names(6)
    constraints = (
        share_between("group", every[:2], 0.1, 0.5),
        pinned_at(every[2], 0.2),
        at_least(every[3], 0.05),
    )
    problem = problem_of(
        seed,
        6,
        law=law,
        caps=np.full(6, 0.4),
        constraints=constraints,
        families=single_tasks(5)[:3] * families,
    )
    middle = Region.of(problem).inside
    bound = problem.objective.law.predict(middle[None])[0][0, 4] + 0.01
    return replace(problem, guard_rails=(GuardRail(single_tasks(5)[4], float(bound)),))


def of(problem: MixtureProblem) -> ConvexProgram:
    pull_back = problem.pull_back
    return ConvexProgram.of(problem.objective, pull_back, problem.system, problem.guard_rails)


@given(seed=st.integers(0, 10**6), law=st.sampled_from(LAWS), families=st.booleans())
@hypothesis_settings(max_examples=12)
def test_the_lower_bound_holds_for_any_point_and_any_multipliers(
    seed: int, law: type, families: bool
) -> None:
    problem = everything(seed, law, families)
    program, generator = of(problem), np.random.default_rng(seed)
    optimum = solve(problem)
    assert optimum.gap <= 1e-9
    for scale in (1e-3, 1.0):
        point = Region.of(problem).draw(problem.objective.prior, 1, generator)[0]
        multipliers = scale * generator.exponential(size=len(program.bound))
        prices = scale * generator.normal(size=len(program.value))
        assert lower_bound(program, point, multipliers, prices) <= optimum.value + 1e-12
        gap = certified_gap(program, point, multipliers, prices)
        assert np.isinf(gap) or objective_value(program, point) - optimum.value <= gap + 1e-12


def test_a_point_outside_the_constraints_has_no_certificate() -> None:
    problem = everything(1, LAWS[0], families=False)
    program = of(problem)
    outside = np.array([0.5, 0.1, 0.2, 0.1, 0.05, 0.05])
    multipliers = np.zeros(len(program.bound))
    assert np.isinf(certified_gap(program, outside, multipliers, np.zeros(len(program.value))))


@pytest.mark.parametrize("law", LAWS)
def test_a_conic_solver_steps_in_where_the_interior_point_method_ends_early(
    law: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = everything(3, law, families=True)
    exact = solve(problem).value

    def hasty(program: ConvexProgram, start: np.ndarray, **_: Any) -> interior_point.Iterate:
        return interior_point.minimize(program, start, iterations=2)

    monkeypatch.setattr("mixing.solve.exact.minimize", hasty)
    solution = solve(problem)
    assert 1e-9 < solution.gap < 1e-5
    assert exact - 1e-9 <= solution.value <= exact + solution.gap + 1e-9


def test_the_conic_form_of_the_log_linear_law_is_its_prediction() -> None:
    generator = np.random.default_rng(0)
    law = FittedLogLinear(
        generator.normal(size=(4, 3)),
        generator.uniform(size=4),
        np.ones(4),
        np.ones((4, 4, 4)),
        np.ones((9, 4)),
    )
    weights, tasks = np.array([0.2, 0.3, 0.5]), np.array([0, 2, 3])
    cones = task_cones(law, cp.Constant(weights), tasks)
    np.testing.assert_allclose(cones.value, law.predict(weights[None])[0][0, tasks])
