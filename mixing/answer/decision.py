"""A decision and not a point: the mixtures that cannot be told apart from the best, and the one of them to take.

The best mixture p* is the best by a law that the runs leave open. Another mixture w cannot be told apart from it
where the 90% interval of p*'s gain over w holds 0: that of `mixing.answer.uncertainty` with w in the place of the
natural distribution, so with the optimism of having chosen p* by these runs, and with what the law misses.

Of those the one nearest to a preferred mixture a, in KL(w || a), lies on the path of

    w(c) = argmin F(w) + c KL(w || a)

under the question's own constraints, which leads from p* at c = 0 towards a, each point the nearest to a of all that
are predicted no worse. c is bisected for the end of the path that still cannot be told apart. Of a law that is convex
each point is certified as p* is, and of any other the best found.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import ndtr

from mixing.answer.uncertainty import CONFIDENCE, DEVIATIONS, GainIntervals, gain_intervals
from mixing.laws.learning import Learned
from mixing.question import Question
from mixing.solve.problem import MixtureProblem, Objective
from mixing.solve.solution import Solution
from mixing.solve.solvers import FittedQuestion, solution_of

Document = dict[str, Any]
_WEIGHTS = (1e-3, 1e3)
"""c, in what the objective varies by over the runs: where the path begins to leave p*, and where it has arrived."""
_STEPS = 8
"""Of the bisection: c is then known to a factor of 1.06."""
_FLOOR = 1e-4
"""Share of the natural distribution in a preferred mixture, so that no domain is infinitely far from it."""
_EFFORT = 0.1
"""Share of a search's evaluations that each point of the path gets: it begins at the one before."""
_SAME = 1e-6
"""L1 distance below which a mixture is the preferred one, solved for."""
_PLACES = 33
"""Weights of a domain that are looked at to each side of its best one, the nearer the denser."""


@dataclass(frozen=True)
class Decision:
    """What was taken in the place of the best.

    Attributes:
        best: (m,) the mixture that is best as predicted.
        chosen: (m,) the one taken, of those that cannot be told apart from it the nearest to the preferred one.
        preferred: (m,).
        gain: of the best over the one taken: predicted, and the ends of its 90% interval.
        preferred_gain: of the best over the preferred mixture, likewise.
        ranges: (2, m) lowest and highest weight of each domain that cannot be told apart from its best one, where the
            others keep their ratios and no constraint is broken.
    """

    best: np.ndarray
    chosen: np.ndarray
    preferred: np.ndarray
    gain: tuple[float, float, float]
    preferred_gain: tuple[float, float, float]
    ranges: np.ndarray

    def document(self, question: Question) -> Document:
        """JSON, by name."""
        names = question.domains.names
        low, high = self.ranges
        return {
            "prefer": "natural" if question.prefer == "natural" else "mixture",
            "best": dict(zip(names, self.best.tolist(), strict=True)),
            "preferred": dict(zip(names, self.preferred.tolist(), strict=True)),
            "gain_of_best": self.gain[0],
            "gain_of_best_interval": list(self.gain[1:]),
            "probability_best_better": _probability(self.gain),
            "gain_over_preferred": self.preferred_gain[0],
            "gain_over_preferred_interval": list(self.preferred_gain[1:]),
            "is_preferred": bool(np.abs(self.chosen - self.preferred).sum() < _SAME),
            "distance": float(np.abs(self.chosen - self.preferred).sum()),
            "distance_of_best": float(np.abs(self.best - self.preferred).sum()),
            "region": {
                name: [least, most]
                for name, least, most in zip(names, low.tolist(), high.tolist(), strict=True)
            },
            "confidence": CONFIDENCE,
        }


def decide(
    fitted: FittedQuestion, learned: Learned, solution: Solution, optima: np.ndarray
) -> tuple[Solution, Decision] | None:
    """The nearest to the preferred mixture of those that cannot be told apart from the best, and what that costs.

    Args:
        fitted: the question, with its problem.
        learned: the law, with its refits.
        solution: the best.
        optima: (B, m) the refits' own.

    Returns:
        None where the question prefers none, or nothing is held out.
    """
    question, refits = fitted.question, learned.refits
    if question.prefer is None or refits is None:
        return None
    best, preferred = solution.weights, question.preferred

    def gain_over(weights: np.ndarray) -> tuple[float, float, float]:
        found = gain_intervals(learned.law, refits, learned.evidence, optima, weights, best)
        values = learned.evidence.groups.value(learned.law.mean(np.stack([weights, best])))
        return float(values[0] - values[1]), *_ends(found)

    chosen = _nearest(fitted, solution, lambda weights: gain_over(weights)[1] <= 0)
    gain = gain_over(chosen.weights)
    room = max(gain[0], gain[0] - gain[1])
    ranges = _ranges(fitted.problem, best, learned.evidence.groups.value, room)
    return chosen, Decision(best, chosen.weights, preferred, gain, gain_over(preferred), ranges)


def _ends(found: GainIntervals) -> tuple[float, float]:
    low, high = found.bounds[-1].tolist()
    return low, high


def _probability(gain: tuple[float, float, float]) -> float:
    """That the best is better, of a normal distribution with this 90% interval."""
    _, low, high = gain
    deviation = (high - low) / (2 * DEVIATIONS)
    return float(ndtr((high + low) / 2 / deviation)) if deviation > 0 else float(high + low > 0)


def _nearest(
    fitted: FittedQuestion, solution: Solution, is_like_best: Callable[[np.ndarray], bool]
) -> Solution:
    """The end of the path towards the preferred mixture that cannot be told apart from the best."""
    preferred = fitted.question.preferred
    if fitted.problem.allows(preferred[None])[0] and is_like_best(preferred):
        return fitted.solution(preferred).in_metric(fitted.problem)
    low, high = map(math.log, _WEIGHTS)
    chosen = solution
    for _ in range(_STEPS):
        middle = (low + high) / 2
        objective = _drawn_to(fitted.problem.objective, preferred, math.exp(middle))
        problem = replace(fitted.problem, objective=objective)
        point = solution_of(replace(fitted, problem=problem, effort=_EFFORT, near=chosen.weights))
        if is_like_best(point.weights):
            low, chosen = middle, point
        else:
            high = middle
    if chosen is solution:
        return solution
    return replace(fitted.solution(chosen.weights).in_metric(fitted.problem), evaluations=chosen.evaluations)


def _drawn_to(objective: Objective, preferred: np.ndarray, weight: float) -> Objective:
    """The objective with `weight` KL(w || preferred) more; two KL terms are one, to a mean of their priors' logs."""
    whole = objective.kl_weight + weight
    towards = (1 - _FLOOR) * preferred + _FLOOR * objective.prior
    share = weight / whole
    prior = np.exp(share * np.log(towards) + (1 - share) * np.log(objective.prior))
    return replace(objective, prior=prior / prior.sum(), kl_weight=whole)


def _ranges(
    problem: MixtureProblem, best: np.ndarray, value: Callable[[np.ndarray], np.ndarray], room: float
) -> np.ndarray:
    """(2, m) how far each domain's weight can move from the best, the others in proportion, within `room`."""
    law, value_of_best = problem.objective.law, float(value(problem.objective.law.mean(best[None]))[0])
    away, ranges = np.linspace(0, 1, _PLACES) ** 2, np.stack([best, best])
    for domain, weight in enumerate(best.tolist()):
        corner = np.arange(len(best)) == domain
        others = np.where(corner, 0.0, best)
        if others.sum() <= 0:
            continue
        for row, end in enumerate((0.0, 1.0)):
            steps = weight + away * (end - weight)
            mixtures = steps[:, None] * corner + (1 - steps)[:, None] * others / others.sum()
            like = (value(law.mean(mixtures)) - value_of_best <= room) & problem.allows(mixtures)
            ranges[row, domain] = steps[max(int(np.logical_and.accumulate(like).sum()) - 1, 0)]
    return ranges
