"""Couplings against the objective itself, on parabolas, for which one Newton step is exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from mixing.laws.regression import Expansion, Fitted
from mixing.simplex_map import SimplexMap
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem, Objective
from mixing.solve.solution import couplings

NAMES = ("a", "b", "c", "d")


class Parabola(Fitted):
    """y(p) = |F p - y|^2 / 2."""

    def __init__(self, factors: np.ndarray, aim: np.ndarray) -> None:
        self.factors, self.aim = factors, aim

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = np.square(weights @ self.factors.T - self.aim).sum(axis=1, keepdims=True) / 2
        return values, np.zeros_like(values)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return ((weights @ self.factors.T - self.aim) @ self.factors)[:, None]

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        return Expansion(
            float(self.predict(weights[None])[0][0, 0]),
            self.gradient(weights[None])[0, 0],
            np.zeros(len(weights)),
            self.factors,
        )


def problem_of(law: Parabola, caps: np.ndarray) -> MixtureProblem:
    objective = Objective(law, np.ones(1), np.full(4, 0.25), 0.0)
    return MixtureProblem(objective, SimplexMap.identity(NAMES), caps)


@given(st.integers(0, 2**32 - 1))
def test_keeping_a_ratio_costs_what_moving_it_would_gain(seed: int) -> None:
    generator = np.random.default_rng(seed)
    law = Parabola(generator.normal(size=(6, 4)), generator.normal(size=6))
    caps = generator.uniform(0.4, 1.0, 4)
    problem = problem_of(law, caps)
    best = solve(problem).weights
    found = couplings(problem, best)
    assert found is not None
    assert (found >= 0).all()
    assert not found.diagonal().any()

    def gain(at: np.ndarray, direction: np.ndarray, weight: float, cap: float) -> float:
        def value(step: float) -> float:
            return float(law.predict((at + step * direction)[None])[0][0, 0])

        moved = minimize_scalar(value, bounds=(-weight, max(cap - weight, 0.0)), method="bounded")
        ends = min(value(-weight), value(max(cap - weight, 0.0)), moved.fun)
        return max(value(0.0) - ends, 0.0)

    for a, j in ((0, 1), (2, 3)):
        if best[a] < 1e-6:
            assert found[a, j] < 1e-9
            continue
        others = np.where(np.arange(4) == a, 0.0, np.maximum(best, 1e-12))
        others /= others.sum()
        direction = np.eye(4)[j] - others
        costs = []
        for sign in (1, -1):
            change = sign * best[a] * (others - np.eye(4)[a])
            weight = max(best[j] + change[j], 0.0)
            at_best = gain(best, direction, weight, caps[j])
            costs.append(gain(best + change, direction, weight, caps[j]) - at_best)
        assert found[a, j] == pytest.approx(max(*costs, 0.0), abs=1e-5)


def test_domains_that_no_task_reads_together_are_not_coupled_through_it() -> None:
    # Each task is about one domain, and a's is of no consequence for the ratio of the others.
    apart = Parabola(np.diag([3.0, 1.0, 1.0, 1.0]), np.array([3.0, 1.0, 1.0, 1.0]) * 0.25)
    found = couplings(problem_of(apart, np.ones(4)), np.full(4, 0.25))
    assert found is not None
    np.testing.assert_allclose(found[0, 1:], 0, atol=1e-12)
    # The same text twice: what a loses, b should make up for.
    twins = Parabola(
        np.array([[1.0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]), np.array([0.5, 0.25, 0.25])
    )
    found = couplings(problem_of(twins, np.ones(4)), np.full(4, 0.25))
    assert found is not None
    assert found[0, 1] > 3 * max(found[0, 2], found[0, 3])


def test_a_law_whose_curvature_nobody_promises_tells_no_couplings() -> None:
    class Bare(Fitted):
        def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return weights[:, :1], 0 * weights[:, :1]

    objective = Objective(Bare(), np.ones(1), np.full(4, 0.25), 0.0)
    problem = MixtureProblem(objective, SimplexMap.identity(NAMES), np.ones(4))
    assert couplings(problem, np.full(4, 0.25)) is None
