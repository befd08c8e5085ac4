"""BiMix's law at a fixed number of steps: each domain's own loss from its own share (arXiv 2405.14908).

L_i(r, s) = (A_i / r_i^alpha_i) (B_i / s^beta_i + C_i) is, at one s, A_i' r_i^-alpha_i: two parameters a domain, which
the published four mixtures are enough for. Fitted by least squares of log L on log(r + eps), alpha held at least
0; the shift lets a share be 0 and keeps the law convex. It predicts held-out slices of domains and nothing else.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from mixing.inverses import floored_inverse
from mixing.laws.regression import Expansion, Fitted, Regression
from mixing.runs.table import RunTable

SHIFT = 1e-4
"""eps; a share of 0 counts as this."""


@dataclass(frozen=True)
class FittedOwnShare(Fitted):
    """The law of T held-out slices.

    Attributes:
        domains: (T,) column of each slice's domain.
        width: m.
        scales: (T,) A'.
        exponents: (T,) alpha >= 0.
        covariance: (T, 2, 2) of (log A', alpha).
    """

    domains: np.ndarray
    width: int
    scales: np.ndarray
    exponents: np.ndarray
    covariance: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, both (n, T), at (n, m) mixtures."""
        logs = np.log(weights[:, self.domains] + SHIFT)
        mean = self.scales * np.exp(-self.exponents * logs)
        jacobian = np.stack([np.ones_like(logs), -logs], axis=2)
        variance = np.einsum("nti,tij,ntj->nt", jacobian, self.covariance, jacobian)
        return mean, mean * np.sqrt(np.maximum(variance, 0))

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d L_t / d r_j: of its own domain only."""
        own = weights[:, self.domains] + SHIFT
        slope = -self.exponents * self.scales * own ** (-self.exponents - 1)
        found = np.zeros((len(weights), len(self.domains), self.width))
        found[:, np.arange(len(self.domains)), self.domains] = slope
        return found

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one (m,) mixture, for (T,) non-negative task weights."""
        own = weights[self.domains] + SHIFT
        value = self.scales * own**-self.exponents
        slope = -self.exponents * value / own
        bend = -(self.exponents + 1) * slope / own
        gradient, diagonal = np.zeros(self.width), np.zeros(self.width)
        np.add.at(gradient, self.domains, task_weights * slope)
        np.add.at(diagonal, self.domains, task_weights * bend)
        return Expansion(float(task_weights @ value), gradient, diagonal, np.zeros((0, self.width)))


@dataclass(frozen=True)
class OwnShareLaw(Regression):
    """The regression.

    Attributes:
        domains: (T,) column of the domain whose held-out slice each task is.
    """

    title = "law of own shares"
    needs_positive = True

    domains: tuple[int, ...]

    @classmethod
    def for_runs(cls, runs: RunTable) -> Self:
        """Of the domains whose held-out slices the columns are."""
        return cls(runs.own_domains())

    def runs_to_fit(self, domains: int) -> int:
        """Two parameters a domain, and one run to judge them by."""
        return 3

    def fit(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None
    ) -> FittedOwnShare:
        """Fit every task to (K, m) mixtures and (K, T) metrics; noise is not used.

        Raises:
            TooFewRuns: K < 3.
            InvalidMetrics: a metric that is not positive and finite, or that is constant.
        """
        self.check(weights, metrics)
        columns = np.array(self.domains)
        logs = np.log(weights[:, columns] + SHIFT)
        measured = np.log(metrics)
        centred = logs - logs.mean(0)
        spread = (centred**2).sum(0)
        slope = -(centred * measured).sum(0) / np.maximum(spread, 1e-12)
        exponents = np.maximum(np.where(spread > 1e-12, slope, 0.0), 0.0)
        level = measured.mean(0) + exponents * logs.mean(0)
        residuals = measured - level + exponents * logs
        variance = (residuals**2).sum(0) / max(len(weights) - 2, 1)
        design = np.stack([np.ones_like(logs), -logs], axis=2)
        information = np.einsum("kti,ktj->tij", design, design)
        covariance = variance[:, None, None] * floored_inverse(information, 1e-12)
        return FittedOwnShare(columns, weights.shape[1], np.exp(level), exponents, covariance)
