"""From draws to a swarm: redraw while that is cheap, project what is left, drop near-duplicates, cover.

A sampler gives a function that draws n rows; this brings them into the space. A draw above a cap is thrown away
and drawn again only as long as redrawing succeeds for one in eight: rejection keeps the distribution exact where
caps are loose, and never ends where they are tight. The rest is projected (`into_space`). Where the
space is so small that draws coincide, averages of its corners complete the swarm.
"""

import math
from collections.abc import Callable

import numpy as np

from mixing.errors import Infeasible, InvalidSetting
from mixing.swarm.space import SwarmSpace, averages_of_corners, into_space, least_presence

DUPLICATE_DISTANCE = 1e-5
"""Mixtures within this of each other in L1 count as one."""
PRESENCE = 1 / 6
"""Share of the runs in which every domain must have weight."""
_LARGEST_LIFT = 0.25
"""The most weight given to a domain that is put into a run."""
_REJECTIONS = 16
"""Most times a draw above a cap is thrown away before one is projected instead."""
_WORTH_REDRAWING = 1 / 8
_ROUNDS = 20
_PASSES = 4
"""Lifting one domain pushes others down, so it is looked at again."""
_FEWEST = 4
"""Runs among which a weight can vary more than one of them does."""
_BLOCK = 2**22
"""Numbers compared at a time: 32 MiB."""

Draw = Callable[[int], np.ndarray]
"""n -> (n, m) weights over the domains that are drawn, each row summing to 1."""


def distinct(weights: np.ndarray, distance: float) -> np.ndarray:
    """(n,) which of (n, m) rows to keep so that no two are within `distance` of each other in L1.

    Of two that are, the later goes. |r . (x - y)| <= |x - y|_1 for any r with entries in [-1, 1], so in the
    order of one such projection only neighbours need comparing: O(n m) for small distances.
    """
    kept = np.ones(len(weights), bool)
    direction = 2 * ((np.arange(weights.shape[1]) + 1) * 0.6180339887498949 % 1) - 1
    projected = weights @ direction
    order = np.argsort(projected, kind="stable")
    step = 1
    while step < len(order):
        close = np.flatnonzero(projected[order[step:]] - projected[order[:-step]] <= distance + 1e-12)
        if not len(close):
            break
        first, second = order[close], order[close + step]
        near = _distances(weights, first, second) <= distance
        if near.any():
            # Two links of a chain can go at once; only rows that stay are compared again.
            kept[np.maximum(first[near], second[near])] = False
            order, step = order[kept[order]], 1
        else:
            step += 1
    return kept


def _distances(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    size = max(1, _BLOCK // weights.shape[1])
    blocks = [slice(start, start + size) for start in range(0, len(first), size)]
    return np.concatenate([np.abs(weights[first[b]] - weights[second[b]]).sum(1) for b in blocks])


def effective_runs(weights: np.ndarray) -> np.ndarray:
    """(m,) how many runs at the far end of its range a domain's variation amounts to; 0 where it is constant."""
    spread = np.ptp(weights, axis=0)
    varies = spread > 1e-9
    deviations = ((weights - weights.mean(0)) ** 2).sum(0)
    return np.where(varies, deviations / np.where(varies, spread, 1.0) ** 2, 0.0)


def cover(
    space: SwarmSpace, weights: np.ndarray, generator: np.random.Generator, presence: float
) -> np.ndarray:
    """(n, m) mixtures of the space in which every domain that can vary does: rarely present ones are lifted into
    runs, ones stuck at their caps moved away from them.

    With a prior of 1% most draws give a domain nothing, and a law cannot learn what it never saw vary. A domain
    present (`least_presence`) in less than a share of `presence` of the runs is put into runs that lack it, at a
    weight drawn log-uniformly between the smallest kept weight and its cap (at most a quarter of the mixture); all
    that is lifted into one run is at most half of it, and the others shrink in proportion. Under tight caps the
    opposite happens: a domain is at its cap in most runs. Then half of the runs become averages of the space's
    corners, in which every domain varies. A swarm that varies its domains is left exactly as drawn, and so is one
    below four runs or for a presence of 0.
    """
    if len(weights) < _FEWEST:
        return weights
    needed = math.ceil(presence * len(weights))
    least = np.maximum(space.lower, least_presence(space.upper, space.free_mass))
    can_vary = range_widths(space) > 1e-9
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
            changed = _lift(space, covered[rows], lifted[rows], least, generator)
        if not len(rows):
            break
        covered = covered.copy()
        covered[rows] = into_space(space, changed, generator)
    return covered


def range_widths(space: SwarmSpace) -> np.ndarray:
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
) -> np.ndarray:
    highest = np.maximum(np.minimum(space.upper, _LARGEST_LIFT), least)
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


def fill(
    space: SwarmSpace,
    runs: int,
    draw: Draw,
    generator: np.random.Generator,
    finish: Callable[[np.ndarray], np.ndarray] = lambda weights: weights,
    presence: float = PRESENCE,
) -> np.ndarray:
    """(runs, m) distinct mixtures of the space from the draws.

    Args:
        space: where they lie.
        runs: how many.
        draw: what makes them.
        generator: of all that is drawn besides.
        finish: what is done last to mixtures of the space, such as rounding; it must leave them inside.
        presence: share of the runs in which every domain must have weight; 0 leaves them as drawn.

    Raises:
        InvalidSetting: `runs` is below 1.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """
    if runs < 1:
        raise InvalidSetting(f"{runs} runs were asked for; it must be at least 1", field="runs")
    kept = np.empty((0, len(space)))
    for _ in range(_ROUNDS):
        missing = runs - len(kept)
        fresh = _under_caps(space, missing + missing // 16, draw, generator)
        kept = np.concatenate([kept, finish(fresh)])
        kept = kept[distinct(kept, DUPLICATE_DISTANCE)][:runs]
        if len(kept) == runs:
            break
    kept = completed(space, kept, runs, generator)
    return completed(space, finish(cover(space, kept, generator, presence)), runs, generator)


def _under_caps(space: SwarmSpace, count: int, draw: Draw, generator: np.random.Generator) -> np.ndarray:
    """(count, m) draws in the space: redrawn while that is worth it, then projected."""
    drawn = draw(count)
    above = np.flatnonzero((space.free_mass * drawn > space.upper).any(1))
    for _ in range(_REJECTIONS):
        if not len(above):
            break
        drawn[above] = draw(len(above))
        still = above[(space.free_mass * drawn[above] > space.upper).any(1)]
        accepted, above = 1 - len(still) / len(above), still
        if accepted < _WORTH_REDRAWING:
            break
    return into_space(space, drawn, generator)


def completed(
    space: SwarmSpace, weights: np.ndarray, runs: int, generator: np.random.Generator
) -> np.ndarray:
    """(runs, m) distinct mixtures of the space: these at most, filled up with random averages of the space's corners.

    Raises:
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """
    kept = weights[distinct(weights, 0.0)]
    if len(kept) == runs:
        return kept
    for _ in range(_ROUNDS):
        kept = np.concatenate([kept, averages_of_corners(space, 2 * (runs - len(kept)), generator)])
        kept = kept[distinct(kept, 1e-9)][:runs]
        if len(kept) == runs:
            return kept
    left = len(kept)
    raise Infeasible(
        f"the caps, minimum weights and pins leave {'a single mixture' if left == 1 else f'{left} mixtures'}, so"
        f" {runs} runs cannot all differ; lower the target tokens or raise the repetition cap",
        field="runs",
        names=space.domains.names,
    )
