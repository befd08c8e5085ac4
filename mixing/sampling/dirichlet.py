"""Olmix's two-level Dirichlet (arXiv 2602.12237): sources first, then the topics of each source.

One draw: a strength s for the sources and one for the topics, from 15 values spaced evenly in the
logarithm over [0.1, 5]; Dirichlet(s prior) over the sources and, within each source, over its leaves;
multiply; zero what is below 0.002 (topics relative to their source) and renormalise; drop near-duplicates.
The prior is the natural distribution. Quality buckets are drawn together with the topics of their source.

Where this goes beyond the published code, and why:

- Caps. Olmix rejects a draw above a cap "when asked"; when the caps are tight almost every draw is above
  one and rejection does not end. Here a draw is rejected at most 16 times, then the last one is brought
  into the capped simplex by water-filling, which keeps the ratios of all domains below their caps. Where
  the caps are so tight that draws coincide, averages of the extreme mixtures complete the swarm.
- Coverage. With a prior of 1% most draws give a domain nothing, and a law cannot learn what it never saw
  vary. A domain present in less than a sixth of the runs is put into runs that lack it, at a weight drawn
  log-uniformly between the smallest kept weight and its cap (at most a quarter of the mixture; from a
  quarter of a cap that is lower still); the
  others shrink in proportion. A swarm that already covers its domains is left exactly as drawn.
"""

import math
from dataclasses import dataclass

import numpy as np

from mixing.domains import Domains, parse_name
from mixing.errors import Infeasible
from mixing.sampling.capped_simplex import check_caps, into_capped_simplex

STRENGTHS = (0.1, 5.0)
"""Olmix's range of s: most draws are nearly all one source, which 3(m + 1) long runs of a large proxy can use."""


def strengths_between(lowest: float, highest: float) -> tuple[float, ...]:
    """15 strengths evenly spaced in the logarithm. The larger s, the closer the draws are to the prior."""
    return tuple(np.logspace(math.log10(lowest), math.log10(highest), 15).tolist())


@dataclass(frozen=True)
class TwoLevelDirichlet:
    """Settings of the sampler; the defaults are Olmix's, the last four are ours.

    Attributes:
        strengths: values of s, one drawn at random per level and per draw.
        minimum_weight: smaller shares become 0.
        rejections: draws above a cap that are thrown away before one is projected instead.
        duplicate_distance: mixtures closer than this in L1 count as one.
        presence: share of the runs in which every domain must have weight.
        largest_lift: the most weight given to a domain that is put into a run for coverage.
    """

    strengths: tuple[float, ...] = strengths_between(*STRENGTHS)
    minimum_weight: float = 0.002
    rejections: int = 16
    duplicate_distance: float = 1e-5
    presence: float = 1 / 6
    largest_lift: float = 0.25


def sample(
    domains: Domains,
    caps: np.ndarray,
    runs: int,
    generator: np.random.Generator,
    settings: TwoLevelDirichlet | None = None,
) -> np.ndarray:
    """(runs, m) mixtures in canonical order, all distinct and all under the (m,) caps.

    Raises:
        Infeasible: the caps sum to less than 1, or leave a single mixture.
    """
    settings = settings or TwoLevelDirichlet()
    check_caps(caps)
    drawn = _distinct_draws(domains, caps, runs, generator, settings)
    return _cover(drawn, domains.natural_weights, caps, generator, settings)


def draw(domains: Domains, generator: np.random.Generator, settings: TwoLevelDirichlet) -> np.ndarray:
    """(m,) one mixture of the two-level Dirichlet, caps not considered."""
    prior = domains.natural_weights
    sources = _leaves_by_source(domains.names)
    source_strength, topic_strength = generator.choice(settings.strengths, size=2)
    source_prior = np.array([prior[leaves].sum() for leaves in sources])
    shares = _clipped(generator.dirichlet(source_strength * source_prior), settings.minimum_weight)
    weights = np.zeros(len(prior))
    for share, total, leaves in zip(shares, source_prior, sources, strict=True):
        if share > 0 and len(leaves) > 1:
            within = generator.dirichlet(topic_strength * prior[leaves] / total)
            weights[leaves] = share * _clipped(within, settings.minimum_weight)
        else:
            weights[leaves] = share
    return weights / weights.sum()


def _leaves_by_source(names: tuple[str, ...]) -> list[np.ndarray]:
    sources: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        sources.setdefault(parse_name(name)[0], []).append(column)
    return [np.array(columns) for _, columns in sorted(sources.items())]


def _clipped(weights: np.ndarray, minimum: float) -> np.ndarray:
    """Weights below `minimum` set to 0, the rest renormalised; the largest always stays."""
    kept = np.where((weights >= minimum) | (weights == weights.max()), weights, 0.0)
    return kept / kept.sum()


def _draw_under_caps(
    domains: Domains, caps: np.ndarray, generator: np.random.Generator, settings: TwoLevelDirichlet
) -> np.ndarray:
    weights = draw(domains, generator, settings)
    for _ in range(settings.rejections):
        if (weights <= caps).all():
            return weights
        weights = draw(domains, generator, settings)
    # The absent domains that take what is left over do so by a fresh draw, so that tight runs differ.
    reserve = generator.dirichlet(np.maximum(domains.natural_weights, 1e-3)) + 1e-6
    return into_capped_simplex(weights, caps, reserve)


def _distinct_draws(
    domains: Domains,
    caps: np.ndarray,
    runs: int,
    generator: np.random.Generator,
    settings: TwoLevelDirichlet,
) -> np.ndarray:
    kept = np.empty((runs, len(domains)))
    count = 0
    for _ in range(20 * runs + 200):
        weights = _draw_under_caps(domains, caps, generator, settings)
        if (np.abs(kept[:count] - weights).sum(1) > settings.duplicate_distance).all():
            kept[count] = weights
            count += 1
            if count == runs:
                return kept
    return _between_extremes(kept, count, domains.natural_weights, caps, generator)


def _between_extremes(
    kept: np.ndarray, count: int, prior: np.ndarray, caps: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Fill the rows from `count` on with random averages of the mixtures that hold most of one domain each."""
    extremes = np.array([into_capped_simplex(single, caps, prior) for single in np.eye(len(prior))])
    if np.ptp(extremes, axis=0).max() < 1e-9:
        raise Infeasible(
            "the caps leave a single mixture, so no two runs can differ; lower the target tokens or raise the"
            " repetition cap",
            field="runs",
        )
    shares = generator.dirichlet(np.ones(len(prior)), size=len(kept) - count)
    kept[count:] = shares @ extremes
    return kept


def _cover(
    drawn: np.ndarray,
    prior: np.ndarray,
    caps: np.ndarray,
    generator: np.random.Generator,
    settings: TwoLevelDirichlet,
) -> np.ndarray:
    """Put every domain into at least `presence` of the runs, the rarest into those it is missing from."""
    covered = drawn.copy()
    floor = np.minimum(settings.minimum_weight, caps / 4)
    needed = min(len(drawn), math.ceil(settings.presence * len(drawn)))
    for column in np.argsort((drawn >= floor).sum(0), kind="stable"):
        absent = np.flatnonzero(covered[:, column] < floor[column])
        lacking = needed - (len(drawn) - len(absent))
        if lacking <= 0:
            continue
        for row in generator.choice(absent, size=lacking, replace=False):
            covered[row] = _lift(covered[row], int(column), prior, caps, generator, settings)
    return covered


def _lift(
    weights: np.ndarray,
    column: int,
    prior: np.ndarray,
    caps: np.ndarray,
    generator: np.random.Generator,
    settings: TwoLevelDirichlet,
) -> np.ndarray:
    highest = min(float(caps[column]), settings.largest_lift)
    lowest = min(settings.minimum_weight, highest / 4)
    weight = math.exp(generator.uniform(math.log(lowest), math.log(highest)))
    others = weights.copy()
    others[column] = 0.0
    room = caps.copy()
    room[column] = 0.0
    if np.minimum(room, 1).sum() < 1 - weight:
        weight = 1 - float(np.minimum(room, 1).sum())  # so tight that the others cannot hold the rest
    lifted = (1 - weight) * into_capped_simplex(others, room / (1 - weight), prior)
    lifted[column] = weight
    return lifted
