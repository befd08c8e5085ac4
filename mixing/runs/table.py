"""One table of runs: K of them over m domains, with what was measured in C columns.

Everything that learns from runs takes this table: a regression is made for one, is fitted to one, and is fitted again
to some of its rows or to some of its columns. An objective is read from the columns (`Groups`).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from mixing.domains import HELD_OUT_PREFIX
from mixing.errors import (
    InvalidSetting,
)

Aggregation = Literal["weighted mean", "worst family"]


@dataclass(frozen=True, eq=False)
class RunTable:
    """Runs as rows; make one with `RunTable.of`.

    Attributes:
        domains: (m,) names of what the weights are over: domains, the contents of a lineage, virtual domains.
        names: (C,) of the columns: tasks, and groups of tasks where a law is of coarser grain.
        weights: (K, m) rows on the simplex.
        metrics: (K, C) lower is better; NaN where an older run was not measured.
        noise: (K, C) standard deviation of each measurement, 0 where unknown.
        tokens: (K,) how much each run trained, in units of a full proxy run.
        rounds: (K,) the round each run was sampled in.
        older: (K,) whether it was trained for an older revision.
        off: (K,) L1 distance between each run and the mixture it is shown as here; 0 but for older runs with text
            that the newest revision has not.
        rounding: (K,) L1 distance between each run and the mixture that was asked for: a run trains whole rows.

    >>> runs = RunTable.of(("code", "web"), ("reading",), np.eye(2), np.array([[1.2], [0.9]]))
    >>> runs.rows(np.array([False, True])).metrics
    array([[0.9]])
    """

    domains: tuple[str, ...]
    names: tuple[str, ...]
    weights: np.ndarray
    metrics: np.ndarray
    noise: np.ndarray
    tokens: np.ndarray
    rounds: np.ndarray
    older: np.ndarray
    off: np.ndarray
    rounding: np.ndarray

    @classmethod
    def of(
        cls,
        domains: tuple[str, ...],
        names: tuple[str, ...],
        weights: np.ndarray,
        metrics: np.ndarray,
        **told: np.ndarray,
    ) -> Self:
        """Full runs of one revision and one round, without noise, but for what is `told` of them by name."""
        runs = len(weights)
        usual = {
            "noise": np.zeros_like(metrics),
            "tokens": np.ones(runs),
            "rounds": np.zeros(runs, int),
            "older": np.zeros(runs, bool),
            "off": np.zeros(runs),
            "rounding": np.zeros(runs),
        }
        return cls(domains, names, weights, metrics, **{**usual, **told})

    def __len__(self) -> int:
        return len(self.weights)

    def rows(self, kept: np.ndarray) -> Self:
        """Some of the runs: (K,) booleans, or their positions."""
        each = ("weights", "metrics", "noise", "tokens", "rounds", "older", "off", "rounding")
        return replace(self, **{name: getattr(self, name)[kept] for name in each})

    def columns(self, positions: np.ndarray) -> Self:
        """Some of what was measured, by (c,) positions."""
        names = tuple(self.names[position] for position in positions)
        return replace(self, names=names, metrics=self.metrics[:, positions], noise=self.noise[:, positions])

    def over(self, domains: tuple[str, ...], weights: np.ndarray) -> Self:
        """The same runs as (K, n) weights over n other domains."""
        return replace(self, domains=domains, weights=weights)

    @property
    def measured(self) -> np.ndarray:
        """(K, C) whether the run was measured."""
        return ~np.isnan(self.metrics)

    @property
    def complete(self) -> np.ndarray:
        """(K,) whether everything was measured on the run."""
        return np.asarray(self.measured.all(axis=1))

    @cached_property
    def ends(self) -> np.ndarray:
        """(2, C) the lowest and the highest that was measured."""
        return np.stack([np.nanmin(self.metrics, axis=0), np.nanmax(self.metrics, axis=0)])

    def own_domains(self) -> tuple[int, ...]:
        """(C,) the domain whose held-out slice each column is.

        Raises:
            InvalidSetting: a column that is no domain's held-out slice, named.
        """
        at = {f"{HELD_OUT_PREFIX}{name}": column for column, name in enumerate(self.domains)}
        if strangers := sorted(set(self.names) - set(at)):
            raise InvalidSetting(
                f"a law of each domain's own share predicts held-out slices, not {', '.join(strangers)}",
                field="tasks",
                names=strangers,
            )
        return tuple(at[name] for name in self.names)


@dataclass(frozen=True)
class Groups:
    """The G columns a regression is fitted to, and how an objective of F families is read from them.

    Columns are `metrics @ matrix.T`; a task that is only watched is a column of its own.

    Attributes:
        names: (G,) the columns: tasks, families, or the objective.
        matrix: (G, T).
        families: (F,) names of the families that count.
        membership: (F, G): a family's mean is `membership @ column values`.
        offsets: (F,) what is taken off each mean before the worst is chosen; 0 unless standardised.
        weights: (F,) summing to 1.
        aggregation: how the families are combined.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    families: tuple[str, ...]
    membership: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    aggregation: Aggregation

    @property
    def column_weights(self) -> np.ndarray:
        """(G,) weight of each column in the weighted mean."""
        return self.weights @ self.membership

    @property
    def worst(self) -> bool:
        """Whether the objective is the worst family's mean instead of the weighted one."""
        return self.aggregation == "worst family"

    def value(self, columns: np.ndarray) -> np.ndarray:
        """(...,) the objective, lower is better, of (..., G) column values; NaN where one it counts is NaN."""
        counted = self.membership.any(axis=0)
        if self.worst:
            return (columns[..., counted] @ self.membership[:, counted].T - self.offsets).max(axis=-1)
        return columns[..., counted] @ self.column_weights[counted]

    def with_value(self, columns: np.ndarray) -> np.ndarray:
        """(..., G + 1) the (..., G) column values and the objective of them."""
        return np.concatenate([columns, self.value(columns)[..., None]], axis=-1)

    def beside(self, tasks: tuple[str, ...]) -> "Groups":
        """The same objective read from the (T,) tasks followed by the groups that count in it."""
        each = np.eye(len(tasks))
        if self.names == tasks and np.array_equal(self.matrix, each):
            return self
        counted = np.flatnonzero(self.membership.any(0))
        none = np.zeros((len(self.membership), len(tasks)))
        return replace(
            self,
            names=tasks + tuple(self.names[column] for column in counted),
            matrix=np.concatenate([each, self.matrix[counted]]),
            membership=np.concatenate([none, self.membership[:, counted]], axis=1),
        )


MOSTLY = 0.75
"""Share of a group's weight that a run must have measured to count in it."""


def read_from(matrix: np.ndarray, metrics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, G) `metrics @ matrix.T` of (K, T) metrics with gaps and weights of at least 0, and how unsure each is.

    Where a run measured most of a group, what it lacks is taken to lie off its mean over the runs by as much as what
    it has does on average. The deviation is that of the lacking tasks around such averages, taken as independent.
    Where it measured less, the value is NaN.
    """
    known, whole = np.isfinite(metrics), matrix.sum(axis=1)
    means = np.nanmean(metrics, axis=0)
    away = np.where(known, metrics - means, 0.0)
    has = known.astype(float) @ matrix.T / whole
    average = away @ matrix.T / np.where(has > 0, has, 1.0)
    values = np.where(has >= MOSTLY, means @ matrix.T + average, np.nan)
    complete = has > 1 - _ROUNDED
    values = np.where(complete, np.where(known, metrics, 0.0) @ matrix.T, values)
    unsure = np.zeros_like(values)
    for group in np.flatnonzero((~complete & np.isfinite(values)).any(axis=0)):
        apart = np.where(known, away - (average[:, [group]] / whole[group]), np.nan)
        spread = np.nanvar(apart, axis=0) * matrix[group] ** 2
        unsure[:, group] = np.where(
            complete[:, group], 0.0, np.sqrt(np.where(known, 0.0, spread).sum(axis=1))
        )
    return values, unsure


_ROUNDED = 1e-12
