"""The swarm: which mixtures to train proxies on, round by round, the same on any machine for one seed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting, TooFewDomains, TooFewRuns
from mixing.laws.catalogue import REGRESSIONS
from mixing.laws.fitting import Columns, fit
from mixing.laws.learning import gather_over
from mixing.laws.protocol import Fitted
from mixing.laws.through import through
from mixing.methods import Recipe
from mixing.mixture import Mixture
from mixing.objective import ObjectiveSpec
from mixing.parts import FitContext
from mixing.repetition import check_target_reachable, repetition_caps
from mixing.reuse.reuse import NOTHING_REUSED, Reuse, check_reusable, least_new_runs
from mixing.runs.evidence import Evidence, RunEvidence
from mixing.simplex_map import SimplexMap
from mixing.solve.conflicts import linear_conflict
from mixing.solve.feasibility import is_feasible
from mixing.solve.linear_system import LinearSystem
from mixing.solve.problem import LinearConstraint
from mixing.swarm import (
    acquisition,
    climb,
    design,
    design_pool,
    dirichlet,
    entropy,
    grid,
    perturbation,
    tempered,
)
from mixing.swarm.distinct import distinct
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
    strengths: tuple[float, float] = dirichlet.STRENGTHS
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
    return _SAMPLERS[request.recipe.sampler](_Round(request, number, evidence, request.space(), generator))


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
class _Round:
    request: SwarmRequest
    number: int
    evidence: tuple[RunEvidence, ...]
    space: SwarmSpace
    generator: np.random.Generator

    @property
    def runs(self) -> int:
        return self.request.rounds[self.number]

    @property
    def strengths(self) -> tuple[float, ...]:
        return dirichlet.strengths_between(*self.request.strengths)

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


def _two_level(asked: _Round) -> tuple[SampledRun, ...]:
    settings = dirichlet.TwoLevelDirichlet(strengths=asked.strengths)
    return asked.sampled(dirichlet.sample(asked.space, asked.runs, asked.generator, settings))


def _tempered(asked: _Round) -> tuple[SampledRun, ...]:
    settings = tempered.TemperedDirichlet(strengths=asked.strengths)
    return asked.sampled(tempered.sample(asked.space, asked.runs, asked.generator, settings))


def _grid(asked: _Round) -> tuple[SampledRun, ...]:
    return asked.sampled(grid.sample(asked.space, asked.runs, asked.generator))


POOL = 8
"""Two-level draws a design chooses one run from; fewer where that would be more than `LARGEST_POOL`."""
LARGEST_POOL = 4096


def _design(criterion: str) -> Callable[[_Round], tuple[SampledRun, ...]]:
    """Of many two-level draws those that tell most together: of the log-weights, as a law sees them.

    Older runs count as chosen, so new ones are drawn where those say little.
    """

    def sample(asked: _Round) -> tuple[SampledRun, ...]:
        settings = dirichlet.TwoLevelDirichlet(strengths=asked.strengths)
        count = min(POOL * asked.runs, max(2 * asked.runs, LARGEST_POOL))
        pool = dirichlet.sample(asked.space, count, asked.generator, settings)
        settled = design.Design(criterion, "log")
        chosen = design.choose(asked.over_contents(pool), asked.runs, settled, asked.older())
        return asked.sampled(pool[chosen])

    return sample


def _entropy(asked: _Round) -> tuple[SampledRun, ...]:
    """One run for each entropy; more than four are two-level draws, so that any regression can be fitted."""
    if asked.request.entropies is None:
        raise InvalidSetting(
            "the entropy sampler needs the entropies of the domains' tokens", field="sampler"
        )
    measured = {name: entropy.Entropies(*values) for name, values in asked.request.entropies.items()}
    weights = entropy.entropy_weighted(asked.space, measured, asked.generator)[: asked.runs]
    further = asked.runs - len(weights)
    if further:
        settings = dirichlet.TwoLevelDirichlet(strengths=asked.strengths)
        drawn = dirichlet.sample(asked.space, further, asked.generator, settings)
        weights = np.concatenate([weights, drawn])
    return asked.sampled(weights)


def _perturbation(asked: _Round) -> tuple[SampledRun, ...]:
    """AutoScale's runs at the round's budget: half the proxy's tokens, then all of them."""
    budget = 2.0 ** (asked.number - len(asked.request.rounds) + 1)
    perturbed = perturbation.perturbed_runs(asked.space, budget, asked.generator)
    if asked.runs != len(perturbed.weights):
        raise InvalidSetting(
            f"each budget takes {len(perturbed.weights)} runs, two a domain and the base, not {asked.runs}",
            field="runs",
        )
    if perturbed.held:
        raise Infeasible(
            f"the caps or shares leave {', '.join(perturbed.held)} no room to be raised and lowered by a tenth, so"
            " the runs could not tell what they are worth; raise the repetition cap, lower the target or drop the"
            " shares",
            field="repetition_cap",
            names=perturbed.held,
        )
    return asked.sampled(perturbed.weights, perturbed.tokens)


def _predicted_best(asked: _Round) -> tuple[SampledRun, ...]:
    if asked.number == 0:
        return asked.sampled(climb.first_batch(asked.space, asked.runs, asked.generator))
    learned = _learned(asked)
    existing = learned.trained
    return asked.sampled(
        climb.next_batch(learned.predict, existing, asked.space, asked.runs, asked.generator)
    )


FIDELITIES = (0.25, 1.0)
"""Shares of the proxy's tokens a run of ADMIRE-BayesOpt may train: what it costs, and how much it tells."""


def _acquisition(asked: _Round) -> tuple[SampledRun, ...]:
    """First Dirichlet draws, two in three of them short; then what is expected to improve most per token."""
    if asked.number == 0:
        weights = climb.first_batch(asked.space, asked.runs, asked.generator)
        return asked.sampled(
            weights, np.where(np.arange(len(weights)) % 3 == 0, FIDELITIES[1], FIDELITIES[0])
        )
    learned = _learned(asked)
    pool = design_pool.candidate_pool(asked.space, 1024, asked.generator)
    best = pool[np.argsort(learned.predict(pool)[0])[:8]]
    near = design_pool.perturbed_around(asked.space, best, 1024, asked.generator)
    candidates = np.concatenate([pool, near])
    fresh = distinct(np.concatenate([learned.trained, candidates]), 1e-5)[len(learned.trained) :]
    candidates = candidates[fresh]
    shares = np.repeat(FIDELITIES, len(candidates))
    prospects = acquisition.Prospects(
        np.tile(candidates, (len(FIDELITIES), 1)),
        costs=shares,
        correlations=np.repeat([learned.correlation(share) for share in FIDELITIES], len(candidates)),
    )
    surrogate = acquisition.Surrogate(learned.predict, float(learned.predict(learned.trained)[0].min()))
    settings = acquisition.Acquisition("max-value entropy")
    chosen = acquisition.choose_batch(surrogate, prospects, asked.runs, asked.generator, settings)
    return asked.sampled(prospects.weights[chosen], shares[chosen])


@dataclass(frozen=True)
class _Learned:
    """The regression fitted to the rounds before, as one function of what is sampled.

    Attributes:
        evidence, columns: the runs so far.
        law: of (q,) weights.
        trained: (K, q) the runs so far, as the nearest such weights.
    """

    evidence: Evidence
    columns: Columns
    law: Fitted
    trained: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the objective, both (n,), at full fidelity."""
        mean, std = self.law.predict(weights)
        columns = self.columns
        # The tasks' errors come from the same runs, so their deviations are added: an upper bound.
        if not columns.worst:
            return columns.objective(mean), std @ columns.weights
        worst = (mean @ columns.membership.T - columns.offsets).argmax(axis=1)
        return columns.objective(mean), (std * columns.membership[worst]).sum(axis=1)

    def correlation(self, share: float) -> float:
        """Of what a run of that share of the tokens measures with what a full one would; 1 where nothing is known."""
        short = np.isclose(self.evidence.tokens, share, rtol=1e-2)  # runs train whole tokens
        short &= self.columns.complete
        if share == 1 or short.sum() < 4:
            return 1.0
        measured = self.columns.objective(self.columns.metrics[short])
        predicted = self.predict(self.trained[short])[0]
        if np.ptp(measured) == 0 or np.ptp(predicted) == 0:
            return 1.0
        return float(np.clip(np.corrcoef(measured, predicted)[0, 1], 0.05, 1.0))


def _learned(asked: _Round) -> _Learned:
    request = asked.request
    if request.objective is None:
        raise InvalidSetting("a round that learns from earlier ones needs the objective", field="objective")
    granularity: Any = request.recipe.granularity  # a Recipe checks it, and has only names
    specification = replace(request.objective, granularity=granularity)
    part, space = REGRESSIONS[request.recipe.regression], request.reuse.evidence_space(request.domains)
    evidence = gather_over(space, part, asked.evidence, request.reuse.runs, specification)
    columns = Columns.of(evidence)
    context = FitContext(evidence.tokens, evidence.rounds, space.contents.names, columns.names)
    law = fit(part, context, evidence.weights, columns)
    way = request.searched
    trained = space.onto_newest(evidence.weights)[0] @ (way.matrix > 0)
    return _Learned(evidence, columns, through(law, space.newest.matrix @ way.matrix), trained)


_SAMPLERS: Mapping[str, Callable[[_Round], tuple[SampledRun, ...]]] = {
    "two-level-dirichlet": _two_level,
    "tempered-dirichlet": _tempered,
    "exponential-grid": _grid,
    "perturbation": _perturbation,
    "entropy": _entropy,
    "d-optimal": _design("d-optimal"),
    "maximin": _design("maximin"),
    "predicted-best": _predicted_best,
    "acquisition": _acquisition,
}
