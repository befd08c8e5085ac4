"""What every regression offers, so that samplers, diagnostics and solvers work with any of them.

K runs over m domains and T tasks. `fit` takes the mixtures as rows on the simplex and the metrics as they were
measured, in the metric's unit (BPB where nothing else is said), lower or higher better alike: a regression only
predicts. All tasks are fitted in one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from mixing.errors import InvalidSetting
from mixing.parts import HELD_OUT_PREFIX


class Fitted(Protocol):
    """A regression after its fit."""

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the prediction, both (n, T), at (n, m) mixtures.

        The deviation is that of the predicted mean, not of a new measurement.
        """
        ...


@runtime_checkable
class Differentiable(Fitted, Protocol):
    """A fit with a gradient."""

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j at (n, m) mixtures, the weights taken as independent."""
        ...


@dataclass(frozen=True)
class Expansion:
    """A weighted sum of tasks to second order at one mixture.

    The Hessian is diag(`diagonal`) + `factors`^T `factors`, which a solver can invert at the cost of its rank.

    Attributes:
        value: sum_t w_t f_t(p).
        gradient: (m,).
        diagonal: (m,) non-negative.
        factors: (r, m), r at most the number of tasks.
    """

    value: float
    gradient: np.ndarray
    diagonal: np.ndarray
    factors: np.ndarray


@runtime_checkable
class ConvexLaw(Differentiable, Protocol):
    """A fit convex in the mixture for every task, which can therefore be minimised exactly."""

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one (m,) mixture, for (T,) non-negative task weights."""
        ...


class Regression(Protocol):
    """A family of laws with its settings."""

    def minimum_runs(self, domains: int) -> int:
        """Fewest runs it can be fitted with over so many domains."""
        ...

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> Fitted:
        """Fit every task.

        Args:
            weights: (K, m) rows on the simplex.
            metrics: (K, T).
            noise: (K, T) standard deviation of each measurement, 0 where unknown.

        Raises:
            TooFewRuns: K < `minimum_runs(m)`.
            InvalidMetrics: a metric the family cannot work with.
        """
        ...


@runtime_checkable
class Batched(Protocol):
    """A regression that can be fitted to many subsets of the runs at once, faster than one after the other."""

    def refits(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> Sequence[Fitted]:
        """(B,) fits, each to the runs that its row of the (B, K) booleans `kept` keeps.

        A subset below `minimum_runs` is fitted all the same, since folds of the smallest swarm are: what the family
        assumes decides what such a subset leaves open.
        """
        ...


def refits(
    regression: Regression,
    weights: np.ndarray,
    metrics: np.ndarray,
    kept: np.ndarray,
    noise: np.ndarray | None = None,
) -> Sequence[Fitted]:
    """(B,) fits, each to the runs that its row of the (B, K) booleans `kept` keeps.

    Raises:
        TooFewRuns, InvalidMetrics: as `Regression.fit`.
    """
    if isinstance(regression, Batched):
        return regression.refits(weights, metrics, kept, noise)
    return [
        regression.fit(weights[rows], metrics[rows], None if noise is None else noise[rows]) for rows in kept
    ]


@runtime_checkable
class HoldsOut(Protocol):
    """A regression that predicts runs left out of it more cheaply than by fitting again."""

    def held_out(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> np.ndarray:
        """(B, K, T) predictions at all K runs by B fits, each to the runs its row of the (B, K) booleans keeps."""
        ...


def held_out(
    regression: Regression,
    weights: np.ndarray,
    metrics: np.ndarray,
    kept: np.ndarray,
    noise: np.ndarray | None = None,
) -> np.ndarray:
    """(B, K, T) predictions at all K runs by B fits, each to the runs that its row of `kept` keeps."""
    if isinstance(regression, HoldsOut):
        return regression.held_out(weights, metrics, kept, noise)
    laws = refits(regression, weights, metrics, kept, noise)
    return np.stack([law.predict(weights)[0] for law in laws])


@dataclass(frozen=True)
class FitContext:
    """What a regression may be told besides weights and metrics.

    Attributes:
        tokens: (K,) how much each run trained, in units of a full proxy run.
        rounds: (K,) the round each run was sampled in.
        domains: (m,) names.
        columns: (C,) names of what is fitted.
    """

    tokens: np.ndarray
    rounds: np.ndarray
    domains: tuple[str, ...]
    columns: tuple[str, ...]

    def of(self, runs: np.ndarray) -> "FitContext":
        """That of some of the runs: (K,) booleans, or their positions."""
        return replace(self, tokens=self.tokens[runs], rounds=self.rounds[runs])

    def own_domains(self) -> tuple[int, ...]:
        """(C,) the domain whose held-out slice each column is.

        Raises:
            InvalidSetting: a column that is no domain's held-out slice, named.
        """
        at = {f"{HELD_OUT_PREFIX}{name}": column for column, name in enumerate(self.domains)}
        if strangers := sorted(set(self.columns) - set(at)):
            raise InvalidSetting(
                f"a law of each domain's own share predicts held-out slices, not {', '.join(strangers)}",
                field="tasks",
                names=strangers,
            )
        return tuple(at[name] for name in self.columns)
