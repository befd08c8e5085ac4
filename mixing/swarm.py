"""The swarm: which mixtures to train proxies on, the same on any machine for one seed."""

import math
from dataclasses import dataclass

import numpy as np

from mixing.domains import Domains
from mixing.errors import InvalidSetting, TooFewDomains, TooFewRuns
from mixing.methods import method_named
from mixing.mixture import Mixture
from mixing.repetition import check_target_reachable, repetition_caps
from mixing.sampling import dirichlet


@dataclass(frozen=True)
class SwarmRequest:
    """What a swarm is sampled for.

    Attributes:
        method: name of a method that trains runs (`mixing.methods.METHODS`).
        domains: at least two domains with their tokens.
        runs: number of mixtures, or None for the method's default, 3(m+1) for Olmix.
        seed: non-negative; the same request gives the same swarm.
        target_tokens: R, the size of the training run the mixture is for.
        repetition_cap: k epochs, or None for no cap.
        strengths: lowest and highest strength of the Dirichlet draws; stronger is closer to the natural
            distribution, where a law needs to be right and few runs must do.
    """

    method: str
    domains: Domains
    runs: int | None
    seed: int
    target_tokens: float
    repetition_cap: float | None = 4.0
    strengths: tuple[float, float] = dirichlet.STRENGTHS


def sample_swarm(request: SwarmRequest) -> tuple[Mixture, ...]:
    """The mixtures of the swarm, all under the caps and all different; the order of domains plays no part.

    Raises:
        UnknownMethod, InvalidSetting: the method, or a setting of the request.
        TooFewRuns: fewer runs than the method's regression can be fitted with.
        Infeasible: the target tokens cannot be reached under the caps, or leave no room to vary.
    """
    method = method_named(request.method)
    domains = request.domains
    if method.sampler is None:
        raise InvalidSetting(f"the method {method.name!r} trains no runs, so it has no swarm", field="method")
    if len(domains) < 2:
        raise TooFewDomains("a swarm needs at least two domains", field="domains")
    runs = method.default_runs(len(domains)) if request.runs is None else request.runs
    if runs < (needed := method.minimum_runs(len(domains))):
        raise TooFewRuns(
            f"{runs} runs are too few: the {method.regression} law over {len(domains)} domains needs"
            f" {needed} (recommended {method.default_runs(len(domains))})",
            needed=needed,
            given=runs,
        )
    if request.seed < 0:
        raise InvalidSetting(f"the seed is {request.seed}; it must be at least 0", field="seed")
    lowest, highest = request.strengths
    if not 0 < lowest <= highest < math.inf:
        raise InvalidSetting(
            f"the strengths are {lowest} to {highest}; they must rise from above 0", field="strengths"
        )
    check_target_reachable(domains, request.target_tokens, request.repetition_cap)
    caps = repetition_caps(domains, request.target_tokens, request.repetition_cap)
    # A key of its own keeps this stream apart from those of the bootstrap and the cross-validation.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([request.seed, _STREAM])))
    settings = dirichlet.TwoLevelDirichlet(strengths=dirichlet.strengths_between(*request.strengths))
    weights = dirichlet.sample(domains, caps, runs, generator, settings)
    return tuple(_mixture(domains, row, caps) for row in weights)


_STREAM = 1


def _mixture(domains: Domains, weights: np.ndarray, caps: np.ndarray) -> Mixture:
    scaled = np.minimum(weights / math.fsum(weights.tolist()), caps)
    return domains.mixture(scaled)
