"""Tasks fitted apart because other runs measured them, read as one law."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixing.laws.protocol import ConvexLaw, Differentiable, Expansion, Fitted


def measured_alike(measured: np.ndarray) -> tuple[np.ndarray, ...]:
    """The columns of (K, T) booleans in groups of equal columns, each an array of indices, in order."""
    _, group = np.unique(measured, axis=1, return_inverse=True)
    first = {int(number): int(np.argmax(group == number)) for number in np.unique(group)}
    return tuple(np.flatnonzero(group == number) for number in sorted(first, key=lambda key: first[key]))


def joined(laws: Sequence[Fitted], columns: Sequence[np.ndarray]) -> Fitted:
    """One law of all tasks from laws of some of them each; convex where all are.

    Args:
        laws: over the same domains.
        columns: for each law the positions of its tasks; together every position once.
    """
    if len(laws) == 1:
        return laws[0]
    convex = [law for law in laws if isinstance(law, ConvexLaw)]
    if len(convex) == len(laws):
        return _ConvexBlocks(tuple(convex), tuple(columns))
    smooth = [law for law in laws if isinstance(law, Differentiable)]
    if len(smooth) == len(laws):
        return _DifferentiableBlocks(tuple(smooth), tuple(columns))
    return _Blocks(tuple(laws), tuple(columns))


@dataclass(frozen=True)
class _Blocks:
    laws: tuple[Fitted, ...]
    columns: tuple[np.ndarray, ...]

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _predict(self.laws, self.columns, weights)


@dataclass(frozen=True)
class _DifferentiableBlocks:
    laws: tuple[Differentiable, ...]
    columns: tuple[np.ndarray, ...]

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _predict(self.laws, self.columns, weights)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return _gradient(self.laws, self.columns, weights)


@dataclass(frozen=True)
class _ConvexBlocks:
    laws: tuple[ConvexLaw, ...]
    columns: tuple[np.ndarray, ...]

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _predict(self.laws, self.columns, weights)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return _gradient(self.laws, self.columns, weights)

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        parts = [
            law.expand(weights, task_weights[tasks])
            for law, tasks in zip(self.laws, self.columns, strict=True)
        ]
        return Expansion(
            sum(part.value for part in parts),
            np.sum([part.gradient for part in parts], axis=0),
            np.sum([part.diagonal for part in parts], axis=0),
            np.concatenate([part.factors for part in parts]),
        )


def _predict(
    laws: Sequence[Fitted], columns: Sequence[np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    parts = [law.predict(weights) for law in laws]
    back = np.argsort(np.concatenate(columns))
    means, deviations = (np.concatenate(values, axis=1)[:, back] for values in zip(*parts, strict=True))
    return means, deviations


def _gradient(
    laws: Sequence[Differentiable], columns: Sequence[np.ndarray], weights: np.ndarray
) -> np.ndarray:
    back = np.argsort(np.concatenate(columns))
    return np.concatenate([law.gradient(weights) for law in laws], axis=1)[:, back]
