"""The swarm: which mixtures to train proxies on, round by round, the same on any machine for one seed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixing.domains import Domains
from mixing.errors import InvalidSetting, TooFewDomains, TooFewRuns
from mixing.methods import Recipe
from mixing.mixture import Mixture
from mixing.objective import ObjectiveSpec
from mixing.repetition import check_target_reachable, repetition_caps
from mixing.reuse.reuse import NOTHING_REUSED, Reuse, check_reusable, least_new_runs
from mixing.runs.evidence import RunEvidence
from mixing.simplex_map import SimplexMap
from mixing.solve.conflicts import linear_conflict
from mixing.solve.feasibility import is_feasible
from mixing.solve.linear_system import LinearSystem
from mixing.solve.problem import LinearConstraint
from mixing.swarm.catalogue import SAMPLERS
from mixing.swarm.dirichlet import STRENGTHS, strengths_between
from mixing.swarm.space import SwarmSpace


@dataclass(frozen=True)
class SwarmRequest:
    """What a swarm is sampled for.

    Attributes:
        recipe: the method's parts; the sampler draws, and the regression says how few runs will do.
        domains: at least two domains with their tokens.
        rounds: how many runs each round trains.
        seed: non-negative; the same request gives the same swarm.
        target_tokens: R, the size of the training run the mixture is for.
        repetition_cap: k epochs, or None for no cap.
        strengths: lowest and highest strength of the Dirichlet draws; stronger is closer to the natural
            distribution, where a law needs to be right and few runs must do.
        constraints: shares that were asked for; the swarm keeps those of a single domain.
        objective: what later rounds are chosen for.
        entropies: the four entropies of each domain's tokens, for the sampler that reads them.
        reuse: the ratios to keep, and older runs, which a design counts as chosen.
    """

    recipe: Recipe
    domains: Domains
    rounds: tuple[int, ...]
    seed: int
    target_tokens: float
    repetition_cap: float | None = 4.0
    strengths: tuple[float, float] = STRENGTHS
    constraints: tuple[LinearConstraint, ...] = ()
    objective: ObjectiveSpec | None = None
    entropies: Mapping[str, tuple[float, ...]] | None = None
    reuse: Reuse = NOTHING_REUSED

    @cached_property
    def searched(self) -> SimplexMap:
        """From what is sampled, virtual domains and free ones, to the domains."""
        return self.reuse.search_space(self.domains)

    def space(self) -> SwarmSpace:
        """Where its runs may lie: caps, and the pins and least weights of single domains, virtual ones among them."""
        names, way = self.searched.free, self.searched
        caps = way.pull_back_caps(repetition_caps(self.domains, self.target_tokens, self.repetition_cap))
        minimum, pins = np.zeros(len(names)), {}
        for one in self.constraints:
            row = way.pull_back_rows(one.row(self.domains.names)[None])[0]
            (used,) = np.nonzero(row)
            if len(used) != 1 or row[at := int(used[0])] < 0:
                continue
            lower, upper = one.lower / row[at], one.upper / row[at]
            if lower == upper:
                pins[names[at]] = lower
            else:
                caps[at], minimum[at] = min(caps[at], upper), max(minimum[at], lower)
        required = [name for name, least in zip(names, minimum, strict=True) if least > 0]
        tokens = self.domains.tokens @ (way.matrix > 0)
        return SwarmSpace.of(Domains(names, tokens), caps, minimum, pins, required)


@dataclass(frozen=True)
class SampledRun:
    """A run to train: its mixture, and how much of a full proxy run's tokens it trains."""

    mixture: Mixture
    tokens: float = 1.0


def sample_round(
    request: SwarmRequest, number: int = 0, evidence: tuple[RunEvidence, ...] = ()
) -> tuple[SampledRun, ...]:
    """The runs of one round, all under the caps and all different; the order of domains plays no part.

    Args:
        request: what the swarm is for.
        number: the round, from 0.
        evidence: the finished runs of the rounds before, for a sampler that learns from them.

    Raises:
        InvalidSetting: a setting of the request.
        TooFewRuns: fewer runs than the regression can be fitted with.
        Infeasible: the target tokens cannot be reached under the caps or leave no room to vary, or constraints are in
            conflict.
    """
    _check(request)
    keys = [request.seed, _STREAM, number] if number else [request.seed, _STREAM]
    if request.reuse.runs:  # of the same seed, whose draws would otherwise be the ones drawn again
        keys = [request.seed, _STREAM, number, len(request.reuse.runs)]
    # A key of its own keeps this stream apart from those of the cross-validation and the search.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(keys)))
    return SAMPLERS[request.recipe.sampler].draw(Round(request, number, evidence, request.space(), generator))


def _check(request: SwarmRequest) -> None:
    domains, recipe = request.domains, request.recipe
    if len(domains) < 2:
        raise TooFewDomains("a swarm needs at least two domains", field="domains")
    runs, needed = sum(request.rounds), least_new_runs(recipe, request.reuse, domains)
    if runs < needed:
        beside = f" beside {len(request.reuse.runs)} older ones" if request.reuse.runs else ""
        raise TooFewRuns(
            f"{runs} runs{beside} are too few: the {recipe.regression} regression over {len(domains)} domains needs"
            f" {needed}",
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
    check_reusable(recipe, request.reuse)
    check_target_reachable(domains, request.target_tokens, request.repetition_cap)
    if request.constraints or request.reuse.groups:
        # In conflict no mixture would be found for the runs, so none is trained.
        caps = repetition_caps(domains, request.target_tokens, request.repetition_cap)
        system = LinearSystem.over(request.searched, caps, request.constraints)
        if not is_feasible(system):
            raise linear_conflict(system).error()


_STREAM = 1


@dataclass(frozen=True)
class Round:
    """What a sampler is given.

    Attributes:
        request: what the swarm is for.
        number: the round, from 0.
        evidence: the finished runs of the rounds before.
        space: where the runs may lie.
        generator: of all that is drawn.
    """

    request: SwarmRequest
    number: int
    evidence: tuple[RunEvidence, ...]
    space: SwarmSpace
    generator: np.random.Generator

    @property
    def runs(self) -> int:
        """How many the round trains."""
        return self.request.rounds[self.number]

    @property
    def strengths(self) -> tuple[float, ...]:
        """Of the Dirichlet draws."""
        return strengths_between(*self.request.strengths)

    def sampled(self, weights: np.ndarray, tokens: np.ndarray | float = 1.0) -> tuple[SampledRun, ...]:
        """Runs of (n, q) weights over what is sampled, each a full proxy run or of (n,) tokens."""
        each = np.broadcast_to(tokens, len(weights))
        domains = self.request.domains
        leaves = self.request.searched.expand(weights)
        return tuple(
            SampledRun(domains.mixture(row), float(share)) for row, share in zip(leaves, each, strict=True)
        )

    def over_contents(self, weights: np.ndarray) -> np.ndarray:
        """(n, c) weights over the contents of (n, q) weights over what is sampled."""
        space = self.request.reuse.evidence_space(self.request.domains)
        return space.newest.expand(self.request.searched.expand(weights))

    def older(self) -> np.ndarray | None:
        """(K, c) the older runs over the contents; None where there are none."""
        runs, names = (
            self.request.reuse.runs,
            self.request.reuse.evidence_space(self.request.domains).contents.names,
        )
        return np.array([Mixture.of(run.mixture).align(names) for run in runs]) if runs else None
