"""AutoScale as published (arXiv 2407.20177): how the loss falls with each domain's own tokens, at several budgets.

At each budget the runs are the base and every domain's tokens raised and lowered in turn, the others' unchanged. Of
each domain y(n) = (n + a)^-b + c is fitted to the three losses; the optimum at that budget is in closed form
(`mixing.solve.closed_form`), and the optima at two budgets are extrapolated to larger ones.

Tokens are counted in thousandths of a full proxy run: the law has no factor of its own, so its unit matters, and
in this one a domain's share of a few percent is a number of some tens.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.regression import Fitted, Regression
from mixing.runs.table import RunTable
from mixing.solve.closed_form import AutoScaleLaws, extrapolate_budgets, fit_autoscale

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
