"""The laws of BiMix and AutoScale as published, one domain's loss over its own share or tokens, and their optima.

Both minimise a sum of one falling convex function a domain under one budget. So at the optimum every domain that is
not at a bound has the same slope mu; each domain's amount follows from mu in closed form, and mu by bisection.

    BiMix (arXiv 2405.14908):     L_i(r, s) = (A_i / r_i^alpha_i) (B_i / s^beta_i + C_i)
                                  r_i = (w_i A_i alpha_i / mu)^(1 / (alpha_i + 1)) at a fixed s, at most its cap
    AutoScale (arXiv 2407.20177): y_i(n) = (n + a_i)^-b_i + c_i
                                  n_i = (b_i / mu)^(1 / (b_i + 1)) - a_i, at least its lower bound
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from mixing.errors import Infeasible, InvalidMetrics, InvalidSetting, TooFewRuns


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

    Raises:
        TooFewRuns: fewer than 4 readings, or no 2 different steps.
        InvalidMetrics: a share or loss that is not positive.
    """
    needed = 4
    if len(losses) < needed or len(np.unique(steps)) < 2:
        raise TooFewRuns(
            f"BiMix has {needed} parameters a domain: it needs {needed} readings at 2 or more different steps",
            needed=needed,
            given=len(losses),
        )
    if not ((shares > 0).all() and (losses > 0).all() and (steps > 0).all()):
        raise InvalidMetrics(
            "BiMix takes logarithms: shares, steps and losses must be positive", field="losses"
        )
    middle = np.exp(np.log(steps).mean())
    times = np.log(steps / middle)
    found = []
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
        found.append(_least_squares(residuals, begin))
    share_exponent, factor, step_exponent, constant = np.exp(np.array(found).T)
    return BiMixLaws(share_exponent, factor * middle**step_exponent, step_exponent, constant)


def bimix_optimum(
    scale: np.ndarray, exponent: np.ndarray, caps: np.ndarray, task_weights: np.ndarray | None = None
) -> np.ndarray:
    """(m,) shares that minimise sum_i w_i scale_i r_i^-exponent_i, sum 1, 0 <= r <= caps.

    Raises:
        Infeasible: the caps leave no mixture.
        InvalidSetting: a scale or exponent that is not positive.
    """
    _require_positive(scale=scale, exponent=exponent)
    if caps.sum() < 1:
        raise Infeasible(f"the caps sum to {caps.sum():.6g}; no mixture fits under them", field="caps")
    weights = np.ones_like(scale) if task_weights is None else task_weights
    steepness = np.log(np.maximum(weights * scale * exponent, 1e-300))
    upper = np.minimum(caps, 1.0)

    def amounts(log_slope: float) -> np.ndarray:
        return np.minimum(np.exp(np.minimum((steepness - log_slope) / (exponent + 1), 0)), upper)

    return _spend(amounts, 1.0, np.zeros_like(scale), upper)


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
    found, cost = _descend_autoscale(repeated, goal, starts.reshape(-1, 2))
    logs, cost = found.reshape(starts.shape), cost.reshape(starts.shape[:2])
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

    return _spend(amounts, budget, lower, np.full_like(exponent, budget))


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


def _spend(
    amounts: Callable[[float], np.ndarray], budget: float, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Amounts at the common slope at which they sum to the budget; they fall as the slope rises."""
    low, high = -1.0, 1.0
    while amounts(low).sum() < budget and low > -1e4:
        low *= 2
    while amounts(high).sum() > budget and high < 1e4:
        high *= 2
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if amounts(middle).sum() > budget else (low, middle)
    found = amounts(0.5 * (low + high))
    # What rounding left over goes where there is room for it.
    left = budget - found.sum()
    room = upper - found if left > 0 else found - lower
    return found + (left * room / room.sum() if room.sum() > 0 else 0)


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


def _require_positive(**values: np.ndarray) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) & (value > 0)).all():
            raise InvalidSetting(f"every {name} must be a positive number", field=name)
