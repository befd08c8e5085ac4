"""Olmix's two-level Dirichlet (arXiv 2602.12237): sources first, then the topics of each source.

One draw: a strength s for the sources and one for the topics, from 15 values spaced evenly in the
logarithm over [0.1, 5]; Dirichlet(s prior) over the sources and, within each source, over its leaves;
multiply; zero what is below 0.002 (topics relative to their source) and renormalise; drop near-duplicates.
The prior is the natural distribution. Quality buckets are drawn together with the topics of their source.

Where this goes beyond the published code: caps, minimum weights, pins and required domains are met without
rejecting for ever (`swarm_filling`), and every domain is varied (`coverage`).
"""

import math
from dataclasses import dataclass, field

import numpy as np

from mixing.domains import Domains, parse_name
from mixing.errors import InvalidSetting
from mixing.swarm.filling import Filling, fill
from mixing.swarm.space import LEAST_PRESENCE, SwarmSpace
from mixing.terms import STRENGTHS

# Dirichlet draws from gamma variates in the logarithm, many at once.
#
# A strength of 0.1 on a prior of 1e-6 makes a gamma shape of 1e-7, whose variates underflow to 0 nearly always:
# a row of zeros over zeros. In the logarithm nothing underflows: G(a) = G(a + 1) U^(1/a) in distribution, so
# log G(a) = log G(a + 1) - E / a with E exponential (Marsaglia and Tsang, 2000).


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


def check_strengths(strengths: tuple[float, ...]) -> None:
    """Refuse strengths that no Dirichlet has.

    Raises:
        InvalidSetting: there are none, or one is not positive and finite.
    """
    if not strengths or not all(0 < strength < math.inf for strength in strengths):
        raise InvalidSetting(
            f"the strengths are {strengths}; they must be numbers above 0", field="strengths"
        )


@dataclass(frozen=True)
class TwoLevelDirichlet:
    """Settings of the sampler; the defaults are Olmix's.

    Attributes:
        strengths: values of s, one drawn at random per level and per draw.
        minimum_weight: smaller shares become 0; less where there are more than 125 sources, or topics in a
            source, so that a quarter of an equal share is kept.
        filling: rejection, near-duplicates and coverage.
    """

    strengths: tuple[float, ...] = strengths_between(*STRENGTHS)
    minimum_weight: float = LEAST_PRESENCE
    filling: Filling = field(default_factory=Filling)


def sample(
    space: SwarmSpace,
    runs: int,
    generator: np.random.Generator,
    settings: TwoLevelDirichlet | None = None,
) -> np.ndarray:
    """(runs, m) mixtures in canonical order, all distinct and all in the space.

    Raises:
        InvalidSetting: strengths that are not positive, or no runs.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """
    settings = settings or TwoLevelDirichlet()
    check_strengths(settings.strengths)

    def draw_rows(count: int) -> np.ndarray:
        return _draw(space.domains.names, space.prior, count, generator, settings)

    return fill(space, runs, draw_rows, generator, settings.filling)


def draw(domains: Domains, generator: np.random.Generator, settings: TwoLevelDirichlet) -> np.ndarray:
    """(m,) one mixture of the two-level Dirichlet, no constraints considered."""
    return _draw(domains.names, domains.natural_weights, 1, generator, settings)[0]


def _draw(
    names: tuple[str, ...],
    prior: np.ndarray,
    count: int,
    generator: np.random.Generator,
    settings: TwoLevelDirichlet,
) -> np.ndarray:
    """(count, m) mixtures; domains whose prior is 0 get nothing."""
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
    strength = generator.choice(settings.strengths, size=(2, count, 1))
    shares = log_gamma_variates(strength[0] * source_prior, generator)
    shares = _clipped(normalised_within(shares, np.array([0])), np.array([0]), settings.minimum_weight)
    within = log_gamma_variates(strength[1] * (leaf_prior / np.repeat(source_prior, widths)), generator)
    within = _clipped(normalised_within(within, starts), starts, settings.minimum_weight)
    result[:, drawn] = within * np.repeat(shares, widths, axis=1)
    return result / result.sum(1, keepdims=True)


def _clipped(weights: np.ndarray, starts: np.ndarray, minimum: float) -> np.ndarray:
    """Shares of their group below `minimum` set to 0, the rest renormalised; the largest always stays."""
    widths = np.diff(np.append(starts, weights.shape[1]))
    floor = np.repeat(np.minimum(minimum, 1 / (4 * widths)), widths)
    largest = np.repeat(np.maximum.reduceat(weights, starts, axis=1), widths, axis=1)
    kept = np.where((weights >= floor) | (weights == largest), weights, 0.0)
    return kept / np.repeat(np.add.reduceat(kept, starts, axis=1), widths, axis=1)
