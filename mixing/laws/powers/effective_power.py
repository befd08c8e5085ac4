"""The effective power law: a task sees an effective amount of useful data, and its loss falls as a power of it.

    y_t(p) = C_t + A_t (sum_j u_tj (p_j + eps)^beta_tj + e_t)^(-gamma_t),   A, u, e, gamma > 0, 0 < beta < 1

Each domain is worth u to the task and less the more there is of it already. The sum is concave and positive in p and
x^-gamma is convex and decreasing, so y_t is convex in p, and a constrained solve over it is exact. A metric that is
better when higher must be negated first; the law needs no positive metrics, for C is free below the lowest one.

The residuals are those of log(y - C), so the noise is taken as proportional to the gap that is left to C, and
Student-t. The 2m + 5 parameters of a task have weak normal priors, in units in which a metric's standard deviation
is 1. The priors carry the fit where there are fewer runs than parameters, and below the 2m runs that the domains'
own two parameters take the noise is found apart from them (`mixing.laws.powers.few_runs`). It is refused only below
max(8, m / 2) runs, and from 2m runs it can be trusted.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mixing.inverses import posterior_covariance
from mixing.laws.powers.descent import (
    SHARED,
    PowerPrior,
    PowerProblems,
    column,
    descend,
    exponents,
    information,
    useful_terms,
)
from mixing.laws.powers.few_runs import again, lowest
from mixing.laws.regression import Expansion, Fitted, Regression, importance

MOVABLE = ("exponent", "decay", "scale", "rest")
"""The shared parameters that move log(y - C) at a fixed C."""

_MEMORY = 2_000_000  # numbers in the largest array of a prediction: 16 MB
_COARSE = 1.5  # runs a parameter that starts are tried on
_RIDGE = 0.05  # of a descent's first linear fit, relative to what the runs know of a domain on average


@dataclass(frozen=True)
class FittedEffectivePower(Fitted):
    """The law of T tasks over m domains.

    Attributes:
        usefulness: (T, m) u.
        exponents: (T, m) beta.
        rest: (T,) e, what a task has without any of the domains.
        decay: (T,) gamma.
        scales: (T,) A, in the metric's unit.
        constants: (T,) C, in the metric's unit; below every metric the law was fitted to.
        floor: eps.
        relative_noise: (T,) scale of the Student-t noise of log(y - C).
        theta: (T, P) the parameters as they were fitted.
        unit: (T,) standard deviation of the metrics fitted, the unit of theta.
        problems: what was fitted.
        converged: (T,) whether the parameters are a minimum, not where the iterations ended.
    """

    usefulness: np.ndarray
    exponents: np.ndarray
    rest: np.ndarray
    decay: np.ndarray
    scales: np.ndarray
    constants: np.ndarray
    floor: float
    relative_noise: np.ndarray
    theta: np.ndarray
    unit: np.ndarray
    problems: PowerProblems
    converged: np.ndarray

    @cached_property
    def covariance(self) -> np.ndarray:
        """(T, P-1, P-1) of all of theta but the noise, in Laplace's approximation."""
        precision = np.diag(self.problems.width[:-1] ** -2.0)
        found = np.empty((len(self.theta), *precision.shape))
        for task in range(
            len(found)
        ):  # one after the other: thousands of parameters have millions of covariances
            one = slice(task, task + 1)
            known = information(self.problems.part(one), self.theta[one])[:, :-1, :-1] - precision
            found[one] = posterior_covariance(known, precision)
        return found

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the law (not of a new measurement), both (n, T), of (n, m) mixtures.

        The deviation is what the runs leave open of the parameters; that the law has another shape than the truth,
        which with many runs is most of its error, is not in it.
        """
        parts = [self._predict(rows) for rows in self._chunks(weights)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) the mean alone."""
        gaps = [np.exp(self.log_gap(rows)).T for rows in self._chunks(weights)]
        return self.constants + np.concatenate(gaps)

    def unfinished(self) -> np.ndarray:
        """(u,) the tasks whose fit ran out of iterations before it reached a minimum."""
        return np.flatnonzero(~self.converged)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j, the weights taken as independent."""
        terms = useful_terms(self.theta, np.log(weights + self.floor))
        total = terms.sum(2) + self.rest[:, None]
        falling = -self.decay[:, None] * self.scales[:, None] * total ** (-self.decay[:, None] - 1)
        slopes = self.exponents[:, None, :] * terms / (weights + self.floor)
        return (falling[:, :, None] * slopes).transpose(1, 0, 2)

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one (m,) mixture, for (T,) non-negative task weights."""
        present = weights + self.floor
        terms = self.usefulness * np.exp(
            self.exponents * np.log(present)
        )  # one power of (T, m), the slowest part
        slopes = self.exponents * terms / present
        bends = slopes * (1 - self.exponents) / present
        total = terms.sum(1) + self.rest
        gap = task_weights * self.scales * total**-self.decay
        falling = self.decay * gap / total
        curvature = (self.decay + 1) * falling / total
        return Expansion(
            value=float(task_weights @ self.constants + gap.sum()),
            gradient=-falling @ slopes,
            diagonal=falling @ bends,
            factors=np.sqrt(curvature)[:, None] * slopes,
        )

    def log_gap(self, weights: np.ndarray) -> np.ndarray:
        """(T, n) log(y - C) of the law at (n, m) mixtures."""
        total = useful_terms(self.theta, np.log(weights + self.floor)).sum(2) + self.rest[:, None]
        return np.log(self.scales)[:, None] - self.decay[:, None] * np.log(total)

    def sensitivity(self, weights: np.ndarray) -> np.ndarray:
        """(T, n, P-2) d log(y - C) / d theta at (n, m) mixtures; the gap and the noise have no part in it.

        The columns are those of theta with these two taken out, see `MOVABLE`.
        """
        log_weights = np.log(weights + self.floor)
        terms = useful_terms(self.theta, log_weights)
        total = terms.sum(2) + self.rest[:, None]
        share = -self.decay[:, None] / total
        useful = share[:, :, None] * terms
        bending = useful * log_weights * (self.exponents * (1 - self.exponents))[:, None, :]
        shared = {
            "exponent": bending.sum(2),
            "decay": -self.decay[:, None] * np.log(total),
            "scale": np.ones_like(total),
            "rest": share * self.rest[:, None],
        }
        return np.concatenate([useful, bending, *(shared[name][:, :, None] for name in MOVABLE)], axis=2)

    def log_gap_gradient(self, weights: np.ndarray, change: np.ndarray) -> np.ndarray:
        """(T, n, m) d / d p_j of `log_gap` + `sensitivity` . change, at (n, m) mixtures, for (T, P-2) changes."""
        domains = weights.shape[1]
        exponent, decay, _, rest = change[:, 2 * domains :].T[:, :, None]
        present = weights + self.floor
        log_weights = np.log(present)
        terms = useful_terms(self.theta, log_weights)
        total = (terms.sum(2) + self.rest[:, None])[:, :, None]
        slopes = self.exponents[:, None, :] * terms / present
        bend = (self.exponents * (1 - self.exponents) * (change[:, domains : 2 * domains] + exponent))[
            :, None, :
        ]
        moves = change[:, None, :domains] + log_weights * bend
        moved = ((terms * moves).sum(2) + self.rest[:, None] * rest)[:, :, None]
        gradient = slopes * (1 + moves + decay[:, :, None] - moved / total) + terms * bend / present
        return -self.decay[:, None, None] * gradient / total

    def _chunks(self, weights: np.ndarray) -> list[np.ndarray]:
        rows = max(1, _MEMORY // self.theta.size)
        return [weights[at : at + rows] for at in range(0, max(len(weights), 1), rows)]

    def _predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gap = np.exp(self.log_gap(weights))
        jacobian = np.empty((*gap.shape, self.theta.shape[1]))
        jacobian[:, :, movable_columns(self.theta.shape[1])] = gap[:, :, None] * self.sensitivity(weights)
        jacobian[:, :, column("gap")] = -(self.unit * np.exp(self.theta[:, column("gap")]))[:, None]
        jacobian = jacobian[:, :, :-1]
        variance = ((jacobian @ self.covariance) * jacobian).sum(2)
        return (self.constants[:, None] + gap).T, np.sqrt(np.maximum(variance, 0)).T


@dataclass(frozen=True)
class EffectivePowerLaw(Regression):
    """The regression and its settings; see the module for what they mean.

    Attributes:
        floor: eps, added to every weight, so that a domain left out is not infinitely worse than a trace of it.
        prior: of the parameters.
        iterations: most steps of a descent.
        tolerance: improvement of the loss, in nats, at which a fit is finished.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = EffectivePowerLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> bool(np.abs(mean - bits).max() < 0.05)
    True
    """

    title = "effective power law"

    floor: float = 5e-5
    prior: PowerPrior = field(default_factory=PowerPrior)
    iterations: int = 1000
    tolerance: float = 1e-8

    def runs_to_fit(self, domains: int) -> int:
        """Half a run per domain, and 8: the priors decide the rest."""
        return max(8, domains // 2)

    def fit(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None
    ) -> FittedEffectivePower:
        """Fit the law of every task to (K, m) mixtures and (K, T) metrics.

        Args:
            weights: rows on the simplex.
            metrics: what was measured; lower is better.
            noise: (K, T) standard deviation of each measurement, 0 where unknown; see `importance`.

        Raises:
            TooFewRuns: K < max(8, m // 2).
            InvalidMetrics: a metric that is not finite, or that is constant.
        """
        self.check(weights, metrics)
        return self.refit(weights, metrics[None], self.importance(metrics, noise)[None])[0]

    def importance(self, metrics: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """(K, T) weight of each measurement, of mean 1 per task."""
        return importance(metrics, noise)

    def refit(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        importance: np.ndarray,
        near: FittedEffectivePower | None = None,
    ) -> tuple[FittedEffectivePower, ...]:
        """B fits in one batch, for the bootstrap.

        Args:
            weights: (K, m), shared by all.
            metrics: (B, K, T), or (1, K, T) to share them.
            importance: (B, K, T) weight of each run in each fit, 0 to leave it out; or (1, K, T).
            near: start from these laws alone.
        """
        problems, floors, unit = self._problems(weights, metrics, importance)
        theta, converged = self._lowest(problems, near)
        tasks = metrics.shape[2]
        batches = [slice(first, first + tasks) for first in range(0, len(theta), tasks)]  # of one fit each
        constants = floors - unit * np.exp(theta[:, column("gap")])
        return tuple(
            self._fitted(theta[at], constants[at], unit[at], problems.part(at), converged[at])
            for at in batches
        )

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> tuple[FittedEffectivePower, ...]:
        """(B,) fits in one batch, each to the runs that its row of the (B, K) booleans `kept` keeps.

        They start from the fit to all runs, of which they take a tenth of the steps.
        """
        self.check(weights[: kept.sum(1).min()], metrics)
        trust = self.importance(metrics, noise)[None]
        if not isinstance(whole, FittedEffectivePower):
            (whole,) = self.refit(weights, metrics[None], trust)
        return self.refit(weights, metrics[None], trust * kept[:, :, None], near=whole)

    def _problems(
        self, weights: np.ndarray, metrics: np.ndarray, importance: np.ndarray
    ) -> tuple[PowerProblems, np.ndarray, np.ndarray]:
        """The (B T) problems, and the (B T) lowest metric and standard deviation that each is measured in."""
        shape = np.broadcast_shapes(metrics.shape, importance.shape)
        values = np.broadcast_to(metrics, shape).transpose(0, 2, 1).reshape(-1, shape[1])
        trust = np.broadcast_to(importance, shape).transpose(0, 2, 1).reshape(-1, shape[1])
        kept = trust > 0
        lowest = np.where(kept, values, np.inf).min(1)
        unit = values.std(1, where=kept)
        unit = np.where(unit > 0, unit, 1.0)  # a fold may see one value only
        scaled = (values - lowest[:, None]) / unit[:, None]
        centre, width = self.prior.stacked(weights.shape[1])
        log_weights = np.log(weights + self.floor)
        return PowerProblems(log_weights, scaled, trust, centre, width), lowest, unit

    def _lowest(
        self, problems: PowerProblems, near: FittedEffectivePower | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, P) parameters of the lowest minimum found, and (N,) whether it is one."""
        count, (runs, parameters) = len(problems.metrics), (len(problems.log_weights), len(problems.centre))
        few = runs < 2 * problems.log_weights.shape[1]
        if near:
            theta = np.tile(near.theta, (count // len(near.theta), 1))
            if few:
                return again(problems, theta, self.iterations)
            theta, _, converged = descend(problems, theta, self.iterations, self.tolerance)
            return theta, converged
        # The minimum of a part of many runs is near that of all.
        stride = max(1, int(runs / (_COARSE * parameters)))
        coarse = problems.runs(np.arange(0, runs, stride))
        starts = [self._alike(coarse), self._informed(coarse)]
        if few:
            return lowest(problems, starts, self.iterations)
        twice = coarse.part(np.tile(np.arange(count), len(starts)))
        theta, loss, converged = descend(twice, np.concatenate(starts), self.iterations, self.tolerance)
        best = loss.reshape(len(starts), count).argmin(0) * count + np.arange(count)
        if stride == 1:
            return theta[best], converged[best]
        theta, _, converged = descend(problems, theta[best], self.iterations, self.tolerance)
        return theta, converged

    def _alike(self, problems: PowerProblems) -> np.ndarray:
        """(N, P) where a descent begins: all domains alike, the noise wide, the law amid the runs."""
        theta = np.tile(problems.centre, (len(problems.metrics), 1))
        theta[:, column("gap")] = 0
        theta[:, column("noise")] = -1.5
        return self._amid(problems, theta)

    def _informed(self, problems: PowerProblems) -> np.ndarray:
        """(N, P) where another begins: hardly bent and far above C, each domain as useful as a linear fit finds it.

        It is what finds laws with a best mixture inside, of domains that are all needed.
        """
        domains = problems.log_weights.shape[1]
        theta = self._alike(problems)
        for name, value in (("gap", 4.5), ("rest", -4.0), ("decay", -0.2)):
            theta[:, column(name)] = value
        theta = self._amid(problems, theta)
        features = np.exp(exponents(theta[0]) * problems.log_weights)
        alike, decay = np.exp(theta[0, :domains]), np.exp(theta[0, column("decay")])
        # The total that would predict each run exactly is linear in u: ridge regression of relative errors.
        exact = np.exp((theta[:, column("scale"), None] - self._logs(problems, theta)) / decay)
        missing = exact - features @ alike - np.exp(theta[0, column("rest")])
        weighted = (problems.importance / exact**2)[:, :, None] * features
        matrix = weighted.transpose(0, 2, 1) @ features
        matrix += _RIDGE * np.trace(matrix, axis1=1, axis2=2)[:, None, None] / domains * np.eye(domains)
        useful = alike + np.linalg.solve(matrix, (missing[:, None, :] @ weighted)[:, 0, :, None])[:, :, 0]
        theta[:, :domains] = np.log(np.maximum(useful, alike / 10))
        return theta

    def _logs(self, problems: PowerProblems, theta: np.ndarray) -> np.ndarray:
        """(N, K) log(y - C); a run that is left out may lie below the lowest."""
        return np.log(np.maximum(problems.metrics, 0) + np.exp(theta[:, column("gap"), None]))

    def _amid(self, problems: PowerProblems, theta: np.ndarray) -> np.ndarray:
        """Theta with the scale that makes the mean residual 0."""
        total = useful_terms(theta[0], problems.log_weights).sum(1) + np.exp(theta[0, column("rest")])
        centred = self._logs(problems, theta) + np.exp(theta[0, column("decay")]) * np.log(total)
        trust = problems.importance / problems.importance.sum(1, keepdims=True)
        theta[:, column("scale")] = (trust * centred).sum(1)
        return theta

    def _fitted(
        self,
        theta: np.ndarray,
        constants: np.ndarray,
        unit: np.ndarray,
        problems: PowerProblems,
        converged: np.ndarray,
    ) -> FittedEffectivePower:
        domains = (theta.shape[1] - len(SHARED)) // 2
        return FittedEffectivePower(
            usefulness=np.exp(theta[:, :domains]),
            exponents=exponents(theta),
            rest=np.exp(theta[:, column("rest")]),
            decay=np.exp(theta[:, column("decay")]),
            scales=unit * np.exp(theta[:, column("scale")]),
            constants=constants,
            floor=self.floor,
            relative_noise=np.exp(theta[:, column("noise")]),
            theta=theta,
            unit=unit,
            problems=problems,
            converged=converged,
        )


def movable_columns(size: int) -> np.ndarray:
    """(P-2,) the columns of a theta of P parameters without the gap and the noise."""
    return np.delete(np.arange(size), [size + column("gap"), size + column("noise")])
