"""Laws made of other laws, which keep what these have of gradients and convexity.

A law read through a linear map is y(p) = f(M p): one fitted over the contents of a lineage is read by the newest
revision's domains; one fitted over virtual domains is read by the leaves, each group's weights added up. Tasks fitted
apart, because other runs measured them, are read as one law.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixing.laws.regression import Expansion, Fitted


def through(law: Fitted, matrix: np.ndarray) -> Fitted:
    """The law as a function of (m,) weights p where it was fitted to (a,) weights M p; the law itself where M is I.

    Args:
        law: over a domains.
        matrix: (a, m) M.
    """
    rows, columns = matrix.shape
    if rows == columns and np.array_equal(matrix, np.eye(rows)):
        return law
    return _Through(law, matrix)


@dataclass(frozen=True)
class _Through(Fitted):
    law: Fitted
    matrix: np.ndarray

    @property
    def has_gradient(self) -> bool:
        return self.law.has_gradient

    @property
    def is_convex(self) -> bool:
        return self.law.is_convex

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.law.predict(weights @ self.matrix.T)

    def mean(self, weights: np.ndarray) -> np.ndarray:
        return self.law.mean(weights @ self.matrix.T)

    def unfinished(self) -> np.ndarray:
        return self.law.unfinished()

    def parts(self) -> tuple[dict[str, float], ...]:
        return self.law.parts()

    def by_member(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.law.by_member(weights @ self.matrix.T)

    def notes(self) -> tuple[str, ...]:
        return self.law.notes()

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return self.law.gradient(weights @ self.matrix.T) @ self.matrix

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        return self.law.expand(self.matrix @ weights, task_weights).through(self.matrix)


def added(parts: Sequence[Expansion]) -> Expansion:
    """The sum of expansions at one mixture."""
    return Expansion(
        sum(part.value for part in parts),
        np.sum([part.gradient for part in parts], axis=0),
        np.sum([part.diagonal for part in parts], axis=0),
        np.concatenate([part.factors for part in parts]),
    )


def measured_alike(measured: np.ndarray) -> tuple[np.ndarray, ...]:
    """The columns of (K, T) booleans in groups of equal columns, each an array of indices, in order."""
    if (measured == measured[:, :1]).all():
        return (np.arange(measured.shape[1]),)
    _, group = np.unique(measured, axis=1, return_inverse=True)
    first = {int(number): int(np.argmax(group == number)) for number in np.unique(group)}
    return tuple(np.flatnonzero(group == number) for number in sorted(first, key=lambda key: first[key]))


def joined(laws: Sequence[Fitted], columns: Sequence[np.ndarray], names: Sequence[str]) -> Fitted:
    """One law of all tasks from laws of some of them each; convex where all are.

    Args:
        laws: over the same domains.
        columns: for each law the positions of its tasks; together every position once.
        names: of the laws' regressions.
    """
    if len(laws) == 1:
        return laws[0]
    return _Joined(tuple(laws), tuple(columns), tuple(names))


@dataclass(frozen=True)
class _Joined(Fitted):
    laws: tuple[Fitted, ...]
    columns: tuple[np.ndarray, ...]
    names: tuple[str, ...]

    @property
    def has_gradient(self) -> bool:
        return all(law.has_gradient for law in self.laws)

    @property
    def is_convex(self) -> bool:
        return all(law.is_convex for law in self.laws)

    @property
    def _order(self) -> np.ndarray:
        return np.argsort(np.concatenate(self.columns))

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means, deviations = zip(*(law.predict(weights) for law in self.laws), strict=True)
        return np.concatenate(means, axis=1)[:, self._order], np.concatenate(deviations, axis=1)[
            :, self._order
        ]

    def mean(self, weights: np.ndarray) -> np.ndarray:
        return np.concatenate([law.mean(weights) for law in self.laws], axis=1)[:, self._order]

    def unfinished(self) -> np.ndarray:
        parts = zip(self.laws, self.columns, strict=True)
        return np.sort(np.concatenate([columns[law.unfinished()] for law, columns in parts]))

    def by_member(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [law.by_member(weights) for law in self.laws]
        most = max(len(shares) for shares, _ in parts)  # laws of fewer have others that do not count
        shares = [np.pad(part, ((0, most - len(part)), (0, 0))) for part, _ in parts]
        means = [np.pad(part, ((0, most - len(part)), (0, 0), (0, 0))) for _, part in parts]
        return np.concatenate(shares, axis=1)[:, self._order], np.concatenate(means, axis=2)[
            :, :, self._order
        ]

    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for law in self.laws for note in law.notes()))

    def parts(self) -> tuple[dict[str, float], ...]:
        if len(set(self.names)) == 1 and not any(law.parts() for law in self.laws):
            return ()
        each = [
            part
            for law, columns, name in zip(self.laws, self.columns, self.names, strict=True)
            for part in law.parts() or ({name: 1.0},) * len(columns)
        ]
        return tuple(each[position] for position in self._order)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return np.concatenate([law.gradient(weights) for law in self.laws], axis=1)[:, self._order]

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        parts = [
            law.expand(weights, task_weights[tasks])
            for law, tasks in zip(self.laws, self.columns, strict=True)
        ]
        return added(parts)
