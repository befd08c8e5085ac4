"""A Gaussian process over mixtures and how much was trained, as a regression like any other."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.processes.fitted_process import FittedProcess
from mixing.laws.processes.multi_fidelity import MultiFidelityGaussianProcess
from mixing.laws.regression import FitContext, Regression


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
    def for_runs(cls, runs: FitContext) -> Self:
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
