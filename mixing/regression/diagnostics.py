"""How well a law predicts runs it has not seen, and what the swarm let it see."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from mixing.regression.log_linear import LogLinearLaw, believable

FOLDS = 5
REPEATS = 6


@dataclass(frozen=True)
class HeldOutError:
    """Repeated K-fold cross-validation, averaged over the repeats.

    Attributes:
        predictions: (repeats, K, T) every run predicted by laws that did not see it.
        rank_correlation: (T,) Spearman of predicted and measured over the runs; 0 where undefined.
        mae: (T,) mean absolute error, in the metric's unit.
        objective_rank_correlation: the same of the weighted objective.
        objective_mae: the same of the weighted objective.
    """

    predictions: np.ndarray
    rank_correlation: np.ndarray
    mae: np.ndarray
    objective_rank_correlation: float
    objective_mae: float


def cross_validate(
    law: LogLinearLaw,
    weights: np.ndarray,
    metrics: np.ndarray,
    objective: np.ndarray,
    generator: np.random.Generator,
    noise: np.ndarray | None = None,
) -> HeldOutError:
    """Predict every run from folds without it, `REPEATS` times over different folds.

    Args:
        law: the regression; refitted `FOLDS * REPEATS` times in one batch.
        weights: (K, m) mixtures in canonical run order.
        metrics: (K, T).
        objective: (T,) weights of the tasks, summing to 1.
        generator: draws the folds.
        noise: (K, T) as for `LogLinearLaw.fit`.
    """
    runs = len(weights)
    folds = min(FOLDS, runs)
    assignment = np.stack([generator.permutation(runs) % folds for _ in range(REPEATS)])
    held_out = assignment[:, None, :] == np.arange(folds)[None, :, None]
    held_out = held_out.reshape(-1, runs)
    trust = law.importance(metrics, noise)[None] * ~held_out[:, :, None]
    predicted = law.refit(weights, metrics[None], trust).predict(weights)
    predicted = believable(predicted, metrics)
    predicted = np.where(held_out[:, :, None], predicted, 0).reshape(REPEATS, folds, runs, -1).sum(1)
    combined, measured = predicted @ objective, metrics @ objective
    return HeldOutError(
        predictions=predicted,
        rank_correlation=np.mean([rank_correlation(repeat, metrics) for repeat in predicted], axis=0),
        mae=np.abs(predicted - metrics).mean((0, 1)),
        objective_rank_correlation=float(
            np.mean([rank_correlation(repeat[:, None], measured[:, None])[0] for repeat in combined])
        ),
        objective_mae=float(np.abs(combined - measured).mean()),
    )


def rank_correlation(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(T,) Spearman correlation of the columns of two (n, T) arrays; 0 where a column is constant."""
    first = rankdata(predicted, axis=0)
    second = rankdata(measured, axis=0)
    first = first - first.mean(0)
    second = second - second.mean(0)
    size = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return np.where(size > 0, (first * second).sum(0) / np.where(size > 0, size, 1), 0.0)


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
