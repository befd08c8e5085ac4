"""How well a regression predicts runs it has not seen, what it says of each domain, and what the swarm let it see."""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.inverses import floored_inverse
from mixing.laws.regression import Fitted, Regression

FEWEST_JUDGED = 4
"""Runs below which a held-out error is no more than an accident."""


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

    Where a fold less leaves fewer runs than the regression needs, the folds are made smaller, down to one run each.

    Raises:
        InvalidSetting: fewer than 2 folds or 1 repeat.
        TooFewRuns: the regression cannot be fitted without one of the runs.
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


def _ranks(values: np.ndarray) -> np.ndarray:
    """(n, T) ranks within the columns, ties sharing their mean: `scipy.stats.rankdata`, which loads for a second."""
    ranks = np.empty(values.shape)
    for column, own in enumerate(values.T):
        _, places, counts = np.unique(own, return_inverse=True, return_counts=True)
        ranks[:, column] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(T,) Spearman correlation of the columns of two (n, T) arrays; 0 where a column is constant."""
    first, second = _ranks(predicted), _ranks(measured)
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
    inverse = floored_inverse(weights.T @ weights, 1e-9)
    return np.einsum("nj,jk,nk->n", mixtures, inverse, mixtures)
