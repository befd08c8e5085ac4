"""BiMix's laws (arXiv 2405.14908) as published, and their optimum in closed form: what the regression
`bimix-own-share` and the exact solver are held against.

    L_i(r, s) = (A_i / r_i^alpha_i) (B_i / s^beta_i + C_i)
    r_i = (w_i A_i alpha_i / mu)^(1 / (alpha_i + 1)) at a fixed s, at most its cap
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, least_squares


@dataclass(frozen=True)
class BiMixLaws:
    """L_i(r, s) = r^-share_exponent (factor s^-step_exponent + constant), (m,) each.

    The published A_i only scales B_i and C_i; here it is in factor and constant.
    """

    share_exponent: np.ndarray
    factor: np.ndarray
    step_exponent: np.ndarray
    constant: np.ndarray

    def predict(self, shares: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """(n, m) losses of the domains at (n, m) positive shares after (n,) steps."""
        return shares**-self.share_exponent * (
            self.factor * steps[:, None] ** -self.step_exponent + self.constant
        )

    def optimum(self, steps: float, caps: np.ndarray, task_weights: np.ndarray | None = None) -> np.ndarray:
        """(m,) shares of least weighted loss after so many steps; see `bimix_optimum`."""
        scale = self.factor * steps**-self.step_exponent + self.constant
        return bimix_optimum(scale, self.share_exponent, caps, task_weights)


def fit_bimix(shares: np.ndarray, steps: np.ndarray, losses: np.ndarray) -> BiMixLaws:
    """Least squares of log loss, one law a domain.

    Args:
        shares: (n, m) positive shares of the runs the losses were read from.
        steps: (n,) steps at which they were read.
        losses: (n, m) each domain's own validation loss.
    """
    middle = np.exp(np.log(steps).mean())
    times = np.log(steps / middle)
    fits = []
    for share, loss in zip(np.log(shares).T, np.log(losses).T, strict=True):

        def residuals(x: np.ndarray, share: np.ndarray = share, loss: np.ndarray = loss) -> np.ndarray:
            falling, constant = x[1] - np.exp(x[2]) * times, x[3]
            return np.logaddexp(falling, constant) - np.exp(x[0]) * share - loss

        level = loss.mean()
        begin = [
            np.array([np.log(0.1), level - gap, np.log(exponent), level - 0.7])
            for gap in (0.7, 2.0)
            for exponent in (0.1, 0.5)
        ]
        fits.append(_least_squares(residuals, begin))
    share_exponent, factor, step_exponent, constant = np.exp(np.array(fits).T)
    return BiMixLaws(share_exponent, factor * middle**step_exponent, step_exponent, constant)


def bimix_optimum(
    scale: np.ndarray, exponent: np.ndarray, caps: np.ndarray, task_weights: np.ndarray | None = None
) -> np.ndarray:
    """(m,) shares that minimise sum_i w_i scale_i r_i^-exponent_i, sum 1, 0 <= r <= caps."""
    weights = np.ones_like(scale) if task_weights is None else task_weights
    steepness = np.log(np.maximum(weights * scale * exponent, 1e-300))
    upper = np.minimum(caps, 1.0)

    def amounts(log_slope: float) -> np.ndarray:
        return np.minimum(np.exp(np.minimum((steepness - log_slope) / (exponent + 1), 0)), upper)

    return amounts(brentq(lambda slope: float(amounts(slope).sum() - 1), -700, 700, xtol=1e-15))


def _least_squares(residuals: Callable[[np.ndarray], np.ndarray], begin: list[np.ndarray]) -> np.ndarray:
    """Parameters of the lowest sum of squares from several starts, within e^-30 and e^30.

    Of equally low ones that with the smallest first parameter, so that the answer does not hang on a start.
    """
    fits = [
        least_squares(residuals, start, x_scale="jac", bounds=(-30, 30), xtol=1e-14, ftol=1e-14, gtol=1e-14)
        for start in begin
    ]
    lowest = min(fit.cost for fit in fits)
    return min((fit.x for fit in fits if fit.cost <= 1.0001 * lowest + 1e-20), key=lambda x: float(x[0]))
