"""Successive convex problems: down a law that has slopes and promises no curvature, to where no step gains any more.

At a mixture the law is replaced by its slope and what of its curvature bends upwards (`Fitted.local`), and the
distance to the runs by that to the one which is nearest there. What that leaves is convex, with the KL term, the caps
and the constraints as they are, and is solved exactly; of the way to its optimum the best part is gone. That takes
three to eight steps where a search by random moves takes tens of thousands of predictions.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import cdist

from mixing.laws.regression import Expansion, Fitted
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem

_SHARES = np.array([1.0, 0.5, 0.25, 0.1, 0.03, 0.01])
"""Parts of the way that are tried."""
_INSIDE = 1e-6
"""Weight at which slopes are taken where there is less; a root has none at 0."""
_ROUND = 3e-4
"""Weight over which the kink of a distance is rounded."""
_EXACT = 1e-5
"""Gap to which each of the problems is solved."""
_BROKEN = 1e3  # what a guard rail broken by 1 counts


@dataclass
class Score:
    """What is minimised, as a function of q: the objective, the distance and broken guard rails; it counts."""

    problem: MixtureProblem
    evidence_weights: np.ndarray | None
    distance_penalty: float
    evaluations: int = 0

    def __call__(self, free: np.ndarray) -> np.ndarray:
        """(N,) of (N, n) q."""
        weights = self.problem.space.expand(free)
        self.evaluations += len(weights)
        predictions = self.problem.objective.law.mean(weights)
        value = self.problem.objective.of_predictions(predictions, weights)
        value = value + _BROKEN * np.maximum(self.problem.excess(predictions), 0.0)
        if self.distance_penalty > 0:
            value = value + self.distance_penalty * self.distance(weights)
        return value

    def distance(self, weights: np.ndarray) -> np.ndarray:
        """(n,) L1 distance to the nearest run."""
        assert self.evidence_weights is not None
        return cdist(weights, self.evidence_weights, "cityblock").min(axis=1)

    def slope(self, free: np.ndarray) -> np.ndarray | None:
        """(n, width) gradient of the law's mean over tasks, or None where the law has none."""
        objective = self.problem.objective
        if not objective.law.has_gradient:
            return None
        slopes = objective.law.gradient(self.problem.space.expand(free))
        self.evaluations += len(free)
        return np.einsum("ntm,t->nm", slopes, objective.task_weights) @ self.problem.space.matrix


@dataclass(frozen=True)
class _Around(Fitted):
    """A law's convex approximation at a mixture, as the one task of a problem, and a price on the way to a run.

    Attributes:
        at: (m,) the mixture.
        expansion: of the law there.
        run: (m,) the run.
        price: of a unit of L1 distance from it.
    """

    at: np.ndarray
    expansion: Expansion
    run: np.ndarray
    price: float

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        moved, here = weights - self.at, self.expansion
        bent, along = here.factors @ moved, here.diagonal * moved
        value = here.value + here.gradient @ moved + 0.5 * (bent @ bent + along @ moved)
        away = weights - self.run
        round_distance = np.sqrt(away**2 + _ROUND**2)
        share = float(task_weights[0])
        whole = replace(here, value=value, gradient=here.gradient + bent @ here.factors + along).plus(
            self.price * float((round_distance - _ROUND).sum()),
            self.price * away / round_distance,
            self.price * _ROUND**2 / round_distance**3,
        )
        return Expansion(
            share * whole.value,
            share * whole.gradient,
            share * whole.diagonal,
            np.sqrt(share) * whole.factors,
        )


def can_descend(problem: MixtureProblem) -> bool:
    """Whether the objective has slopes everywhere: a worst family has none where two are equal, nor a guard rail."""
    return problem.objective.law.has_gradient and not (problem.objective.families or problem.guard_rails)


def descend(
    problem: MixtureProblem, score: Score, start: tuple[np.ndarray, float], steps: int, tolerance: float
) -> tuple[np.ndarray, float]:
    """From a (n,) q and its score down to another: at most so many steps, each of which gains `tolerance`.

    Args:
        problem: one that `can_descend`.
        score: what is minimised.
        start: inside the constraints.
        steps: most of them.
        tolerance: in the objective's unit.
    """
    free, value = start
    objective, runs = problem.objective, score.evidence_weights
    for _ in range(steps):
        weights = np.maximum(problem.space.expand(free), _INSIDE)
        expansion = objective.law.local(weights, objective.task_weights)
        assert expansion is not None, "a law with a gradient has an expansion"
        run = weights if runs is None else runs[np.abs(runs - weights).sum(axis=1).argmin()]
        around = _Around(weights, expansion, run, score.distance_penalty)
        there = solve(
            replace(problem, objective=replace(objective, law=around, task_weights=np.ones(1))), _EXACT
        )
        way = problem.space.collapse(there.weights) - free
        tried = free + _SHARES[:, None] * way
        scores = score(tried)
        best = int(scores.argmin())
        gained = value - scores[best]
        if gained > 0:
            free, value = tried[best], float(scores[best])
        if gained <= tolerance:
            break
    return free, value
