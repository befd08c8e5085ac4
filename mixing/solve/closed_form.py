"""AutoScale's law (arXiv 2407.20177) as published, a domain's loss over its own tokens, and its optimum.

    y_i(n) = (n + a_i)^-b_i + c_i
    n_i = (b_i / mu)^(1 / (b_i + 1)) - a_i, at least its lower bound

The sum of the falling convex y_i is minimised under one budget. So at the optimum every domain that is not at a bound
has the same slope mu; each domain's amount follows from mu in closed form, and mu by root finding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from mixing.errors import Infeasible, InvalidMetrics, InvalidSetting, TooFewRuns


@dataclass(frozen=True)
class AutoScaleLaws:
    """y_i(n) = (n + equivalent)^-exponent + constant, (m,) each.

    Attributes:
        equivalent: a_i, what the other domains are worth to the loss in tokens of this one.
        exponent: b_i.
        constant: c_i.
    """

    equivalent: np.ndarray
    exponent: np.ndarray
    constant: np.ndarray

    def predict(self, tokens: np.ndarray) -> np.ndarray:
        """(n, m) losses at (n, m) amounts of each domain, the others at their base."""
        return (tokens + self.equivalent) ** -self.exponent + self.constant

    def optimum(self, budget: float, lower: np.ndarray) -> np.ndarray:
        """(m,) amounts of least summed loss; see `autoscale_optimum`."""
        return autoscale_optimum(self.equivalent, self.exponent, budget, lower)


def fit_autoscale(tokens: np.ndarray, losses: np.ndarray) -> AutoScaleLaws:
    """One law a domain, by least squares, all at once.

    Through three points there may pass two laws; the one that makes less of the other domains (smaller a) is taken.

    Args:
        tokens: (n, m) amounts of each domain in the runs that vary it alone, such as 1/3, 1 and 3 times its base.
        losses: (n, m) average validation loss of those runs.

    Raises:
        TooFewRuns: n < 3.
        InvalidMetrics: an amount that is not positive, or a loss that is not finite.
    """
    if len(losses) < 3:
        raise TooFewRuns(
            f"{len(losses)} amounts a domain do not determine AutoScale's law; it needs 3",
            needed=3,
            given=len(losses),
        )
    if not ((tokens > 0).all() and np.isfinite(losses).all()):
        raise InvalidMetrics("amounts must be positive and losses finite", field="losses")
    size = np.log(tokens).mean(0)
    begin = np.array([(shift, np.log(b)) for shift in (-3.0, 0.0, 2.0) for b in (0.03, 0.1, 0.4)])
    starts = np.stack([size + begin[:, :1], np.tile(begin[:, 1:], len(size))], axis=2)  # (s, m, 2)
    repeated = np.tile(tokens.T, (len(begin), 1))
    goal = np.tile((losses - losses.mean(0)).T, (len(begin), 1))
    logs, cost = _descend_autoscale(repeated, goal, starts.reshape(-1, 2))
    logs, cost = logs.reshape(starts.shape), cost.reshape(starts.shape[:2])
    # Of equally low ones that with the smallest equivalent, so that the answer does not hang on a start.
    rivals = np.where(cost <= 1.0001 * cost.min(0) + 1e-20, logs[:, :, 0], np.inf)
    equivalent, exponent = np.exp(logs[rivals.argmin(0), np.arange(len(size))].T)
    constant = (losses - (tokens + equivalent) ** -exponent).mean(0)
    return AutoScaleLaws(equivalent, exponent, constant)


def _descend_autoscale(
    tokens: np.ndarray, losses: np.ndarray, start: np.ndarray, iterations: int = 400
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on N laws of two parameters at once, within e^-30 and e^30.

    The constant is eliminated: it is the mean of what the power leaves, so curves and losses are taken centred.

    Args:
        tokens: (N, n) amounts.
        losses: (N, n) centred losses.
        start: (N, 2) log a and log b.
        iterations: most of them.

    Returns:
        (N, 2) parameters and (N,) sums of squares.
    """
    at, damping = start.copy(), np.ones(len(start))
    left, jacobian = _autoscale_residuals(tokens, losses, at)
    cost = np.square(left).sum(1)
    for _ in range(iterations):
        slope = np.einsum("kni,kn->ki", jacobian, left)
        held = (np.abs(at) >= 30) & (slope * at < 0)  # at a bound, and the way down leads beyond it
        steepness = np.where(held, 0.0, np.sqrt(np.square(jacobian).sum(1)))
        scale = np.where(steepness > 0, steepness, np.inf)
        # In units in which both derivatives have length 1 the normal matrix is (1 + damping, c; c, 1 + damping).
        across = (jacobian[:, :, 0] * jacobian[:, :, 1]).sum(1) / scale.prod(1)
        down, own = slope / scale, 1 + damping
        step = (own[:, None] * down - across[:, None] * down[:, ::-1]) / scale
        step /= np.maximum(own**2 - across**2, 1e-14)[:, None]
        step /= np.maximum(np.abs(step).max(1, keepdims=True), 1)
        tried = np.clip(at - step, -30, 30)
        residuals, slopes = _autoscale_residuals(tokens, losses, tried)
        lower = np.square(residuals).sum(1)
        better = lower < cost
        settled = ~better & (damping > 1e8) | (cost - lower <= 1e-14 * cost) & better
        at[better], left[better], jacobian[better] = tried[better], residuals[better], slopes[better]
        cost = np.where(better, lower, cost)
        damping = np.clip(damping * np.where(better, 0.2, 5.0), 1e-12, 1e10)
        if settled.all():
            break
    return at, cost


def _autoscale_residuals(
    tokens: np.ndarray, losses: np.ndarray, logs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, n) centred (n + a)^-b less the centred losses, and (N, n, 2) derivatives by log a and log b."""
    equivalent, exponent = np.exp(logs.T)[:, :, None]
    amounts = tokens + equivalent
    far = np.log(amounts)
    curve = np.exp(-exponent * far)
    slopes = np.stack([-exponent * curve * equivalent / amounts, -exponent * far * curve], axis=2)
    return curve - curve.mean(1, keepdims=True) - losses, slopes - slopes.mean(1, keepdims=True)


def autoscale_optimum(
    equivalent: np.ndarray, exponent: np.ndarray, budget: float, lower: np.ndarray
) -> np.ndarray:
    """(m,) amounts that minimise sum_i (n_i + equivalent_i)^-exponent_i, sum `budget`, n >= lower.

    Raises:
        Infeasible: the lower bounds exceed the budget.
        InvalidSetting: an exponent that is not positive.
    """
    _require_positive(exponent=exponent)
    if lower.sum() > budget:
        raise Infeasible(
            f"the least amounts sum to {lower.sum():.6g}, above the budget of {budget:.6g}", field="lower"
        )

    def amounts(log_slope: float) -> np.ndarray:
        free = np.exp(np.minimum((np.log(exponent) - log_slope) / (exponent + 1), 700)) - equivalent
        return np.clip(free, lower, budget)

    # They fall from the whole budget for every domain to the lower bounds.
    slope: Any = brentq(lambda slope: float(amounts(slope).sum() - budget), -1e4, 1e4, xtol=1e-14)
    spent = amounts(slope)
    # What rounding left over goes where there is room for it.
    left = budget - spent.sum()
    room = budget - spent if left > 0 else spent - lower
    return spent + (left * room / room.sum() if room.sum() > 0 else 0)


def extrapolate_budgets(first: np.ndarray, second: np.ndarray, rounds: int = 1) -> np.ndarray:
    """(rounds, m) shares at ever larger budgets from the (m,) optimal amounts at two, the second the larger.

    N3 = N2 N2 / N1 for each domain, and again with the two latest; renormalised only in what is returned.

    Raises:
        InvalidSetting: an amount that is not positive, or no rounds.
    """
    _require_positive(first=first, second=second)
    if rounds < 1:
        raise InvalidSetting(f"rounds is {rounds}; it must be at least 1", field="rounds")
    growth = np.log(second) - np.log(first)
    amounts = np.log(second) + np.arange(1, rounds + 1)[:, None] * growth
    shares = np.exp(amounts - amounts.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def _require_positive(**values: np.ndarray) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) & (value > 0)).all():
            raise InvalidSetting(f"every {name} must be a positive number", field=name)
