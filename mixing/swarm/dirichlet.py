"""Dirichlet draws around the natural distribution: Olmix's two levels, and RegMix's tempered one.

Olmix (arXiv 2602.12237), sources first, then the topics of each source. One draw: a strength s for the sources and
one for the topics, from 15 values spaced evenly in the logarithm over [0.1, 5]; Dirichlet(s prior) over the sources
and, within each source, over its leaves; multiply; zero what is below 0.002 (topics relative to their source) and
renormalise; drop near-duplicates. The prior is the natural distribution. Quality buckets are drawn together with the
topics of their source. Where this goes beyond the published code: caps, minimum weights, pins and required domains
are met without rejecting for ever (`mixing.swarm.filling`), and every domain is varied.

RegMix (arXiv 2407.01492). The prior is the natural distribution to the power 0.5, renormalised, so small domains are
drawn more often. One draw: one of the 15 strengths, then Dirichlet(s prior). No weight above 15 times the domain's
natural one; weights below 2e-4 become 0; the rest is rounded to multiples of 2e-4. The published code makes 100,000
candidates and keeps K of them at random, which has the distribution of making K.

Draws are made from gamma variates in the logarithm, many at once. A strength of 0.1 on a prior of 1e-6 makes a gamma
shape of 1e-7, whose variates underflow to 0 nearly always: a row of zeros over zeros. In the logarithm nothing
underflows: G(a) = G(a + 1) U^(1/a) in distribution, so log G(a) = log G(a + 1) - E / a with E exponential (Marsaglia
and Tsang, 2000).
"""

import math

import numpy as np

from mixing.domains import parse_name
from mixing.errors import Infeasible
from mixing.swarm.filling import fill
from mixing.swarm.space import LEAST_PRESENCE, SwarmSpace
from mixing.terms import STRENGTHS


def log_gamma_variates(shapes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """log of one Gamma(shape, 1) variate for each of the shapes; -inf where the shape is 0."""
    positive = shapes > 0
    safe = np.where(positive, shapes, 1.0)
    drawn = np.log(generator.standard_gamma(safe + 1.0)) - generator.standard_exponential(safe.shape) / safe
    return np.where(positive, drawn, -np.inf)


def dirichlet_rows(shapes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, m) one Dirichlet draw for each row of (n, m) non-negative shapes; 0 where the shape is 0."""
    return normalised_within(log_gamma_variates(shapes, generator), np.array([0]))


def normalised_within(logarithms: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Exponentials of (n, m) logarithms, divided by their sum within each group of adjacent columns.

    Args:
        logarithms: at least one of every row and group above -inf.
        starts: (g,) the first column of each group, rising from 0.
    """
    widths = np.diff(np.append(starts, logarithms.shape[1]))
    largest = np.maximum.reduceat(logarithms, starts, axis=1)
    weights = np.exp(logarithms - np.repeat(largest, widths, axis=1))
    return weights / np.repeat(np.add.reduceat(weights, starts, axis=1), widths, axis=1)


def strengths_between(lowest: float, highest: float) -> tuple[float, ...]:
    """15 strengths evenly spaced in the logarithm. The larger s, the closer the draws are to the prior."""
    return tuple(np.logspace(math.log10(lowest), math.log10(highest), 15).tolist())


DEFAULT_STRENGTHS = strengths_between(*STRENGTHS)
LARGEST_RATIO = 15.0
"""Most a tempered weight may be, in natural weights."""
QUANTUM = 2e-4
"""What tempered weights are multiples of."""


def sample(
    space: SwarmSpace,
    runs: int,
    generator: np.random.Generator,
    strengths: tuple[float, ...] = DEFAULT_STRENGTHS,
) -> np.ndarray:
    """(runs, m) two-level draws in canonical order, all distinct and all in the space.

    Raises:
        InvalidSetting: no runs.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """

    def draw(count: int) -> np.ndarray:
        return two_level_draws(space.domains.names, space.prior, count, generator, strengths)

    return fill(space, runs, draw, generator)


def two_level_draws(
    names: tuple[str, ...],
    prior: np.ndarray,
    count: int,
    generator: np.random.Generator,
    strengths: tuple[float, ...] = DEFAULT_STRENGTHS,
    minimum_weight: float = LEAST_PRESENCE,
) -> np.ndarray:
    """(count, m) mixtures, no constraints considered; domains whose (m,) prior is 0 get nothing.

    Shares smaller than the minimum become 0; less is the minimum where there are more than 125 sources, or topics in
    a source, so that a quarter of an equal share is kept.
    """
    result = np.zeros((count, len(names)))
    drawn = np.flatnonzero(prior > 0)
    if not len(drawn):
        return result
    # Names that share a source share a prefix, so in sorted order its leaves are adjacent.
    sources = [parse_name(names[column])[0] for column in drawn]
    starts = np.array([at for at, name in enumerate(sources) if at == 0 or sources[at - 1] != name])
    widths = np.diff(np.append(starts, len(drawn)))
    leaf_prior = prior[drawn]
    source_prior = np.add.reduceat(leaf_prior, starts)
    strength = generator.choice(strengths, size=(2, count, 1))
    shares = log_gamma_variates(strength[0] * source_prior, generator)
    shares = _clipped(normalised_within(shares, np.array([0])), np.array([0]), minimum_weight)
    within = log_gamma_variates(strength[1] * (leaf_prior / np.repeat(source_prior, widths)), generator)
    within = _clipped(normalised_within(within, starts), starts, minimum_weight)
    result[:, drawn] = within * np.repeat(shares, widths, axis=1)
    return result / result.sum(1, keepdims=True)


def _clipped(weights: np.ndarray, starts: np.ndarray, minimum: float) -> np.ndarray:
    """Shares of their group below `minimum` set to 0, the rest renormalised; the largest always stays."""
    widths = np.diff(np.append(starts, weights.shape[1]))
    floor = np.repeat(np.minimum(minimum, 1 / (4 * widths)), widths)
    largest = np.repeat(np.maximum.reduceat(weights, starts, axis=1), widths, axis=1)
    kept = np.where((weights >= floor) | (weights == largest), weights, 0.0)
    return kept / np.repeat(np.add.reduceat(kept, starts, axis=1), widths, axis=1)


def sample_tempered(
    space: SwarmSpace,
    runs: int,
    generator: np.random.Generator,
    strengths: tuple[float, ...] = DEFAULT_STRENGTHS,
    quantum: float = QUANTUM,
) -> np.ndarray:
    """(runs, m) tempered draws in canonical order, all distinct and all in the space.

    Pins stay exact, and so do weights that a cap or a minimum keeps from rounding. Where caps leave no mixture under
    the largest ratio, it is doubled until there is one.

    Raises:
        InvalidSetting: no runs.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """
    narrowed = _under_natural_ratio(space)

    def draw(count: int) -> np.ndarray:
        return tempered_draws(narrowed, count, generator, strengths, quantum)

    return fill(narrowed, runs, draw, generator, lambda weights: rounded_to(narrowed, weights, quantum))


def tempered_draws(
    space: SwarmSpace,
    count: int,
    generator: np.random.Generator,
    strengths: tuple[float, ...],
    quantum: float = QUANTUM,
) -> np.ndarray:
    """(count, m) mixtures of the domains that are drawn, weights below the quantum 0; no bounds considered."""
    if not space.drawn.any():
        return np.zeros((count, len(space)))
    prior = np.sqrt(space.prior)
    strength = generator.choice(strengths, size=(count, 1))
    weights = dirichlet_rows(strength * (prior / prior.sum()), generator)
    kept = np.where((weights >= quantum) | (weights == weights.max(1, keepdims=True)), weights, 0)
    return kept / kept.sum(1, keepdims=True)


def _under_natural_ratio(space: SwarmSpace) -> SwarmSpace:
    ratio = LARGEST_RATIO
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
