"""What every regression refuses before it fits, and how it weighs noisy runs."""

import numpy as np

from mixing.errors import InvalidMetrics, TooFewRuns

NOISE_UNIT = 0.02
"""Noise (in the metric's unit, BPB) at which a run counts half: the Huber threshold of the published laws."""


def require_runs(law: str, needed: int, weights: np.ndarray) -> None:
    """Refuse (K, m) mixtures with fewer than `needed` runs.

    Raises:
        TooFewRuns: the message names the law.
    """
    runs, domains = weights.shape
    if runs < needed:
        raise TooFewRuns(
            f"{runs} runs are too few for the {law} over {domains} domains; it needs {needed}",
            needed=needed,
            given=runs,
        )


def require_metrics(metrics: np.ndarray, positive: bool = False) -> None:
    """Refuse (K, T) metrics that nothing can be learned from.

    Raises:
        InvalidMetrics: one that is not finite, not positive where that is needed, or the same in every run.
    """
    usable = np.isfinite(metrics) & (metrics > 0) if positive else np.isfinite(metrics)
    if not usable.all():
        run, task = np.argwhere(~usable)[0]
        kind = "positive" if positive else "finite"
        raise InvalidMetrics(
            f"the metric of run {run}, task {task} is {metrics[run, task]}; the law needs {kind} numbers",
            field="metrics",
        )
    if (constant := np.flatnonzero(np.ptp(metrics, axis=0) == 0)).size:
        raise InvalidMetrics(f"task {constant[0]} has the same metric in every run", field="metrics")


def importance(metrics: np.ndarray, noise: np.ndarray | None, unit: float = NOISE_UNIT) -> np.ndarray:
    """(K, T) weight of each measurement, of mean 1 per task: unit^2 / (unit^2 + noise^2)."""
    if noise is None:
        return np.ones_like(metrics)
    trust = unit**2 / (unit**2 + np.square(noise))
    return trust / trust.mean(0)
