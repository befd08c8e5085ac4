"""Bringing any weights into the space of a swarm: which domains are present, then how much of each."""

import numpy as np

from mixing.capped_simplex import into_bounds, settle
from mixing.swarm.space import SwarmSpace

_ROUNDING = 1e-12
"""What an average of mixtures may lie past a bound that all of them keep."""


def into_space(space: SwarmSpace, weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, m) mixtures of the space near (n, m) non-negative weights of any scale.

    Which domains are present is kept where it can be: a domain below its minimum weight leaves, one that must
    be present enters, others enter at random where the caps of those present cannot hold the whole. What the
    weights have above their minimum is then scaled by one factor and clipped at the caps. A row that lies in
    the space stays as it is, but for rounding.
    """
    if not space.drawn.any():
        return np.broadcast_to(space.pinned, weights.shape).copy()
    wanted = np.where(space.drawn, weights, 0.0)
    sums = wanted.sum(1, keepdims=True)
    wanted = space.free_mass * np.divide(wanted, sums, out=np.zeros_like(wanted), where=sums > 0)
    present = _present(space, wanted, generator)
    lower, upper = np.where(present, space.lower, 0.0), np.where(present, space.upper, 0.0)
    # What rounding puts past a bound is clipped below: it must not draw from the generator, or another processor's
    # rounding would give another swarm.
    outside = (wanted < lower * (1 - _ROUNDING)) | (wanted > upper * (1 + _ROUNDING))
    rows = np.flatnonzero(outside.any(1) | (sums[:, 0] == 0))
    if len(rows):
        # Those that enter reach their caps in random order, so that under tight caps all of them vary.
        reserve = space.upper * (generator.standard_exponential((len(rows), len(space))) + 1e-6)
        wanted[rows] = into_bounds(wanted[rows], lower[rows], upper[rows], space.free_mass, reserve)
    settled = settle(wanted, upper, lower, 1.0 - float(space.pinned.sum()))
    return np.where(space.drawn, settled, space.pinned)


def _present(space: SwarmSpace, wanted: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, m) which domains are present: minima sum to at most the free mass, caps to at least that."""
    present = ((wanted > 0) & (wanted >= space.lower * (1 - 1e-12))) | space.required
    crowded = np.flatnonzero((present * space.lower).sum(1) > space.free_mass)
    if len(crowded):
        present[crowded] = _leave(space, present[crowded], wanted[crowded])
    short = np.flatnonzero((present * space.upper).sum(1) < space.free_mass)
    if len(short):
        present[short] = _enter(space, present[short], generator)
        crowded = short[(present[short] * space.lower).sum(1) > space.free_mass]
        present[crowded] = space.fallback
    return present


def _leave(space: SwarmSpace, present: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The domains with least weight leave until the minimum weights of the rest fit, required ones never."""
    order = np.argsort(-np.where(space.required, np.inf, np.where(present, wanted, -1.0)), 1, kind="stable")
    minima = np.take_along_axis(present * space.lower, order, 1)
    stays = np.cumsum(minima, 1) <= space.free_mass
    kept = np.zeros_like(present)
    np.put_along_axis(kept, order, stays, 1)
    return (kept & present) | space.required


def _enter(space: SwarmSpace, present: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Absent domains enter in random order until the caps of those present hold the free mass."""
    order = np.argsort(np.where(present, -1.0, generator.random(present.shape)), 1, kind="stable")
    bounds = np.broadcast_to(space.upper, present.shape)
    held = np.cumsum(np.take_along_axis(bounds, order, 1), 1)
    enters = np.ones_like(present)
    enters[:, 1:] = held[:, :-1] < space.free_mass
    entered = np.zeros_like(present)
    np.put_along_axis(entered, order, enters, 1)
    return (entered | present) & space.drawn


def corners(space: SwarmSpace, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, m) corners of the space: domains filled to their caps in random order until the whole is held.

    Each domain that is drawn comes first in turn (where none is capped, a corner is that domain alone), then each
    last: where the caps hold hardly more than the whole, only the last of a corner is below its cap. Under
    minimum weights the result is brought into the space and may not be a corner.
    """
    drawn = np.flatnonzero(space.drawn)
    if not len(drawn):
        return np.tile(space.pinned, (count, 1))
    keys = generator.random((count, len(space)))
    turn, position = np.divmod(np.arange(count), len(drawn))
    keys[np.arange(count), drawn[position]] = np.where(turn % 2, 1.0, -1.0)
    order = np.argsort(np.where(space.drawn, keys, 2.0), 1, kind="stable")
    caps = space.upper[order]
    held = np.zeros_like(caps)
    np.cumsum(caps[:, :-1], axis=1, out=held[:, 1:])
    filled = np.zeros_like(caps)
    np.put_along_axis(filled, order, np.clip(space.free_mass - held, 0.0, caps), 1)
    return into_space(space, filled, generator)


def averages_of_corners(space: SwarmSpace, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, m) random averages of about 8 corners: every domain varies in them, however tight the caps."""
    extremes = corners(space, 2 * len(space), generator)
    concentration = min(0.125, 4 / len(space))
    shares = generator.dirichlet(np.full(len(extremes), concentration), size=count)
    return into_space(space, shares @ extremes, generator)
