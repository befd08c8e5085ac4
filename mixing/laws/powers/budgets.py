"""AutoScale as published (arXiv 2407.20177): how the loss falls with each domain's own tokens, at several budgets.

At each budget the runs are the base and every domain's tokens raised and lowered in turn, the others' unchanged. Of
each domain

    y_i(n) = (n + a_i)^-b_i + c_i

is fitted to the three losses. The optimum at that budget is in closed form: the sum of the falling convex y_i is
minimised, so every domain that is not at its lower bound has the same slope mu, found by root finding, and

    n_i = (b_i / mu)^(1 / (b_i + 1)) - a_i.

The optima at two budgets are extrapolated to larger ones.

Tokens are counted in thousandths of a full proxy run: the law has no factor of its own, so its unit matters, and
in this one a domain's share of a few percent is a number of some tens.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import brentq

from mixing.errors import Infeasible, InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.regression import Fitted, Regression
from mixing.runs.table import RunTable


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
    Its exponents are those of losses over data, where the other's curve is flat soon beyond the largest amount.

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


UNIT = 1e-3
"""Of a full proxy run's tokens; what the amounts are counted in."""
_VARIED = 0.05
"""A run changes a domain by more than this share of its base; less is what counting whole tokens and rows leaves."""


@dataclass(frozen=True)
class Budget:
    """The laws at one budget.

    Attributes:
        tokens: the budget, in full proxy runs.
        base: (m,) amounts of the base run, in `UNIT`.
        measured: (T,) the base run's metrics.
        laws: (T,) the laws of each task.
    """

    tokens: float
    base: np.ndarray
    measured: np.ndarray
    laws: tuple[AutoScaleLaws, ...]

    def optimum(self, task: int) -> np.ndarray:
        """(m,) amounts of least loss of one task, none below a thousandth of its base."""
        return self.laws[task].optimum(self.tokens / UNIT, 1e-3 * self.base)


@dataclass(frozen=True)
class FittedBudgets(Fitted):
    """The laws at every budget, smallest first; predictions are of the largest.

    Attributes:
        budgets: at least one.
    """

    budgets: tuple[Budget, ...]

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean, (n, T), at (n, m) mixtures and the largest budget; the deviation is not known and given as 0.

        What each domain's own law says that its tokens change, added to the base run's loss.
        """
        last = self.budgets[-1]
        amounts = weights * last.tokens / UNIT
        mean = np.stack(
            [
                measured + (law.predict(amounts) - law.predict(last.base[None])).sum(1)
                for law, measured in zip(last.laws, last.measured, strict=True)
            ],
            axis=1,
        )
        return mean, np.zeros_like(mean)

    def extrapolated(self, tokens: float, task: int = -1) -> np.ndarray:
        """(m,) the optimum of one task extrapolated to a budget of so many full proxy runs.

        With one budget, or a target no larger than the largest, the optimum there.
        """
        last = self.budgets[-1]
        second = last.optimum(task)
        if len(self.budgets) < 2 or tokens <= last.tokens:
            return second / second.sum()
        before = self.budgets[-2]
        growth = math.log(last.tokens / before.tokens)
        steps = max(1, round(math.log(tokens / last.tokens) / growth))
        return extrapolate_budgets(before.optimum(task), second, steps)[-1]


@dataclass(frozen=True)
class BudgetLaw(Regression):
    """The regression.

    Attributes:
        tokens: (K,) how much each run trained, in full proxy runs.
        rounds: (K,) which budget each run belongs to.
    """

    tokens: np.ndarray
    rounds: np.ndarray

    @classmethod
    def for_runs(cls, runs: RunTable) -> Self:
        """Of these runs' tokens and rounds."""
        return cls(runs.tokens, runs.rounds)

    def runs_to_fit(self, domains: int) -> int:
        """The base and two runs a domain, at each of two budgets."""
        return 4 * domains + 2

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedBudgets:
        """Fit every task to (K, m) mixtures and (K, T) metrics; noise is not used.

        Raises:
            TooFewRuns: a budget lacks the base or a domain's run.
            InvalidSetting: the runs are not a base and its perturbations.
        """
        if len(weights) != len(self.tokens):
            raise InvalidSetting("every run needs to say how much it trained", field="runs")
        budgets = []
        for number in np.unique(self.rounds):
            own = self.rounds == number
            budgets.append(_budget(weights[own], self.tokens[own], metrics[own]))
        return FittedBudgets(tuple(sorted(budgets, key=lambda budget: budget.tokens)))


def _budget(weights: np.ndarray, tokens: np.ndarray, metrics: np.ndarray) -> Budget:
    runs, domains = weights.shape
    amounts = weights * tokens[:, None] / UNIT
    if runs < 2 * domains + 1:
        raise TooFewRuns(
            f"{runs} of the {2 * domains + 1} runs of a budget are there; AutoScale's laws need the base and"
            " both perturbations of every domain",
            needed=2 * domains + 1,
            given=runs,
        )
    base = np.median(amounts, axis=0)  # every domain is at its base in all runs but its own two
    away = np.abs(amounts / base - 1) > _VARIED
    if (away.sum(1) > 1).any() or (away.sum(0) != 2).any() or not (~away.any(1)).any():
        raise InvalidSetting(
            "AutoScale's laws read a base run and two runs of every domain that change its tokens alone",
            field="runs",
        )
    at_base = int(np.flatnonzero(~away.any(1))[0])
    varied = np.array([[at_base, *np.flatnonzero(away[:, column])] for column in range(domains)])
    own = amounts[varied, np.arange(domains)[:, None]].T
    tasks = metrics.shape[1]
    together = fit_autoscale(np.tile(own, tasks), metrics[varied].transpose(1, 2, 0).reshape(3, -1))
    parts = (together.equivalent, together.exponent, together.constant)
    laws = (AutoScaleLaws(*each) for each in zip(*(part.reshape(tasks, -1) for part in parts), strict=True))
    return Budget(float(base.sum() * UNIT), base, metrics[at_base], tuple(laws))
