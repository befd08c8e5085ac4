"""The exponential grid of Data Mixing Laws (arXiv 2403.16952).

Every domain has a largest ratio r_max, its cap. Its candidates are r_max 2^-s for s = 0, 1, 2, ..., each rounded
down to a multiple of delta (1/16 as published), and 0. In the order of falling r_max each domain takes one of its
candidates, and the last the rest if that is within its own r_max.

How many points there are is exponential in the number of domains. But all candidates are multiples of delta, so a
table of (domain, units used so far) counts the completions of every partial point. With it a grid of any size is
counted exactly, listed without dead ends where it is small, and drawn from uniformly where it is large; of those
the runs are chosen that lie farthest apart. O(domains x units x candidates).

A domain whose cap is below delta is always 0, so delta is halved until every domain has a candidate and the grid
enough points, at most to 1/4,096. Where even that has too few, as under caps that hold little more than the
whole, random candidates are brought into the space. And where among many domains the points chosen leave some
unvaried, those are given weight in a few of them, which then lie off the grid (`cover`).
"""

from dataclasses import dataclass

import numpy as np

from mixing.swarm.design import log_weights, maximin
from mixing.swarm.filling import completed, cover, fill, range_widths
from mixing.swarm.space import SwarmSpace

DELTA = 1 / 16
"""The published step, halved where it is too coarse for the caps."""
_FINEST = 1 / 4096
_LISTED = 4096
"""Largest grid that is listed in full."""
_DRAWN = 4
"""Of a larger one, points drawn for each run at the least; as many as would be listed where domains are few."""
_FEW = 256
"""Domains up to which they are."""
_PRESENT = 2
"""Runs in which every domain has weight: one alone would have to show its effect and be its noise."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid over the drawn domains, and its table of completions.

    Attributes:
        space: the space the points lie in.
        delta: the step.
        order: (d,) columns by falling largest ratio; the last takes the rest.
        units: candidates of each of the first d - 1, in multiples of delta, rising.
        completions: (d, U + 1) ways to go on from the i-th domain with u units used, each row divided by its
            largest entry: only ratios within a row matter, and the counts overflow.
        size: number of points; inf where it exceeds floating point.
    """

    space: SwarmSpace
    delta: float
    order: np.ndarray
    units: tuple[np.ndarray, ...]
    completions: np.ndarray
    size: float

    @classmethod
    def of(cls, space: SwarmSpace, delta: float) -> "Grid":
        """The grid of a space that draws at least one domain."""
        drawn = np.flatnonzero(space.drawn)
        order = drawn[np.argsort(-space.upper[drawn], kind="stable")]
        units = tuple(_candidate_units(space, column, delta) for column in order[:-1])
        used = np.arange(int(space.free_mass / delta + 1e-9) + 1)
        completions = np.empty((len(order), len(used)))
        completions[-1] = _rest_fits(space, order[-1], space.free_mass - used * delta)
        size_log = 0.0
        for at in range(len(order) - 2, -1, -1):
            ways = np.zeros(len(used))
            for step in units[at][units[at] < len(used)]:
                ways[: len(used) - step] += completions[at + 1, step:]
            scale = max(ways.max(), 1.0)
            completions[at] = ways / scale
            size_log += np.log(scale)
        with np.errstate(over="ignore", divide="ignore"):
            size = float(np.exp(np.log(completions[0, 0]) + size_log))
        return cls(space, delta, order, units, completions, size)

    def points(self) -> np.ndarray:
        """(size, m) every point of the grid."""
        partial = np.zeros((1, 0), int)
        for at, options in enumerate(self.units):
            grown = np.concatenate(
                [np.repeat(partial, len(options), 0), np.tile(options, len(partial))[:, None]], axis=1
            )
            used = grown.sum(1)
            inside = used < self.completions.shape[1]
            grown, used = grown[inside], used[inside]
            partial = grown[self.completions[at + 1, used] > 0]
        return self._weights(partial)

    def draw(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, m) points, each of the grid's as likely as any other."""
        taken = np.zeros((count, len(self.units)), int)
        used = np.zeros(count, int)
        last = self.completions.shape[1] - 1
        for at, options in enumerate(self.units):
            reached = used[:, None] + options
            ways = np.where(reached <= last, self.completions[at + 1, np.minimum(reached, last)], 0.0)
            cumulative = np.cumsum(ways, 1)
            level = generator.random((count, 1)) * cumulative[:, -1:]
            taken[:, at] = options[(cumulative <= level).sum(1).clip(max=len(options) - 1)]
            used += taken[:, at]
        return self._weights(taken)

    def _weights(self, units: np.ndarray) -> np.ndarray:
        weights = np.tile(self.space.pinned, (len(units), 1))
        weights[:, self.order[:-1]] = units * self.delta
        weights[:, self.order[-1]] = np.maximum(self.space.free_mass - units.sum(1) * self.delta, 0.0)
        return weights


def sample(space: SwarmSpace, runs: int, generator: np.random.Generator) -> np.ndarray:
    """(runs, m) grid points far from each other, in canonical order; a few of them moved so that every domain varies.

    Raises:
        InvalidSetting: no runs.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """

    def random_candidates(count: int) -> np.ndarray:
        halvings = generator.integers(0, 6, size=(count, len(space)))
        return np.where(halvings < 5, space.upper * 0.5**halvings, 0.0)

    presence = _PRESENT / max(runs, 1)
    points = np.empty((0, len(space)))
    if space.drawn.any():
        points = _grid_points(space, runs, generator)
    if len(points) < max(runs, 1):
        return fill(space, runs, random_candidates, generator, presence=presence)
    chosen = points[maximin(log_weights(points), runs, np.empty((0, len(space))))]
    moved = np.abs(chosen - np.median(chosen, axis=0)) > 1e-9
    if (moved.sum(0) >= _PRESENT)[range_widths(space) > 1e-9].all():
        return chosen
    return completed(space, cover(space, chosen, generator, presence), runs, generator)


def _grid_points(space: SwarmSpace, runs: int, generator: np.random.Generator) -> np.ndarray:
    delta = DELTA
    while space.upper[space.drawn].min() < delta and delta / 2 >= _FINEST:
        delta /= 2
    while (grid := Grid.of(space, delta)).size < runs and delta / 2 >= _FINEST:
        delta /= 2
    if grid.size <= max(_LISTED, runs):
        return grid.points()
    count = _LISTED * _FEW // max(len(space), _FEW)
    return np.unique(grid.draw(max(count, _DRAWN * runs), generator), axis=0)


def _candidate_units(space: SwarmSpace, column: int, delta: float) -> np.ndarray:
    """Candidates of one domain in multiples of delta, those below its minimum weight left out."""
    highest = int(space.upper[column] / delta + 1e-9)
    halvings = range(highest.bit_length())
    units = {int(space.upper[column] * 0.5**halving / delta + 1e-9) for halving in halvings}
    units = {unit for unit in units if unit * delta >= space.lower[column] - 1e-12 and unit > 0}
    if not space.required[column]:
        units.add(0)
    return np.array(sorted(units), int)


def _rest_fits(space: SwarmSpace, column: int, rest: np.ndarray) -> np.ndarray:
    nothing = np.abs(rest) < 1e-12
    within = (rest >= space.lower[column] - 1e-12) & (rest <= space.upper[column] + 1e-12)
    return np.where(nothing, not space.required[column], within).astype(float)
