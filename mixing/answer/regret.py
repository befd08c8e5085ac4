"""What taking the proposed mixture is expected to give away, and when that is too little to pay for more runs.

The runs leave the law open. What it may be is drawn: the law of all runs, and beside it

- how its refits without each fold differ, scaled as a delete-d jackknife's deviations (`mixing.answer.uncertainty`),
- of an average of laws how its members differ, each by its share: the shapes that the runs do not decide between.

By each draw g some mixture is the best, and the proposed p* gives away g(p*) - min_w g(w), never less than 0. The
mean over the draws is the expected regret: what knowing the law would be worth on average, and so the most that any
further runs can be (the expected value of perfect information; Howard, 1966). Both are of all that is minimised, the
KL term included, in the objective's unit.

The refits' optima say how the best mixture follows a law: that of a draw is p* and the refits' own moves from it, in
the proportions in which the draw is made of theirs, as far as the constraints let it. Each draw's minimum is over all
draws' such mixtures: of a few, the same for all, it would miss what many directions add, each a little. What all laws
miss alike is not in it.
"""

import math
from dataclasses import dataclass

import numpy as np

from mixing.laws.diagnostics import FEWEST_JUDGED
from mixing.laws.exponential.log_linear import believable
from mixing.laws.learning import Learned
from mixing.solve.problem import MixtureProblem
from mixing.terms import StopRule

DRAWS = 512
"""The mean is then known to some 5% of itself."""
_WIDER = (1.0, 5.0)
"""How far held-out errors may widen the draws. They are too noisy to narrow them by: to stop too late costs a
round, to stop too early the mixture."""
_STEPS = (1.0, 0.5, 0.25)
"""Of a draw's move from the answer: as far as the constraints let it."""


@dataclass(frozen=True)
class Regret:
    """What the proposed mixture is expected to give away.

    Attributes:
        expected: mean over the draws, in the objective's unit, at least 0.
        high: its 90% quantile.
        noise: of one run's objective, in the same unit; None where that of a task is not known.
        runs: how many the law was fitted to.
    """

    expected: float
    high: float
    noise: float | None
    runs: int

    def meets(self, rule: StopRule) -> str | None:
        """What of a rule is met: `expected_regret`, `noise`, or None."""
        if rule.expected_regret is not None and self.expected < rule.expected_regret:
            return "expected_regret"
        if rule.noise and self.noise is not None and self.expected < self.noise:
            return "noise"
        return None

    def after(self, runs: int) -> float:
        """What it would be at best with so many runs: it falls as the law's variance, as one over their number."""
        return self.expected * self.runs / max(runs, self.runs)

    def can_meet(self, rule: StopRule, runs: int) -> bool:
        """Whether a rule may be met with so many runs in all; of noise that is not known nobody can say."""
        bounds = [rule.expected_regret or 0.0]
        if rule.noise:
            bounds.append(math.inf if self.noise is None else self.noise)
        return self.after(runs) < max(bounds)


@dataclass(frozen=True)
class OpenLaw:
    """What the objective may be, as the runs leave it open.

    Attributes:
        problem: whose objective, and what a mixture has to keep.
        learned: the law, with its refits.
        best: (m,) the answer p*.
        optima: (B, m) the refits' own.
        drawn: (DRAWS, B + M) standard normals: how much of each refit's and member's deviation is in each draw.
        width: what the deviations are multiplied by.
    """

    problem: MixtureProblem
    learned: Learned
    best: np.ndarray
    optima: np.ndarray
    drawn: np.ndarray
    width: float

    @classmethod
    def of(
        cls,
        problem: MixtureProblem,
        learned: Learned,
        best: np.ndarray,
        optima: np.ndarray,
        generator: np.random.Generator,
    ) -> "OpenLaw":
        """The draws of a generator."""
        causes = len(optima) + len(learned.law.by_member(best[None])[0])
        drawn = generator.standard_normal((DRAWS, causes))
        return cls(problem, learned, best, optima, drawn, as_wide_as_errors(learned))

    def rivals(self) -> np.ndarray:
        """(n, m) mixtures that may be better than the answer, which is the first; all keep the constraints."""
        scale = self.width * _scale(self.learned)
        moves = scale * self.drawn[:, : len(self.optima)] @ (self.optima - self.optima.mean(axis=0))
        found = [self.best[None], self.optima]
        for step in _STEPS:
            there = np.maximum(self.best + step * moves, 0.0)
            there /= there.sum(axis=1, keepdims=True)
            found.append(there[self.problem.allows(there)])
        return np.concatenate(found)

    def objectives(self, mixtures: np.ndarray) -> np.ndarray:
        """(DRAWS, n) what is minimised at (n, m) mixtures, in the objective's unit."""
        objective, means = self.problem.objective, self.problem.objective.means
        centre = believable(self.learned.law.mean(mixtures), self.learned.evidence.table.ends) @ means.T
        apart = self.width * (_deviations(self.learned, mixtures) @ means.T)
        values = centre + np.tensordot(self.drawn, apart, 1)
        return (values.max(axis=2) + objective.beside_the_law(mixtures)) * objective.unit


def as_wide_as_errors(learned: Learned) -> float:
    """What the deviations are multiplied by, so that over the runs they are no smaller than the law's errors there.

    Of the errors of predictions held out the noise of a measurement is none of the law's; of runs about equally far
    off only what differs between mixtures counts. Fewer runs than parameters would else look sure: all refits then
    say what the prior says.
    """
    refits, evidence = learned.refits, learned.evidence
    assert refits is not None, "nothing is open where nothing was held out"
    groups = evidence.groups
    missed = groups.value(refits.predicted).mean(axis=0) - groups.value(refits.measured)
    known = np.isfinite(missed)
    if known.sum() < FEWEST_JUDGED:
        return 1.0
    share, noises = evidence.objective, evidence.noise
    noise = float(np.nansum((share * noises) ** 2))
    there = _deviations(learned, refits.weights[known]) @ groups.column_weights
    told = float(np.square(there - there.mean(axis=1, keepdims=True)).sum(axis=0).mean())
    error = refits.left * (float(missed[known].var(ddof=1)) - noise)
    low, high = _WIDER
    return float(np.sqrt(np.clip(error / max(told, 1e-300), low**2, high**2)))


def _deviations(learned: Learned, mixtures: np.ndarray) -> np.ndarray:
    """(B + M, n, C) deviations of independent causes at (n, m) mixtures: the refits', and the members'."""
    refits, filled = learned.refits, learned.evidence.table.ends
    assert refits is not None, "nothing is open where nothing was held out"
    others = np.stack([believable(law.mean(mixtures), filled) for law in refits.laws])
    return np.concatenate([_scale(learned) * (others - others.mean(0)), _members(learned, mixtures)])


def _scale(learned: Learned) -> float:
    """Of one refit's deviation: a delete-d jackknife's, over their number."""
    refits = learned.refits
    assert refits is not None, "nothing is open where nothing was held out"
    return math.sqrt(refits.left / (1 - refits.left) / len(refits.laws))


def _members(learned: Learned, mixtures: np.ndarray) -> np.ndarray:
    """(M, n, C) how far each member of an average of laws lies from it, times the root of its share of the objective.

    None is taken to be further than what was measured reaches.
    """
    shares, means = learned.law.by_member(mixtures)
    weights = learned.evidence.groups.column_weights
    mean = np.einsum("mt,mnt->nt", shares, means)
    reach = np.ptp(learned.evidence.table.ends, axis=0)
    away = np.where(shares[:, None] > 0, np.clip(means - mean, -reach, reach), 0.0)
    counts = shares @ weights / max(float(weights.sum()), 1e-300)
    return np.sqrt(counts)[:, None, None] * away


def regret_of(law: OpenLaw) -> Regret:
    """The expected regret of the answer."""
    values = law.objectives(law.rivals())
    lost = values[:, 0] - values.min(axis=1)
    objective, evidence = law.problem.objective, law.learned.evidence
    share, noises = evidence.objective, evidence.noise
    noise = None
    if np.isfinite(noises[share > 0]).all():
        # What a mean of tasks is worth at the target, where that is what is minimised.
        worth = (
            float(objective.task_weights.sum()) * objective.unit / float(evidence.groups.column_weights.sum())
        )
        noise = worth * float(np.sqrt(np.nansum((share * noises) ** 2)))
    return Regret(float(lost.mean()), float(np.quantile(lost, 0.9)), noise, len(evidence.weights))
