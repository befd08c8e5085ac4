"""The swarm: which mixtures to train proxies on, round by round, the same on any machine for one seed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mixing.domains import Domains, Mixture
from mixing.errors import Infeasible, InvalidSetting, TooFewDomains, TooFewRuns
from mixing.parts import SAMPLERS
from mixing.question import Question
from mixing.reuse.reuse import least_new_runs
from mixing.runs.evidence import RunEvidence
from mixing.solve.conflicts import inside_of
from mixing.solve.constraints import LinearSystem
from mixing.swarm.dirichlet import strengths_between
from mixing.swarm.filling import distinct
from mixing.swarm.space import SwarmSpace

if TYPE_CHECKING:  # which a first round does not need
    from mixing.answer.proposal import Proposal
    from mixing.answer.regret import Regret


@dataclass(frozen=True)
class SampledRun:
    """A run to train: its mixture, and how much of a full proxy run's tokens it trains."""

    mixture: Mixture
    tokens: float = 1.0


def sample_round(
    question: Question,
    number: int = 0,
    evidence: tuple[RunEvidence, ...] = (),
    entropies: Mapping[str, tuple[float, ...]] | None = None,
) -> tuple[SampledRun, ...]:
    """The runs of one round, all under the caps and all different; the order of domains plays no part.

        for run in sample_round(question):
            metrics = train(run.mixture)

    Args:
        question: what the swarm is for; of shares it keeps those of a single domain.
        number: the round, from 0.
        evidence: the finished runs of the rounds before, for a sampler that learns from them.
        entropies: the four entropies of each domain's tokens, for the sampler that reads them.

    Raises:
        InvalidSetting: a setting of the question.
        TooFewDomains: fewer than two.
        TooFewRuns: fewer runs than the regression can be fitted with.
        Infeasible: the target tokens cannot be reached under the caps or leave no room to vary, or constraints are in
            conflict.

    >>> from mixing.domains import Domains
    >>> domains = Domains.of({"web": 6e9, "code": 3e9, "books": 1e9})
    >>> runs = sample_round(Question(domains=domains, target_tokens=4e9, rounds=(12,)))
    >>> len(runs), list(runs[0].mixture)
    (12, ['books', 'code', 'web'])
    """
    return draw_round(round_of(question, number, evidence, entropies))


def draw_round(round_: "Round") -> tuple[SampledRun, ...]:
    """Its runs, by the question's sampler; raises as `sample_round`."""
    return SAMPLERS[round_.question.parts.sampler].draw(round_)


def round_of(
    question: Question,
    number: int = 0,
    evidence: tuple[RunEvidence, ...] = (),
    entropies: Mapping[str, tuple[float, ...]] | None = None,
) -> "Round":
    """What `sample_round` draws; raises as that."""
    _check(question)
    keys = [question.seed, _STREAM, number] if number else [question.seed, _STREAM]
    if question.reuse.runs:  # of the same seed, whose draws would otherwise be the ones drawn again
        keys = [question.seed, _STREAM, number, len(question.reuse.runs)]
    # A key of its own keeps this stream apart from those of the cross-validation and the search.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(keys)))
    return Round(question, number, evidence, entropies, swarm_space(question), generator)


def _check(question: Question) -> None:
    domains, recipe = question.domains, question.parts
    if len(domains) < 2:
        raise TooFewDomains("a swarm needs at least two domains", field="domains")
    runs, needed = sum(question.rounds), least_new_runs(recipe, question.reuse, domains)
    if runs < needed:
        beside = f" beside {len(question.reuse.runs)} older ones" if question.reuse.runs else ""
        raise TooFewRuns(
            f"{runs} runs{beside} are too few: the {recipe.regression} regression over {len(domains)} domains needs"
            f" {needed}",
            needed=needed,
            given=runs,
        )
    question.limits.check(question.space)  # in conflict no mixture would be found for the runs


def swarm_space(question: Question) -> SwarmSpace:
    """Where the runs may lie: caps, and the pins and least weights of single domains, virtual ones among them."""
    way = question.space
    names, caps = way.free, way.pull_back_caps(question.limits.caps)[0]
    minimum, pins = np.zeros(len(names)), {}
    for share in question.constraints:
        row = way.pull_back_rows(share.row(question.domains.names)[None])[0]
        (used,) = np.nonzero(row)
        if len(used) != 1 or row[at := int(used[0])] < 0:
            continue
        lower, upper = share.lower / row[at], share.upper / row[at]
        if lower == upper:
            pins[names[at]] = lower
        else:
            caps[at], minimum[at] = min(caps[at], upper), max(minimum[at], lower)
    required = [name for name, least in zip(names, minimum, strict=True) if least > 0]
    tokens = way.collapse(question.domains.tokens)
    return SwarmSpace.of(Domains(names, tokens), caps, minimum, pins, required)


_STREAM = 1


@dataclass(frozen=True)
class Stopping:
    """How a rule to stop by stands before a round.

    Attributes:
        regret: of what would be proposed by the runs so far.
        met: what of the rule is met; None for nothing.
        can_be_met: whether it may be by the runs that are planned.
    """

    regret: "Regret"
    met: str | None
    can_be_met: bool


@dataclass(frozen=True)
class Round:
    """What a sampler is given.

    Attributes:
        question: what the swarm is for.
        number: the round, from 0.
        evidence: the finished runs of the rounds before.
        entropies: the four entropies of each domain's tokens, where they are known.
        space: where the runs may lie.
        generator: of all that is drawn.
    """

    question: Question
    number: int
    evidence: tuple[RunEvidence, ...]
    entropies: Mapping[str, tuple[float, ...]] | None
    space: SwarmSpace
    generator: np.random.Generator

    @property
    def runs(self) -> int:
        """How many the round trains."""
        return self.question.rounds[self.number]

    @property
    def strengths(self) -> tuple[float, ...]:
        """Of the Dirichlet draws."""
        return strengths_between(*self.question.strengths)

    def sampled(self, weights: np.ndarray, tokens: np.ndarray | float = 1.0) -> tuple[SampledRun, ...]:
        """Runs of (n, q) weights over what is sampled, each a full proxy run or of (n,) tokens."""
        each = np.broadcast_to(tokens, len(weights))
        domains = self.question.domains
        leaves = self.question.space.expand(self.within(weights))
        return tuple(
            SampledRun(domains.mixture(row), float(share)) for row, share in zip(leaves, each, strict=True)
        )

    def within(self, weights: np.ndarray) -> np.ndarray:
        """(n, q) weights that keep to the caps of what several domains hold.

        One that does not is moved towards the middle of what may be, as far as it has to be: both keep to every other
        limit, and so does what lies between them.

        Raises:
            Infeasible: so much has to be moved that runs coincide.
        """
        limits, way = self.question.limits, self.question.space
        if not limits.sharing:
            return weights
        caps = np.array([limit.upper for limit in limits.sharing])
        rows = way.pull_back_rows(np.array([limit.row(way.leaves) for limit in limits.sharing]))
        over = np.maximum(weights @ rows.T - caps, 0.0)
        if not over.any():
            return weights
        middle = inside_of(LinearSystem.of(way, limits.caps, limits.all_constraints))[0] * self.space.drawn
        middle = self.space.pinned + middle * (self.space.free_mass / middle.sum())
        room = np.maximum(caps - rows @ middle, np.finfo(float).tiny)
        moved = weights + (over / (over + room)).max(axis=1, keepdims=True) * (middle - weights)
        if distinct(moved, 0.0).sum() < distinct(weights, 0.0).sum():
            names = sorted({name for limit in limits.sharing for name in limit.coefficients})
            raise Infeasible(
                f"the caps leave too few mixtures for {len(weights)} runs, for {', '.join(names)} hold the same text;"
                " merge them, lower the target tokens or raise the repetition cap",
                field="runs",
                names=names,
            )
        return moved

    def over_contents(self, weights: np.ndarray) -> np.ndarray:
        """(n, c) weights over the contents of (n, q) weights over what is sampled."""
        space = self.question.reuse.evidence_space(self.question.domains)
        return space.newest.expand(self.question.space.expand(weights))

    def trained(self) -> np.ndarray:
        """(K, c) the older runs, and those of the rounds before, over the contents."""
        runs = self.question.reuse.runs
        names = self.question.reuse.evidence_space(self.question.domains).contents.names
        older = np.array([Mixture.of(run.mixture).align(names) for run in runs]).reshape(-1, len(names))
        return np.concatenate([older, self.over_contents(self.asked)])

    @cached_property
    def asked(self) -> np.ndarray:
        """(K, q) what was asked of the runs of the rounds before, which whole rows came near to."""
        names, way = self.question.domains.names, self.question.space
        wanted = [run.mixture if run.requested is None else run.requested for run in self.evidence]
        rows = np.array([[weights.get(name, 0.0) for name in names] for weights in wanted])
        return way.collapse(rows.reshape(-1, len(names)))

    @cached_property
    def proposal(self) -> "Proposal | None":
        """What would be proposed by the runs so far; None where they are too few for a law, or to judge it.

        Raises:
            InvalidSetting: no objective.
        """
        from mixing.answer.proposal import propose

        if not self.question.objective:
            raise InvalidSetting(
                "a round that learns from earlier ones needs the objective", field="objective"
            )
        if not self.evidence and not self.question.reuse.runs:
            return None
        try:
            proposal = propose(replace(self.question, prefer=None), self.evidence)
        except TooFewRuns:
            return None
        return None if proposal.regret is None else proposal

    @property
    def stopping(self) -> "Stopping | None":
        """Whether the question's rule to stop by is met; None without one, and where nothing can be said yet."""
        rule = self.question.stop_when
        if rule is None or self.proposal is None or self.proposal.regret is None:
            return None
        regret, planned = self.proposal.regret, sum(self.question.rounds) + len(self.question.reuse.runs)
        return Stopping(regret, regret.meets(rule), regret.can_meet(rule, planned))
