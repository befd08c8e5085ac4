"""Acquisition functions: how much a run at a mixture is expected to tell about the best one.

Everything is minimised. A batch is chosen one mixture after the other; those chosen and those still training
(pending) count as known, either by a fit that believes its own prediction there (kriging believer, Ginsbourger
et al., 2010) or, without one, by penalising the neighbourhood that their value rules out (Gonzalez et al.,
arXiv 1505.08052). Divided by what a run costs it is what ADMIRE-BayesOpt uses over sizes of proxy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx, log_ndtr

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.regression import Fitted

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(n, m) mixtures -> mean and standard deviation, both (n,), of what is minimised."""

Believe = Callable[[np.ndarray], Predict]
"""(b, m) mixtures -> the prediction of a fit that takes its own mean there as measured."""

KINDS = ("expected improvement", "max-value entropy")
_LEAST_STD = 1e-12


@dataclass(frozen=True)
class Acquisition:
    """How a batch is chosen.

    Attributes:
        kind: "expected improvement" or "max-value entropy".
        minima: samples of the unknown minimum that max-value entropy averages over.
    """

    kind: str = "expected improvement"
    minima: int = 16

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidSetting(f"kind is {self.kind!r}; it can be {', '.join(KINDS)}", field="kind")
        if self.minima < 1:
            raise InvalidSetting(f"minima is {self.minima}; it must be at least 1", field="minima")


@dataclass(frozen=True)
class Surrogate:
    """A fit to the finished runs.

    Attributes:
        predict: its prediction.
        best: lowest value so far; where runs are noisy, of the prediction's mean at the finished ones.
        believe: gives the fit that believes its own mean at further mixtures; without it the neighbourhoods of
            what is known are penalised.
    """

    predict: Predict
    best: float
    believe: Believe | None = None


@dataclass(frozen=True, eq=False)
class Prospects:
    """What could be trained next; one mixture at several proxy sizes is several rows.

    Attributes:
        weights: (n, m) mixtures.
        costs: (n,) what each run costs, in any unit; None where all cost the same.
        correlations: (n,) of what is measured with what is sought, for max-value entropy; None for noise-free runs
            at the size that matters.

    Raises:
        InvalidSetting: a cost that is not positive.
    """

    weights: np.ndarray
    costs: np.ndarray | None = None
    correlations: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.costs is not None and not (self.costs > 0).all():
            raise InvalidSetting("a cost is not above 0", field="costs")


def objective_of(fitted: Fitted, task_weights: np.ndarray) -> Predict:
    """The weighted sum of a fit's tasks, for (T,) non-negative weights and tasks of which lower is better.

    The tasks' errors come from the same runs, so their deviations are added, not their variances: an upper bound.
    """

    def predict(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std = fitted.predict(weights)
        return mean @ task_weights, std @ task_weights

    return predict


def log_expected_improvement(mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
    """log E[max(best - f, 0)] for f ~ N(mean, std^2), (n,); finite however unlikely an improvement is.

    With z = (best - mean) / std it is log std + log(phi(z) + z Phi(z)). Far below 0 the two terms cancel, so there it
    is written with the scaled complementary error function (Ament et al., arXiv 2310.20708).
    """
    std = np.maximum(std, _LEAST_STD)
    z = (best - mean) / std
    density = -(z**2) / 2 - 0.5 * math.log(2 * math.pi)
    near = np.exp(density) + z * np.exp(log_ndtr(z))
    tail = np.maximum(-z, 1.0)
    kept = np.where(tail < 1e4, 1 - tail * math.sqrt(math.pi / 2) * erfcx(tail / math.sqrt(2)), tail**-2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(std) + np.where(z > -1, np.log(near), density + np.log(kept))


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
    mean: np.ndarray, std: np.ndarray, minima: np.ndarray, correlation: np.ndarray | float | None = None
) -> np.ndarray:
    """(n,) information in nats that a run at each mixture gives about the minimum, averaged over its samples.

    Without noise, and at the size the minimum is sought for, exact: E[g r / 2 - log Phi(g)] with
    g = (mean - minimum) / std and r = phi(g) / Phi(g). Else the lower bound -log(1 - rho^2 r (g + r)) / 2 of GIBBON
    (Moss et al., arXiv 2102.03324), rho being the correlation of what is measured, on a smaller proxy or with
    noise, with what is sought.
    """
    g = (mean[:, None] - minima) / np.maximum(std, _LEAST_STD)[:, None]
    logarithm = log_ndtr(g)
    ratio = np.exp(-(g**2) / 2 - 0.5 * math.log(2 * math.pi) - logarithm)
    if correlation is None:
        return np.maximum(g * ratio / 2 - logarithm, 0.0).mean(1)
    share = np.broadcast_to(np.asarray(correlation, float), mean.shape)[:, None] ** 2
    explained = np.clip(share * ratio * (g + ratio), 0.0, 1 - 1e-12)
    return -0.5 * np.log1p(-explained).mean(1)


def choose_batch(
    surrogate: Surrogate,
    prospects: Prospects,
    runs: int,
    generator: np.random.Generator,
    settings: Acquisition | None = None,
    pending: np.ndarray | None = None,
) -> np.ndarray:
    """(runs,) row numbers of the prospects to train next, the most promising first.

    Args:
        surrogate: the fit to the finished runs.
        prospects: what could be trained.
        runs: how many to choose.
        generator: draws the minima of max-value entropy.
        settings: which function.
        pending: (p, m) mixtures still training.

    Raises:
        TooFewRuns: fewer prospects than runs.
    """
    settings = settings or Acquisition()
    weights = prospects.weights
    if not 1 <= runs <= len(weights):
        raise TooFewRuns(
            f"{runs} runs cannot be chosen from {len(weights)} prospects", needed=runs, given=len(weights)
        )
    known = np.empty((0, weights.shape[1])) if pending is None else pending
    first = _log_value(surrogate.predict, surrogate.best, prospects, generator, settings)
    chosen: list[int] = []
    for _ in range(runs):
        if not len(known):
            score = first.copy()
        elif surrogate.believe is None:
            score = first + _log_penalty(surrogate, weights, known)
        else:
            score = _log_value(surrogate.believe(known), surrogate.best, prospects, generator, settings)
        score[chosen] = -np.inf
        chosen.append(int(np.argmax(score)))
        known = np.concatenate([known, weights[chosen[-1:]]])
    return np.array(chosen)


def _log_value(
    predict: Predict, best: float, prospects: Prospects, generator: np.random.Generator, settings: Acquisition
) -> np.ndarray:
    mean, std = predict(prospects.weights)
    price = 0.0 if prospects.costs is None else np.log(prospects.costs)
    if settings.kind == "expected improvement":
        return log_expected_improvement(mean, std, best) - price
    minima = np.minimum(sample_minima(mean, std, settings.minima, generator), best)
    gain = max_value_entropy(mean, std, minima, prospects.correlations)
    return np.log(np.maximum(gain, np.finfo(float).tiny)) - price


def _log_penalty(surrogate: Surrogate, candidates: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(n,) log of the chance that each candidate is outside the balls that exclude the minimum around (b, m) known.

    A function with slope at most L that is f at x has no minimum below M nearer to x than (f - M) / L. Distances
    are between square roots of weights, in which losses are closest to linear; L is the steepest the prediction
    gets between neighbours.
    """
    mean, std = surrogate.predict(known)
    roots, centres = np.sqrt(candidates), np.sqrt(known)
    apart = np.sqrt(((roots[:, None] - centres[None]) ** 2).sum(2))
    slope = _steepest(surrogate.predict(candidates)[0], roots)
    margin = slope * apart - np.maximum(mean - surrogate.best, 0.0)
    # Where the fit is certain its deviation says nothing of the distance, and a repeat must still be ruled out.
    width = np.maximum(std, 1e-3 * slope)
    return log_ndtr(np.where(apart > 1e-9, margin / width, -40.0)).sum(1)


def _steepest(mean: np.ndarray, roots: np.ndarray) -> float:
    order = np.argsort(roots @ np.linspace(-1, 1, roots.shape[1]), kind="stable")
    steps = np.sqrt((np.diff(roots[order], axis=0) ** 2).sum(1))
    rises = np.abs(np.diff(mean[order]))
    slopes = np.divide(rises, steps, out=np.zeros_like(rises), where=steps > 1e-9)
    return float(max(slopes.max(initial=0.0), _LEAST_STD))
