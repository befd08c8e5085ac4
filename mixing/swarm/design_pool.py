"""Candidates that designs and next batches choose from: draws wide and narrow, corners, averages."""

import numpy as np

from mixing.swarm.distinct import distinct
from mixing.swarm.gamma import dirichlet_rows
from mixing.swarm.projection import corners, into_space
from mixing.swarm.space import SwarmSpace

CONCENTRATIONS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Of Dirichlet draws: from nearly one domain a mixture to nearly the centre."""


def candidate_pool(space: SwarmSpace, count: int, generator: np.random.Generator) -> np.ndarray:
    """(about count, m) distinct mixtures of the space.

    Half are Dirichlet draws at several concentrations around the natural distribution and around equal weights, a
    quarter corners of the space, and a quarter averages of two to four of these.
    """
    drawn = np.flatnonzero(space.drawn)
    if not len(drawn):
        return space.pinned[None].copy()
    around = np.stack([space.prior[drawn], np.full(len(drawn), 1 / len(drawn))])
    concentration = generator.choice(CONCENTRATIONS, size=(count // 2, 1))
    centre = around[generator.integers(0, 2, size=count // 2)]
    raw = np.zeros((count // 2, len(space)))
    raw[:, drawn] = dirichlet_rows(concentration * len(drawn) * centre, generator)
    extremes = corners(space, max(len(drawn), count // 4), generator)
    shares = generator.dirichlet(np.ones(4), size=count // 4)
    shares[np.arange(4) >= generator.integers(2, 5, size=(count // 4, 1))] = 0.0
    shares /= shares.sum(1, keepdims=True)
    members = extremes[generator.integers(0, len(extremes), size=(count // 4, 4))]
    mixed = into_space(space, np.einsum("nk,nkm->nm", shares, members), generator)
    pool = np.concatenate([extremes, into_space(space, raw, generator), mixed])
    return pool[distinct(pool, 1e-5)]


def perturbed_around(
    space: SwarmSpace, centres: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """(count, m) mixtures of the space near (c, m) centres: Dirichlet draws of concentration 30 to 3,000 on them.

    One in four first moves a tenth of itself towards the natural distribution, so that domains a centre leaves
    out can come back.
    """
    mean = centres[generator.integers(0, len(centres), size=count)] * space.drawn
    mean /= np.maximum(mean.sum(1, keepdims=True), np.finfo(float).tiny)
    returning = generator.random((count, 1)) < 0.25
    mean = np.where(returning, 0.9 * mean + 0.1 * space.prior, mean)
    if not space.drawn.any():
        return np.tile(space.pinned, (count, 1))
    concentration = 10 ** generator.uniform(np.log10(30), np.log10(3000), size=(count, 1))
    return into_space(space, dirichlet_rows(concentration * mean, generator), generator)
