"""How sure the predicted gain is, the optimism of having chosen the optimum on the same runs included.

The mixture p* is the minimum of the fitted law, so the law is too favourable there: among all mixtures the
solver picks the one whose error flatters it most (the winner's curse). A plain bootstrap interval of the
prediction at a fixed p* does not see that. So the whole procedure is repeated, in a world whose truth is known:

1. Truth is the law f fitted to all runs. Resample b measures the same mixtures again with residual noise:
   y_b = f + v r / (1 - h), with r the residuals of a run drawn at random (all of its tasks together, so they
   keep moving together), v = +1 or -1, and h that run's leverage: a run that decides its own prediction
   has too small a residual, and r / (1 - h) is the residual of a fit without it.
2. The law is refitted to y_b and solved again under the same constraints, which gives p_b, and it claims
   the gain g_b(p_b) over the natural distribution. What p_b gains in truth is g(p_b): the law that
   judges has not been fitted to the data that chose.
3. d_b = g(p_b) - g_b(p_b) is how far the claim was off, on average below 0: minus the optimism.

The interval of the gain is g(p*) plus the 5% and 95% quantiles of d_b. It therefore leans towards 0, and may
even leave the plain prediction above its upper end when most of the predicted gain is optimism.

That much holds where the law has the right shape. Where it has not, more runs shrink the interval and not the
error. So half its width is widened, in quadrature, by `MISFIT_SHARE` of the 90% quantile of |r_i - r_j| over
all pairs of runs: how differently the law misses two mixtures. The full difference would be far too much, because
the natural distribution and the optimum lie among the runs and most runs lie at the edge, where a law misses most.
`python -m benchmarks.interval_coverage` measures what the intervals cover against a truth of another shape.

What a law misses only where no run lies cannot be seen: the distance of the mixture to the nearest run is
reported beside it.
"""

from dataclasses import dataclass

import numpy as np

from mixing.evidence import Evidence
from mixing.optimization.convex import solve_many
from mixing.optimization.problem import MixtureProblem
from mixing.regression.log_linear import FittedLogLinear, LawBatch, LogLinearLaw, believable

RESAMPLES = 200
CONFIDENCE = 0.9
MISFIT_SHARE = 0.33
"""Calibrated on the published RegMix swarm (17 domains, 13 losses); see the module."""


@dataclass(frozen=True)
class GainIntervals:
    """90% intervals of the gain (natural minus proposed, positive is better).

    Attributes:
        tasks: (T, 2).
        objective: (2,) of the weighted objective.
        optimism: mean amount by which a claimed gain of the objective exceeds the true one.
        weight_spread: (m,) standard deviation of the optimum's weights over the resamples.
    """

    tasks: np.ndarray
    objective: np.ndarray
    optimism: float
    weight_spread: np.ndarray


def gain_intervals(
    law: LogLinearLaw,
    fitted: FittedLogLinear,
    evidence: Evidence,
    problem: MixtureProblem,
    proposed: np.ndarray,
    generator: np.random.Generator,
) -> GainIntervals:
    """Refit and solve `RESAMPLES` times; see the module.

    Args:
        law: the regression.
        fitted: the law fitted to the evidence.
        evidence: the runs.
        problem: what was solved; its constraints are reused.
        proposed: (m,) its answer p*.
        generator: draws the resamples.
    """
    refits = _refits(law, fitted, evidence, generator)
    optima = solve_many(problem, refits.coefficients)
    natural = problem.objective.prior
    truth = LawBatch(fitted.coefficients[None], fitted.constants[None])

    def gain(laws: LawBatch, mixtures: np.ndarray) -> np.ndarray:
        there, at_natural = laws.predict(mixtures), laws.predict(natural[None])
        return believable(at_natural, evidence.metrics) - believable(there, evidence.metrics)

    claimed = gain(refits, optima[:, None, :])[:, 0]
    error = gain(truth, optima)[0] - claimed
    predicted = (truth.predict(natural[None]) - truth.predict(proposed[None]))[0, 0]
    combined = error @ evidence.objective
    missed = (evidence.metrics - fitted.predict(evidence.weights)[0]) / np.sqrt(1 - fitted.leverage)
    return GainIntervals(
        tasks=predicted[:, None] + _interval(error, missed),
        objective=float(predicted @ evidence.objective)
        + _interval(combined[:, None], missed @ evidence.objective[:, None])[0],
        optimism=float(-combined.mean()),
        weight_spread=optima.std(0),
    )


def _interval(error: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """(T, 2) quantiles of (RESAMPLES, T) errors, widened by how differently the law misses two of the (K, T) runs."""
    low, high = np.quantile(error, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    first, second = np.triu_indices(len(missed), 1)
    misfit = MISFIT_SHARE * np.quantile(np.abs(missed[first] - missed[second]), CONFIDENCE, axis=0)
    centre, half = (low + high) / 2, np.hypot((high - low) / 2, misfit)
    return np.stack([centre - half, centre + half], axis=1)


def _refits(
    law: LogLinearLaw, fitted: FittedLogLinear, evidence: Evidence, generator: np.random.Generator
) -> LawBatch:
    predicted, _ = fitted.predict(evidence.weights)
    residuals = (evidence.metrics - predicted) / (1 - fitted.leverage)
    shape = (RESAMPLES, len(residuals))
    signs = generator.choice([-1.0, 1.0], size=(*shape, 1))
    drawn = residuals[generator.integers(0, len(residuals), size=shape)]
    remeasured = np.maximum(predicted + signs * drawn, 1e-6)
    trust = law.importance(evidence.metrics, evidence.noise)[None]
    return law.refit(evidence.weights, remeasured, trust, near=fitted)
