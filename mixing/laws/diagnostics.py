"""How well a regression predicts runs it has not seen, what it says of each domain, and what the swarm let it see."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.exponential.log_linear import believable
from mixing.laws.regression import Fitted, Regression

FEWEST_JUDGED = 4
"""Runs below which a held-out error is no more than an accident."""
FOLDS = 5
REPEATS = 6
"""Enough for a family that fits all folds as one batch; one that fits them one by one is asked for fewer."""


@dataclass(frozen=True)
class HeldOutError:
    """Repeated K-fold cross-validation, averaged over the repeats.

    Attributes:
        predictions: (repeats, K, T + 1) every run predicted by fits that did not see it, the objective's last.
        rank_correlation: (T + 1,) Spearman of predicted and measured over the runs; 0 where undefined. This and the
            next two are over the runs that were measured, of the objective those of all it counts; NaN where these
            are too few.
        mae: (T + 1,) mean absolute error, in the metric's unit.
        decision_accuracy: (T + 1,) share of pairs of runs whose better one was predicted to be the better one.
    """

    predictions: np.ndarray
    rank_correlation: np.ndarray
    mae: np.ndarray
    decision_accuracy: np.ndarray


def cross_validate(
    regression: Regression,
    weights: np.ndarray,
    metrics: np.ndarray,
    objective: np.ndarray,
    generator: np.random.Generator,
    noise: np.ndarray | None = None,
    folds: int = FOLDS,
    repeats: int = REPEATS,
) -> HeldOutError:
    """Predict every run from folds without it, `repeats` times over different folds.

    Where a fold less leaves fewer runs than the regression needs, the folds are made smaller, down to one run each.

    Args:
        regression: any; one that fits many subsets at once is asked to.
        weights: (K, m) mixtures in canonical run order.
        metrics: (K, T).
        objective: (T,) weights of the tasks, summing to 1.
        generator: draws the folds.
        noise: (K, T) as for `Regression.fit`.
        folds: into how many parts the runs are split.
        repeats: how many times they are.

    Raises:
        InvalidSetting: fewer than 2 folds or 1 repeat.
        TooFewRuns: the regression cannot be fitted without one of the runs.
    """
    kept = kept_in_folds(regression, weights, generator, folds, repeats)
    predicted = believable(regression.held_out(weights, metrics, kept, noise), metrics)
    both = joined_folds(predicted, kept, repeats), metrics
    return held_out_error(*(np.concatenate([each, (each @ objective)[..., None]], axis=-1) for each in both))


def joined_folds(predicted: np.ndarray, kept: np.ndarray, repeats: int) -> np.ndarray:
    """(repeats, K, T): of the (B, K, T) predictions of all fits, each run's by the fit that did not see it."""
    unseen = np.where(kept[:, :, None], 0.0, predicted)
    return unseen.reshape(repeats, len(kept) // repeats, *predicted.shape[1:]).sum(1)


def held_out_error(predicted: np.ndarray, measured: np.ndarray) -> HeldOutError:
    """The errors of (repeats, K, T + 1) held-out predictions (`joined_folds`) of what (K, T + 1) was measured.

    NaN where a run was not.
    """
    columns = zip(predicted.transpose(2, 0, 1), measured.T, strict=True)
    return HeldOutError(predicted, *np.array([_errors(own, truth) for own, truth in columns]).T)


def _errors(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Rank correlation, mean absolute error and decision accuracy of (repeats, K) predictions of (K,) values."""
    known = np.isfinite(measured)
    if known.sum() < FEWEST_JUDGED:
        return np.nan, np.nan, np.nan
    truth, guesses = measured[known][:, None], predicted[:, known]
    return (
        float(np.mean([rank_correlation(guess[:, None], truth)[0] for guess in guesses])),
        float(np.abs(guesses - truth[:, 0]).mean()),
        float(np.mean([decision_accuracy(guess[:, None], truth)[0] for guess in guesses])),
    )


def kept_in_folds(
    regression: Regression, weights: np.ndarray, generator: np.random.Generator, folds: int, repeats: int
) -> np.ndarray:
    """(repeats * parts, K) booleans: the runs each fit keeps. Every run is left out once per repeat.

    Raises:
        InvalidSetting, TooFewRuns: as for `cross_validate`.
    """
    if folds < 2 or repeats < 1:
        raise InvalidSetting(
            f"{folds} folds and {repeats} repeats; it takes 2 folds and 1 repeat to hold a run out",
            field="folds",
        )
    runs, domains = weights.shape
    parts = min(folds, runs)
    # A batched family fits subsets below its minimum too, by what it assumes where the runs leave it open.
    if not regression.fits_subsets_at_once:
        spare = runs - regression.runs_to_fit(domains)
        if spare < 1:
            raise TooFewRuns(
                f"{runs} runs are too few to hold one out: the regression over {domains} domains needs"
                f" {runs - spare} to be fitted and one more to be judged by",
                needed=runs - spare + 1,
                given=runs,
            )
        parts = max(parts, -(-runs // spare))
    assignment = np.stack([generator.permutation(runs) % parts for _ in range(repeats)])
    return (assignment[:, None, :] != np.arange(parts)[None, :, None]).reshape(-1, runs)


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(T,) Spearman correlation of the columns of two (n, T) arrays; 0 where a column is constant."""
    first = rankdata(predicted, axis=0)
    second = rankdata(measured, axis=0)
    first = first - first.mean(0)
    second = second - second.mean(0)
    size = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return np.where(size > 0, (first * second).sum(0) / np.where(size > 0, size, 1), 0.0)


def decision_accuracy(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(T,) share of pairs of the n mixtures whose predicted winner is the measured one (arXiv 2504.11393).

    A pair measured alike has no winner and is left out; a pair predicted alike is decided by the toss of a
    coin and counts half. Without any pair to decide it is .5.
    """
    shares = []
    first, second = np.triu_indices(len(measured), 1)
    for guess, truth in zip(predicted.T, measured.T, strict=True):
        winner = np.sign(truth[first] - truth[second])
        agreement = (np.sign(guess[first] - guess[second]) * winner)[winner != 0]
        shares.append(0.5 + agreement.mean() / 2 if agreement.size else 0.5)
    return np.array(shares)


def coverage(measured: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(T,) share of (n, T) measurements within their intervals, ends included."""
    return ((low <= measured) & (measured <= high)).mean(axis=0)


def interval_coverage(
    regression: Regression,
    weights: np.ndarray,
    metrics: np.ndarray,
    generator: np.random.Generator,
    noise: np.ndarray | None = None,
    folds: int = FOLDS,
    confidence: float = 0.9,
) -> np.ndarray:
    """(T,) share of held-out measurements within the regression's own intervals: `confidence`, where it is honest.

    An interval is mean +- z sqrt(std^2 + s^2), with s the measurement's own noise where it is known (above 0) and
    the root mean square residual of the runs the fold was fitted to where it is not.

    Args:
        regression: any; fitted `folds` times.
        weights: (K, m).
        metrics: (K, T).
        generator: draws the folds.
        noise: (K, T) standard deviation of each measurement, 0 where unknown.
        folds: as for `cross_validate`.
        confidence: between 0 and 1.

    Raises:
        InvalidSetting, TooFewRuns: as for `cross_validate`, and a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise InvalidSetting(f"confidence is {confidence}; it lies between 0 and 1", field="confidence")
    width = float(ndtri((1 + confidence) / 2))
    low, high = np.empty_like(metrics), np.empty_like(metrics)
    for kept in kept_in_folds(regression, weights, generator, folds, 1):
        fitted = regression.fit(weights[kept], metrics[kept], None if noise is None else noise[kept])
        mean, std = fitted.predict(weights)
        residual = np.sqrt(np.square(mean - metrics)[kept].mean(0))
        spread = (
            np.broadcast_to(residual, metrics.shape)
            if noise is None
            else np.where(noise > 0, noise, residual)
        )
        half = width * np.hypot(std, spread)
        low[~kept], high[~kept] = (mean - half)[~kept], (mean + half)[~kept]
    return coverage(metrics, low, high)


def effects(fitted: Fitted, mixture: np.ndarray, step: float = 0.02) -> np.ndarray:
    """(m, T) effects of each domain on each task at an (m,) mixture: the slope along p -> p + h (e_j - p).

    That is the change per unit of weight given to domain j and taken from all in proportion. With a gradient g it
    is g_j - p . g; the effects at p then average to 0 under p.

    Args:
        fitted: any fit; one without a gradient is differenced over `step` to either side, and to one side
            where the mixture has too little of a domain to go back.
        mixture: (m,) on the simplex.
        step: h. Trees are constant between their splits, so it must not be small for them.
    """
    if fitted.has_gradient:
        slopes = fitted.gradient(mixture[None])[0]
        return (slopes - (slopes @ mixture)[:, None]).T
    towards = np.eye(len(mixture)) - mixture
    back = np.where(mixture - step * (1 - mixture) >= 0, step, 0.0)
    ahead, _ = fitted.predict(mixture + step * towards)
    behind, _ = fitted.predict(mixture - back[:, None] * towards)
    return (ahead - behind) / (step + back)[:, None]


UNVARIED = 1e-4
"""A domain whose weight has a smaller standard deviation over the runs was, for a regression, held fixed."""


def weight_spread(weights: np.ndarray) -> np.ndarray:
    """(m,) standard deviation of each domain's weight over (K, m) runs: what the swarm varied of it."""
    return weights.std(axis=0)


def leverage(weights: np.ndarray, mixtures: np.ndarray) -> np.ndarray:
    """(n,) p (W'W)^-1 p of (n, m) mixtures p over (K, m) runs W: the variance of a linear prediction there.

    In units of one run's noise variance; the runs' own average to m / K. A mixture above all of them is one
    the runs do not surround.
    """
    gram = weights.T @ weights
    inverse = np.linalg.inv(gram + 1e-9 * np.trace(gram) * np.eye(len(gram)))
    return np.einsum("nj,jk,nk->n", mixtures, inverse, mixtures)
