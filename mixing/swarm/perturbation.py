"""AutoScale's swarm (arXiv 2407.20177): a base mixture, and each domain's tokens raised and lowered in turn.

2m + 1 runs: the base of N tokens, then for each domain one run with three times its tokens and one with a third,
the other domains' tokens unchanged. So the runs differ in total tokens, which the law per domain is fitted to.
(The paper writes 1/3; its code evaluates the curve at 1/5, 1 and 3: `factors=(3, 1 / 5)`.)
"""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting, InvalidWeights
from mixing.swarm.projection import into_space
from mixing.swarm.space import SwarmSpace


@dataclass(frozen=True, eq=False)
class PerturbedRuns:
    """The runs, base first, then the domains in canonical order, each raised and then lowered.

    Attributes:
        weights: (2d + 1, m) mixtures, for d domains that are not pinned.
        tokens: (2d + 1,) training tokens of each run.
        factors: (2d + 1,) what the domain's tokens were multiplied by; 1 for the base.
        domains: (2d + 1,) the domain's name; "" for the base.
        held: domains whose caps or minimum weights leave a factor within 10% of 1 on either side, so that the
            run says nothing about them.
    """

    weights: np.ndarray
    tokens: np.ndarray
    factors: np.ndarray
    domains: tuple[str, ...]
    held: tuple[str, ...]


def perturbed_runs(
    space: SwarmSpace,
    base_tokens: float,
    generator: np.random.Generator,
    base: np.ndarray | None = None,
    factors: tuple[float, float] = (3.0, 1 / 3),
) -> PerturbedRuns:
    """Perturb the (m,) base mixture, by default the natural distribution, brought into the space.

    A factor that would take any weight out of the space is brought as near to 1 as keeps all inside. Pinned
    domains keep their weight, so their tokens follow the total.

    Raises:
        InvalidSetting: `base_tokens` is not positive, or the factors are not one above 1 and one below.
        InvalidWeights: a domain has no weight in the base, so it cannot be multiplied.
    """
    if not 0 < base_tokens < np.inf:
        raise InvalidSetting(f"base_tokens is {base_tokens}; it must be above 0", field="base_tokens")
    higher, lower = factors
    if not 0 < lower < 1 < higher < np.inf:
        raise InvalidSetting(f"the factors are {factors}; write one above 1, then one below", field="factors")
    centre = into_space(space, (space.prior if base is None else base)[None], generator)[0]
    free = np.flatnonzero(space.drawn)
    names = space.domains.names
    if absent := [names[column] for column in free if centre[column] == 0]:
        raise InvalidWeights(
            f"the base gives nothing to {', '.join(absent)}, and nothing cannot be multiplied",
            field="base",
            names=absent,
        )
    weights, tokens, used, varied = [centre], [base_tokens], [1.0], [""]
    for column in free.tolist():
        for factor in np.clip([higher, lower], *_factor_range(space, centre, column)).tolist():
            mass = space.free_mass + (factor - 1) * centre[column]
            perturbed = centre * np.where(np.arange(len(space)) == column, factor, 1.0)
            weights.append(np.where(space.drawn, perturbed * (space.free_mass / mass), space.pinned))
            tokens.append(base_tokens * mass / space.free_mass)
            used.append(factor)
            varied.append(names[column])
    held = sorted({name for name, factor in zip(varied, used, strict=True) if name and 0.9 < factor < 1.1})
    settled = into_space(space, np.array(weights), generator)
    return PerturbedRuns(settled, np.array(tokens), np.array(used), tuple(varied), tuple(held))


def _factor_range(space: SwarmSpace, centre: np.ndarray, column: int) -> tuple[float, float]:
    """Least and largest factor on one domain's tokens that keeps every weight within its bounds.

    With free mass F and factor k on p_j the free weights are divided by S = 1 + (k - 1) p_j / F: p_j becomes
    k p_j / S and the others p_i / S.
    """
    mass, weight = space.free_mass, centre[column]
    others = space.drawn & (np.arange(len(centre)) != column)

    def reaching(bound: float) -> float:
        return bound * (mass - weight) / (weight * (mass - bound)) if bound < mass else np.inf

    fullest = (centre[others] / space.upper[others]).max(initial=0.0)
    barest = np.divide(
        centre[others], space.lower[others], out=np.full(others.sum(), np.inf), where=space.lower[others] > 0
    ).min(initial=np.inf)
    least = max(reaching(space.lower[column]), 1 + (fullest - 1) * mass / weight)
    most = min(reaching(space.upper[column]), 1 + (barest - 1) * mass / weight)
    return min(least, 1.0), max(most, 1.0)
