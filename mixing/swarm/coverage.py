"""Every domain varied: rarely present ones lifted into runs, ones stuck at their caps moved away from them.

With a prior of 1% most draws give a domain nothing, and a law cannot learn what it never saw vary. A domain
present in less than a sixth of the runs is put into runs that lack it, at a weight drawn log-uniformly between
the smallest kept weight and its cap (at most a quarter of the mixture); all that is lifted into one run is at
most half of it, and the others shrink in proportion. Under tight caps the opposite happens: a domain is at its
cap in most runs. Then half of the runs become averages of the space's corners, in which every domain
varies. A swarm that varies its domains is left exactly as drawn.
"""

import math
from dataclasses import dataclass

import numpy as np

from mixing.swarm.distinct import effective_runs
from mixing.swarm.projection import averages_of_corners, into_space
from mixing.swarm.space import LEAST_PRESENCE, SwarmSpace

_PASSES = 4
"""Lifting one domain pushes others down, so it is looked at again."""
_FEWEST = 4
"""Runs among which a weight can vary more than one of them does."""


@dataclass(frozen=True)
class Coverage:
    """What counts as varied.

    Attributes:
        presence: share of the runs in which every domain must have weight; 0 leaves swarms as drawn.
        least_weight: weight from which a domain counts as present, less where its cap is below four times that
            or there are so many domains that a quarter of an equal share is less.
        largest_lift: the most weight given to a domain that is put into a run.
    """

    presence: float = 1 / 6
    least_weight: float = LEAST_PRESENCE
    largest_lift: float = 0.25


def cover(
    space: SwarmSpace, weights: np.ndarray, generator: np.random.Generator, settings: Coverage
) -> np.ndarray:
    """(n, m) mixtures of the space in which every domain that can vary does; as they are below four runs."""
    if len(weights) < _FEWEST:
        return weights
    needed = math.ceil(min(settings.presence, 1.0) * len(weights))
    least = np.minimum(np.minimum(settings.least_weight, space.upper / 4), space.free_mass / (4 * len(space)))
    least = np.maximum(space.lower, least)
    can_vary = _range_widths(space) > 1e-9
    covered = weights
    for _ in range(_PASSES if needed else 0):
        present = covered >= least * (1 - 1e-9)
        few = can_vary & (effective_runs(covered) <= 1)
        at_bound = covered >= space.upper * (1 - 1e-9)
        at_bound |= space.required & (covered <= space.lower * (1 + 1e-9))
        if (few & (2 * at_bound.sum(0) > len(covered))).any():
            rows = generator.permutation(len(covered))[: len(covered) // 2]
            changed = averages_of_corners(space, len(rows), generator)
        else:
            lacking = np.where(few, needed, np.maximum(needed - present.sum(0), 0)) * can_vary
            lifted = _some_of(~present | few, lacking, generator)
            rows = np.flatnonzero(lifted.any(1))
            changed = _lift(space, covered[rows], lifted[rows], least, generator, settings)
        if not len(rows):
            break
        covered = covered.copy()
        covered[rows] = into_space(space, changed, generator)
    return covered


def _range_widths(space: SwarmSpace) -> np.ndarray:
    """(m,) largest minus least weight of each domain that the bounds of all together allow."""
    needed = np.where(space.required, space.lower, 0.0)
    highest = np.minimum(space.upper, space.free_mass - (needed.sum() - needed))
    lowest = np.maximum(needed, space.free_mass - (space.upper.sum() - space.upper))
    return np.where(space.drawn, highest - lowest, 0.0)


def _some_of(allowed: np.ndarray, counts: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, m) booleans with `counts[j]` of the allowed rows of column j, at random."""
    chosen = np.zeros_like(allowed)
    columns = np.flatnonzero(counts)
    if len(columns):
        keys = np.where(allowed[:, columns], generator.random((len(allowed), len(columns))), 2.0)
        ranks = keys.argsort(0, kind="stable").argsort(0, kind="stable")
        chosen[:, columns] = (ranks < counts[columns]) & allowed[:, columns]
    return chosen


def _lift(
    space: SwarmSpace,
    weights: np.ndarray,
    lifted: np.ndarray,
    least: np.ndarray,
    generator: np.random.Generator,
    settings: Coverage,
) -> np.ndarray:
    highest = np.maximum(np.minimum(space.upper, settings.largest_lift), least)
    positive = np.where(least > 0, least, 1.0)
    exponents = generator.random(weights.shape) * np.log(np.where(least > 0, highest, 1.0) / positive)
    given = np.where(lifted, positive * np.exp(exponents), 0.0)
    total = given.sum(1, keepdims=True)
    half = space.free_mass / 2
    given = np.where(lifted, np.maximum(given * np.minimum(1, half / np.maximum(total, half)), least), 0.0)
    others = np.where(lifted | ~space.drawn, 0.0, weights)
    sums = others.sum(1, keepdims=True)
    left = np.maximum(space.free_mass - given.sum(1, keepdims=True), 0.0)
    return given + left * np.divide(others, sums, out=np.zeros_like(others), where=sums > 0)
