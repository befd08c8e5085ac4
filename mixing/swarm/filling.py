"""From draws to a swarm: redraw while that is cheap, project what is left, drop near-duplicates, cover.

A sampler gives a function that draws n rows; this brings them into the space. A draw above a cap is thrown away
and drawn again only as long as redrawing succeeds for one in eight: rejection keeps the distribution exact where
caps are loose, and never ends where they are tight. The rest is projected (`projection.into_space`). Where the
space is so small that draws coincide, averages of its corners complete the swarm.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mixing.errors import Infeasible, InvalidSetting
from mixing.swarm.coverage import Coverage, cover
from mixing.swarm.distinct import distinct
from mixing.swarm.projection import averages_of_corners, into_space
from mixing.swarm.space import SwarmSpace

Draw = Callable[[int], np.ndarray]
"""n -> (n, m) weights over the domains that are drawn, each row summing to 1."""

_WORTH_REDRAWING = 1 / 8
_ROUNDS = 20


@dataclass(frozen=True)
class Filling:
    """How draws become a swarm.

    Attributes:
        rejections: most times a draw above a cap is thrown away before one is projected instead.
        duplicate_distance: mixtures within this of each other in L1 count as one.
        coverage: which domains count as varied.
    """

    rejections: int = 16
    duplicate_distance: float = 1e-5
    coverage: Coverage = field(default_factory=Coverage)


def fill(
    space: SwarmSpace,
    runs: int,
    draw: Draw,
    generator: np.random.Generator,
    settings: Filling,
    finish: Callable[[np.ndarray], np.ndarray] = lambda weights: weights,
) -> np.ndarray:
    """(runs, m) distinct mixtures of the space from the draws.

    `finish` is what is done last to mixtures of the space, such as rounding; it must leave them inside.

    Raises:
        InvalidSetting: `runs` is below 1.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """
    if runs < 1:
        raise InvalidSetting(f"{runs} runs were asked for; it must be at least 1", field="runs")
    kept = np.empty((0, len(space)))
    for _ in range(_ROUNDS):
        missing = runs - len(kept)
        fresh = under_caps(space, missing + missing // 16, draw, generator, settings.rejections)
        kept = np.concatenate([kept, finish(fresh)])
        kept = kept[distinct(kept, settings.duplicate_distance)][:runs]
        if len(kept) == runs:
            break
    kept = _completed(space, kept, runs, generator)
    covered = finish(cover(space, kept, generator, settings.coverage))
    return _completed(space, covered[distinct(covered, 0.0)], runs, generator)


def under_caps(
    space: SwarmSpace, count: int, draw: Draw, generator: np.random.Generator, rejections: int
) -> np.ndarray:
    """(count, m) draws in the space: redrawn while that is worth it, then projected."""
    drawn = draw(count)
    above = np.flatnonzero((space.free_mass * drawn > space.upper).any(1))
    for _ in range(rejections):
        if not len(above):
            break
        drawn[above] = draw(len(above))
        still = above[(space.free_mass * drawn[above] > space.upper).any(1)]
        accepted, above = 1 - len(still) / len(above), still
        if accepted < _WORTH_REDRAWING:
            break
    return into_space(space, drawn, generator)


def _completed(space: SwarmSpace, kept: np.ndarray, runs: int, generator: np.random.Generator) -> np.ndarray:
    """Fill up with random averages of the space's corners."""
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
