"""One Gaussian process over mixtures and proxy sizes, so that many small runs help a few large ones.

The covariance is the product of that over mixtures and a squared exponential in the logarithm of the size, and the
constant mean gains a slope in it. ADMIRE-BayesOpt proposes mixtures and sizes by such a process.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.processes.fitted_process import FittedProcess, constant_frame
from mixing.laws.processes.gaussian_process import GaussianProcess, ProcessPrior, condition
from mixing.laws.regression import Fitted, Regression
from mixing.runs.table import RunTable


@dataclass(frozen=True)
class FittedMultiFidelity(Fitted):
    """The process of T tasks; `predict` is of the largest size among the runs.

    Attributes:
        process: over mixtures and centred logarithms of the size.
        centre: mean logarithm of the runs' sizes.
        spread: standard deviation of them, the unit of z; 1 where all are equal.
    """

    process: FittedProcess
    centre: float
    spread: float

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, both (n, T), at (n, m) mixtures and the largest size among the runs."""
        return self.process.predict(weights)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives at the largest size among the runs."""
        return self.process.gradient(weights)

    def at(self, fidelity: float) -> FittedProcess:
        """The same tasks at a named size, in the unit the runs' sizes were given in.

        Raises:
            InvalidSetting: the size is not positive.
        """
        if not fidelity > 0:
            raise InvalidSetting(f"a proxy size is a positive number, not {fidelity}", field="fidelity")
        return self.process.at((np.log(fidelity) - self.centre) / self.spread)


@dataclass(frozen=True)
class MultiFidelityGaussianProcess:
    """The regression and its settings.

    Attributes:
        process: features and search; its mean is a constant.
        prior: of the hyperparameters. `fidelity_length` is in standard deviations of the log size.
    """

    process: GaussianProcess = field(default_factory=GaussianProcess)
    prior: ProcessPrior = field(default_factory=ProcessPrior)

    def __post_init__(self) -> None:
        if self.process.mean is not None:
            raise InvalidSetting("a process over several sizes has a constant mean", field="mean")

    def runs_to_fit(self, domains: int) -> int:
        """Those of the process, of all sizes together."""
        return self.process.runs_to_fit(domains)

    def fit(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        noise: np.ndarray | None = None,
        *,
        fidelity: np.ndarray,
    ) -> FittedMultiFidelity:
        """Fit every task to (K, m) mixtures and (K, T) metrics of runs of (K,) sizes.

        Args:
            weights: rows on the simplex.
            metrics: what was measured.
            noise: (K, T) standard deviation of each measurement, added to the noise that is fitted.
            fidelity: number of parameters of each run's proxy, or its cost; positive.

        Raises:
            TooFewRuns: K < `runs_to_fit(m)`.
            InvalidMetrics: a metric that is not finite, or that is constant.
            InvalidSetting: a size that is not positive, or not one size per run.
        """
        self.process.check(weights, metrics)
        if fidelity.shape != (len(weights),) or not (fidelity > 0).all():
            raise InvalidSetting("every run needs a proxy size above 0", field="fidelity")
        logarithms = np.log(fidelity)
        spread = float(logarithms.std()) or 1.0
        size = (logarithms - logarithms.mean()) / spread
        frame = constant_frame(metrics)
        settings = replace(self.process, prior=self.prior)
        process = condition(settings, frame, weights, metrics, noise, size)
        return FittedMultiFidelity(process, float(logarithms.mean()), spread)


# A Gaussian process over mixtures and how much was trained, as a regression like any other.


@dataclass(frozen=True)
class OverTokens(Regression):
    """The multi-fidelity process with the share of a full proxy run's tokens as its fidelity.

    A short run is cheap and says less of a full one; how much less the process learns from both. The fit predicts
    full runs.

    Attributes:
        tokens: (K,) how much each run trained, in full proxy runs.
        process: the process over both.
    """

    tokens: np.ndarray
    process: MultiFidelityGaussianProcess = field(default_factory=MultiFidelityGaussianProcess)

    @classmethod
    def for_runs(cls, runs: RunTable) -> Self:
        """Of these runs' tokens."""
        return cls(runs.tokens)

    def runs_to_fit(self, domains: int) -> int:
        """Those of the process."""
        return self.process.runs_to_fit(domains)

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedProcess:
        """Fit every task to (K, m) mixtures and (K, T) metrics.

        Raises:
            TooFewRuns, InvalidMetrics: as the process.
            InvalidSetting: not one amount of tokens a run.
        """
        if len(weights) != len(self.tokens):
            raise InvalidSetting("every run needs to say how much it trained", field="runs")
        return self.process.fit(weights, metrics, noise, fidelity=self.tokens).at(1.0)
