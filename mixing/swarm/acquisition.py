"""Rounds that learn from those before: which mixtures to train next, and the Dirichlet draws they begin with.

CLIMB (arXiv 2504.13161): the first round draws on the token counts. Every later one predicts many candidates, half of
them Dirichlet draws at several concentrations, half local perturbations of the best; of the N with the lowest
prediction, K_r at random. The published rounds have 64, 32 and 16 runs.

ADMIRE-BayesOpt: an acquisition function says how much a run at a mixture is expected to tell about the best one,
divided by what the run costs, over sizes of proxy. A batch is chosen one mixture after the other; each of them
penalises the neighbourhood that its value rules out (Gonzalez et al., arXiv 1505.08052).

A decision: a run is worth as much as the mixture taken after it is expected to be better than the one taken before
(the knowledge gradient; Frazier, Powell and Dayanik, INFORMS Journal on Computing 21, 2009). One that cannot change
which is taken is worth nothing, however little is known there. Of a batch each counts what those before will tell.

Everything is minimised.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from mixing.errors import Infeasible, TooFewRuns
from mixing.swarm.design import CONCENTRATIONS, candidate_pool, perturbed_around
from mixing.swarm.dirichlet import dirichlet_rows
from mixing.swarm.filling import DUPLICATE_DISTANCE, distinct, fill
from mixing.swarm.space import SwarmSpace

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(n, m) mixtures -> mean and standard deviation, both (n,), of what is minimised."""

CANDIDATES = 4096
"""Mixtures that are predicted in a later round of CLIMB."""
BEST = 4
"""N, the candidates that a round is sampled from, in multiples of its runs."""
CENTRES = 8
"""Of the best how many are perturbed."""
MINIMA = 16
"""Samples of the unknown minimum that an acquisition function averages over."""
_LEAST_STD = 1e-12


def first_batch(space: SwarmSpace, runs: int, generator: np.random.Generator) -> np.ndarray:
    """(runs, m) Dirichlet draws on the token counts, in the space and distinct.

    The sum of a draw's shapes is one of `CONCENTRATIONS` times the number of domains.

    Raises:
        InvalidSetting: no runs.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """

    def draw(count: int) -> np.ndarray:
        if not space.drawn.any():
            return np.zeros((count, len(space)))
        concentration = generator.choice(CONCENTRATIONS, size=(count, 1))
        return dirichlet_rows(concentration * space.drawn.sum() * space.prior, generator)

    return fill(space, runs, draw, generator)


def next_batch(
    predict: Predict, existing: np.ndarray, space: SwarmSpace, runs: int, generator: np.random.Generator
) -> np.ndarray:
    """(runs, m) mixtures for CLIMB's next round, none near an existing one.

    Args:
        predict: the fit to all runs so far; only its mean is used.
        existing: (e, m) mixtures trained or training.
        space: where the mixtures may lie.
        runs: K_r.
        generator: draws the candidates and the choice among the best.

    Raises:
        Infeasible: fewer than `runs` new mixtures were found.
    """
    wide = candidate_pool(space, max(CANDIDATES // 2, 2 * runs), generator)
    centres = np.concatenate([existing, wide])
    centres = centres[np.argsort(predict(centres)[0], kind="stable")[:CENTRES]]
    near = perturbed_around(space, centres, max(CANDIDATES - len(wide), 2 * runs), generator)
    candidates = untrained(np.concatenate([wide, near]), existing)
    if len(candidates) < runs:
        raise Infeasible(
            f"only {len(candidates)} mixtures of the space are not trained yet, fewer than {runs}; lower the"
            " target tokens or raise the repetition cap",
            field="runs",
            names=space.domains.names,
        )
    best = np.argsort(predict(candidates)[0], kind="stable")[: BEST * runs]
    return candidates[np.sort(generator.choice(best, size=runs, replace=False))]


def untrained(candidates: np.ndarray, existing: np.ndarray) -> np.ndarray:
    """Of (n, m) candidates those that are near neither an (e, m) existing mixture nor an earlier candidate."""
    return candidates[distinct(np.concatenate([existing, candidates]), DUPLICATE_DISTANCE)[len(existing) :]]


@dataclass(frozen=True, eq=False)
class Prospects:
    """What could be trained next; one mixture at several proxy sizes is several rows.

    Attributes:
        weights: (n, m) mixtures.
        costs: (n,) what each run costs, above 0, in any unit.
        correlations: (n,) of what is measured with what is sought.
    """

    weights: np.ndarray
    costs: np.ndarray
    correlations: np.ndarray


def sample_minima(
    mean: np.ndarray, std: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """(count,) draws of the smallest of n independent N(mean, std^2), by inverting its distribution.

    P(min <= y) = 1 - prod_i Phi((mean_i - y) / std_i). Neighbouring mixtures are not independent, so the draws lie
    somewhat low (as in Wang and Jegelka, arXiv 1703.01968).
    """
    std = np.maximum(std, _LEAST_STD)
    survival = np.log1p(-generator.random(count))
    low = np.full(count, (mean - 12 * std).min())
    high = np.full(count, (mean + 12 * std).min())
    for _ in range(60):
        middle = (low + high) / 2
        above = log_ndtr((mean - middle[:, None]) / std).sum(1) > survival
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def max_value_entropy(
    mean: np.ndarray, std: np.ndarray, minima: np.ndarray, correlation: np.ndarray
) -> np.ndarray:
    """(n,) information in nats that a run at each mixture gives about the minimum, averaged over its samples.

    The lower bound -log(1 - rho^2 r (g + r)) / 2 of GIBBON (Moss et al., arXiv 2102.03324) with
    g = (mean - minimum) / std and r = phi(g) / Phi(g); rho is the correlation of what is measured, on a smaller proxy
    or with noise, with what is sought.
    """
    g = (mean[:, None] - minima) / np.maximum(std, _LEAST_STD)[:, None]
    ratio = np.exp(-(g**2) / 2 - 0.5 * math.log(2 * math.pi) - log_ndtr(g))
    explained = np.clip(correlation[:, None] ** 2 * ratio * (g + ratio), 0.0, 1 - 1e-12)
    return -0.5 * np.log1p(-explained).mean(1)


def choose_batch(
    predict: Predict, best: float, prospects: Prospects, runs: int, generator: np.random.Generator
) -> np.ndarray:
    """(runs,) row numbers of the prospects to train next, the most promising first.

    Args:
        predict: the fit to the finished runs.
        best: lowest value so far; where runs are noisy, of the prediction's mean at the finished ones.
        prospects: what could be trained.
        runs: how many to choose.
        generator: draws the minima.

    Raises:
        TooFewRuns: fewer prospects than runs.
    """
    weights = prospects.weights
    if not 1 <= runs <= len(weights):
        raise TooFewRuns(
            f"{runs} runs cannot be chosen from {len(weights)} prospects", needed=runs, given=len(weights)
        )
    mean, std = predict(weights)
    minima = np.minimum(sample_minima(mean, std, MINIMA, generator), best)
    gain = max_value_entropy(mean, std, minima, prospects.correlations)
    score = np.log(np.maximum(gain, np.finfo(float).tiny)) - np.log(prospects.costs)
    slope = _steepest(mean, np.sqrt(weights))
    chosen: list[int] = []
    for _ in range(runs):
        row = int(np.argmax(score))
        chosen.append(row)
        score += _log_penalty(weights, weights[row], slope, float(mean[row]) - best, float(std[row]))
        score[chosen] = -np.inf
    return np.array(chosen)


def _log_penalty(
    candidates: np.ndarray, centre: np.ndarray, slope: float, above: float, std: float
) -> np.ndarray:
    """(n,) log of the chance that each candidate is outside the ball that excludes the minimum around a mixture.

    A function with slope at most L that is f at x has no minimum below M nearer to x than (f - M) / L. Distances
    are between square roots of weights, in which losses are closest to linear; L is the steepest the prediction
    gets between neighbours.
    """
    apart = np.sqrt(((np.sqrt(candidates) - np.sqrt(centre)) ** 2).sum(1))
    # Where the fit is certain its deviation says nothing of the distance, and a repeat must still be ruled out.
    margin = (slope * apart - max(above, 0.0)) / max(std, 1e-3 * slope)
    return log_ndtr(np.where(apart > 1e-9, margin, -40.0))


def _steepest(mean: np.ndarray, roots: np.ndarray) -> float:
    order = np.argsort(roots @ np.linspace(-1, 1, roots.shape[1]), kind="stable")
    steps = np.sqrt((np.diff(roots[order], axis=0) ** 2).sum(1))
    rises = np.abs(np.diff(mean[order]))
    slopes = np.divide(rises, steps, out=np.zeros_like(rises), where=steps > 1e-9)
    return float(max(slopes.max(initial=0.0), _LEAST_STD))


_NODES = 24
"""Of the quadrature over what a run may measure."""


def change_decision(rivals: np.ndarray, prospects: np.ndarray, noise: float, runs: int) -> np.ndarray:
    """(runs,) columns of the prospects to train next, the most worth first; each once.

    A run at x moves what is expected of rival c by Cov(c, x) / sqrt(Var(x) + noise^2) standard normals z. Its worth
    is min_c mu_c - E_z min_c (mu_c + that z). Where no run can change the decision any more those that are known
    least are taken.

    Args:
        rivals: (d, r) what is minimised at the mixtures that may be taken, in d draws of what it may be.
        prospects: (d, n) likewise at the mixtures that may be trained.
        noise: standard deviation of a measurement, in the same unit.
        runs: at most n.

    Raises:
        TooFewRuns: fewer prospects than runs.
    """
    if not 1 <= runs <= prospects.shape[1]:
        raise TooFewRuns(
            f"{runs} runs cannot be chosen from {prospects.shape[1]} prospects",
            needed=runs,
            given=prospects.shape[1],
        )
    mean, draws = rivals.mean(axis=0), len(rivals)
    away, between = rivals - mean, prospects - prospects.mean(axis=0)
    chosen: list[int] = []
    for _ in range(runs):
        variance = np.square(between).mean(axis=0)
        moves = away.T @ between / draws / np.sqrt(np.maximum(variance + noise**2, _LEAST_STD**2))
        worth = _worth(mean, moves)
        worth[chosen] = -np.inf
        known = worth <= 1e-9 * float(np.sqrt(variance.max(initial=0.0)))
        scores = np.where(known.all(), np.where(np.isfinite(worth), variance, -1.0), worth)
        pick = int(np.argmax(scores))
        chosen.append(pick)
        # What the run will tell is taken out of the draws' deviations, which keeps their covariances those of the
        # posterior (a square root filter; Whitaker and Hamill, Monthly Weather Review 130, 2002).
        told = variance[pick] + noise**2
        if told > 0:
            share = (1 - np.sqrt(noise**2 / told)) / max(float(variance[pick]), np.finfo(float).tiny)
            at = between[:, pick].copy()
            away = away - share * np.outer(at, at @ away / draws)
            between = between - share * np.outer(at, at @ between / draws)
    return np.array(chosen)


def _worth(mean: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(n,) how much lower the lowest of (r,) means is expected to lie once (r, n) moves times a normal are known."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    lowest = np.zeros(moves.shape[1])
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        lowest += weight * (mean[:, None] + node * moves).min(axis=0)
    return mean.min() - lowest
