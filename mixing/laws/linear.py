"""The linear law, f_t(p) = c_t . p: what a mixture of domains would do if each did its share alone.

Ridge regression of all tasks in one solve. The weights of a mixture sum to 1, so the mean of c is the intercept; the
ridge pulls c towards it and leaves it alone.
"""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting
from mixing.inverses import floored_inverse
from mixing.laws.regression import Expansion, Fitted, Regression, importance


@dataclass(frozen=True)
class FittedLinear(Fitted):
    """The law of T tasks over m domains.

    Attributes:
        coefficients: (T, m) c_t, in the metric's unit: the metric of a mixture of that domain alone.
        unscaled: (T, m, m), or (1, m, m) where all tasks' runs count alike: their covariance over the variance
            of the residuals.
        residual_std: (T,) standard deviation of the residuals, corrected for the parameters fitted.
    """

    coefficients: np.ndarray
    unscaled: np.ndarray
    residual_std: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the law (not of a new measurement), both (n, T), of (n, m) mixtures."""
        spread = ((weights @ self.unscaled) * weights).sum(2).T
        return weights @ self.coefficients.T, self.residual_std * np.sqrt(np.maximum(spread, 0))

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) the mean alone."""
        return weights @ self.coefficients.T

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j: the coefficients, everywhere."""
        return np.tile(self.coefficients, (len(weights), 1, 1))

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """Sum of the tasks at one (m,) mixture; nothing is of second order."""
        gradient = task_weights @ self.coefficients
        nothing = np.zeros((0, len(weights)))
        return Expansion(float(gradient @ weights), gradient, np.zeros(len(weights)), nothing)


@dataclass(frozen=True)
class LinearLaw(Regression):
    """The regression.

    Attributes:
        ridge: pull of the coefficients towards their mean, as a share of what a run adds on average to what is
            known of a domain (trace of the weights' second moments over m); a swarm of K runs resists it K times.

    Raises:
        InvalidSetting: a ridge that is not positive.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = LinearLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> mean.shape
    (20, 1)
    """

    title = "linear law"

    ridge: float = 0.3

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise InvalidSetting(f"ridge is {self.ridge}; it must be above 0", field="ridge")

    def runs_to_fit(self, domains: int) -> int:
        """One run more than a task has parameters."""
        return domains + 1

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedLinear:
        """Fit every task to (K, m) mixtures and (K, T) metrics, finite, with (K, T) deviations where known.

        Raises:
            TooFewRuns: K < m + 1.
            InvalidMetrics: a metric that is not finite, or that is constant.
        """
        self.check(weights, metrics)
        trust = importance(metrics, noise).T
        return self._fitted(weights, metrics, trust)

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> list[FittedLinear]:
        """(B,) fits, each to the runs that its row of the (B, K) booleans `kept` keeps.

        A subset smaller than `runs_to_fit` is fitted all the same: the ridge decides what it leaves open.
        """
        trust = importance(metrics, noise).T
        return [self._fitted(weights, metrics, trust * rows) for rows in kept]

    def _fitted(self, weights: np.ndarray, metrics: np.ndarray, trust: np.ndarray) -> FittedLinear:
        """By the (T, K) importance of each measurement."""
        coefficients, matrix, moments = self._solve(weights, metrics.T, trust)
        residuals = metrics - weights @ coefficients.T
        inverse = floored_inverse(matrix, 1e-12)
        spent = np.einsum("tij,tji->t", inverse, moments)
        runs = (trust > 0).sum(1)
        variance = (trust.T * residuals**2).sum(0) / np.maximum(runs - spent, 1)
        return FittedLinear(coefficients, inverse, np.sqrt(variance))

    def _solve(
        self, weights: np.ndarray, targets: np.ndarray, trust: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, m) coefficients, (N, m, m) normal matrix and the runs' part of it, of (N, K) targets.

        One matrix where all targets' runs count alike.
        """
        width = weights.shape[1]
        alike = trust[:1] if (trust == trust[:1]).all() else trust
        moments = (weights.T * alike[:, None, :]) @ weights
        pull = self.ridge * np.square(weights).sum(1).mean() / width
        matrix = moments + pull * (np.eye(width) - 1 / width)
        right = (trust * targets) @ weights
        return np.linalg.solve(matrix, right[:, :, None])[:, :, 0], matrix, moments
