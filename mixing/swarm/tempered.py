"""RegMix's tempered Dirichlet (arXiv 2407.01492).

The prior is the natural distribution to the power 0.5, renormalised, so small domains are drawn more often. One
draw: one of 15 strengths s in [0.1, 5], then Dirichlet(s prior). No weight above 15 times the domain's natural
one; weights below 2e-4 become 0; the rest is rounded to multiples of 2e-4.

The published code makes 100,000 candidates and keeps K of them at random, which has the distribution of making K.
`candidates` makes more only to keep those that are spread out (`design`, maximin).
"""

from dataclasses import dataclass, field

import numpy as np

from mixing.errors import Infeasible
from mixing.swarm.design import Design, choose
from mixing.swarm.dirichlet import check_strengths, dirichlet_rows, strengths_between
from mixing.swarm.filling import Filling, fill
from mixing.swarm.space import SwarmSpace
from mixing.terms import STRENGTHS


@dataclass(frozen=True)
class TemperedDirichlet:
    """Settings of the sampler; the defaults are RegMix's.

    Attributes:
        strengths: values of s, one drawn at random per draw.
        exponent: the prior is the natural distribution to this power.
        largest_ratio: most a weight may be, in natural weights. Where caps leave no mixture under it, it is
            doubled until there is one.
        quantum: smaller weights become 0 and the rest multiples of it. Pins stay exact, and so do weights that a
            cap or a minimum keeps from rounding.
        candidates: draws that the runs are chosen from by maximin, or None to take them as they come.
        filling: rejection, near-duplicates and coverage.
    """

    strengths: tuple[float, ...] = strengths_between(*STRENGTHS)
    exponent: float = 0.5
    largest_ratio: float = 15.0
    quantum: float = 2e-4
    candidates: int | None = None
    filling: Filling = field(default_factory=Filling)


def sample(
    space: SwarmSpace,
    runs: int,
    generator: np.random.Generator,
    settings: TemperedDirichlet | None = None,
) -> np.ndarray:
    """(runs, m) mixtures in canonical order, all distinct and all in the space.

    Raises:
        InvalidSetting: strengths that are not positive, or no runs.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """
    settings = settings or TemperedDirichlet()
    check_strengths(settings.strengths)
    narrowed = _under_natural_ratio(space, settings.largest_ratio)
    prior = narrowed.prior**settings.exponent * narrowed.drawn
    prior /= max(prior.sum(), np.finfo(float).tiny)

    def draw(count: int) -> np.ndarray:
        if not narrowed.drawn.any():
            return np.zeros((count, len(space)))
        strength = generator.choice(settings.strengths, size=(count, 1))
        weights = dirichlet_rows(strength * prior, generator)
        kept = np.where(
            (weights >= settings.quantum) | (weights == weights.max(1, keepdims=True)), weights, 0
        )
        return kept / kept.sum(1, keepdims=True)

    def rounded(weights: np.ndarray) -> np.ndarray:
        return rounded_to(narrowed, weights, settings.quantum)

    count = max(runs, settings.candidates or 0)
    swarm = fill(narrowed, count, draw, generator, settings.filling, rounded)
    return swarm if count == runs else swarm[choose(swarm, runs, Design("maximin"))]


def _under_natural_ratio(space: SwarmSpace, ratio: float) -> SwarmSpace:
    while True:
        bounds = np.maximum(ratio * space.domains.natural_weights, space.lower)
        try:
            return space.with_caps(bounds)
        except Infeasible:
            if (bounds >= space.upper).all():
                raise
        ratio *= 2


def rounded_to(space: SwarmSpace, weights: np.ndarray, quantum: float) -> np.ndarray:
    """(n, m) mixtures of the space with weights rounded to multiples of `quantum`, summing as before.

    Rounded down, then up again where most was lost (largest remainder). Pins and weights below the quantum stay
    as they are; what they leave beside a multiple stays on one domain. A row that bounds keep from rounding stays
    as it is.
    """
    rounds = space.drawn & (weights >= quantum * (1 - 1e-9))
    units = np.where(rounds, weights / quantum, 0.0)
    lowest = np.ceil(space.lower / quantum - 1e-9)
    down = np.where(rounds, np.maximum(np.floor(units + 1e-9), lowest), 0.0)
    total = np.where(rounds, weights, 0.0).sum(1)
    missing = np.floor(total / quantum + 1e-6) - down.sum(1)
    can_rise = rounds & ((down + 1) * quantum <= space.upper + 1e-12)
    remainder = np.where(can_rise, units - down, -np.inf)
    rank = (-remainder).argsort(1, kind="stable").argsort(1, kind="stable")
    risen = np.minimum(quantum * (down + (can_rise & (rank < missing[:, None]))), space.upper)
    result = np.where(rounds, risen, weights)
    # The remainder beside a multiple goes to the largest weight with room, if one has it.
    rest = total - np.where(rounds, result, 0.0).sum(1)
    roomy = np.where(rounds & (result + rest[:, None] <= space.upper), result, -1.0)
    at = roomy.argmax(1)[:, None]
    np.put_along_axis(result, at, np.take_along_axis(result, at, 1) + rest[:, None], 1)
    possible = (missing >= 0) & (rest < quantum) & (roomy.max(1) > 0)
    possible &= (result <= space.upper + space.pinned).all(1)
    return np.where(possible[:, None], result, weights)
