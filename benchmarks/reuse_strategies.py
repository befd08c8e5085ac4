"""Ways to a mixture after every update: recompute everything, keep ratios, keep runs.

Every mixture is found as the service finds it: `plan_reuse` says what is frozen and how many runs to train,
`sample_round` which, and the law is fitted and solved by the functions of `propose`. Only what a run would have
measured comes from the known truth. Where no ratios are frozen and no standard error of the gain is asked for, the
law is not cross-validated: nothing would be decided by it, and it takes twenty times as long as the fit.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np

from benchmarks.reuse_truth import Truth
from benchmarks.reuse_updates import Updates
from benchmarks.revision_maps import carried, carry
from mixing.answer.proposal import Proposal, propose
from mixing.capped_simplex import into_capped_simplex
from mixing.change.lineage import EvidenceSpace
from mixing.domains import Mixture
from mixing.errors import Infeasible, TooFewRuns
from mixing.laws.composed import through
from mixing.laws.fitting import fit
from mixing.laws.learning import CONTENTS, Learned, gather_over, learn
from mixing.limits import Limits
from mixing.methods import method_named
from mixing.parts import REGRESSIONS
from mixing.question import Question, problem_of
from mixing.reuse.choice import (
    Continuation,
    PastRun,
    ReuseKind,
    StartMixture,
    costs_of_keeping,
    kept_domains,
    newest_domains,
)
from mixing.reuse.plan import ReusePlan, plan_reuse
from mixing.reuse.reuse import NOTHING_REUSED, Reuse, least_new_runs, older_run
from mixing.runs.evidence import RunEvidence
from mixing.solve.solvers import FittedQuestion, solution_of
from mixing.swarm.sample import sample_round

TRAINING_SEED = 0
"""Of every run: a service trains all runs of a method with one seed unless it is told another."""


@dataclass(frozen=True)
class Strategy:
    """What is asked for after an update.

    Attributes:
        reuse: as a user writes it.
        keep_runs: whether older runs may count.
        stream: of random numbers; strategies of one benchmark draw from different ones.
        method: name.
        most_coupled: how many of the most coupled domains `partial` frees.
        runs_of: strategy that trains as many new runs, None for what the plan proposes.
    """

    reuse: ReuseKind
    keep_runs: bool
    stream: int
    method: str = "mixwright"
    most_coupled: int | None = None
    runs_of: str | None = None


RECOMPUTE, DEFAULT = "recompute", "default"
STRATEGIES: Mapping[str, Strategy] = {
    RECOMPUTE: Strategy("none", keep_runs=False, stream=1),
    DEFAULT: Strategy("auto", keep_runs=True, stream=2),
    "full, with runs": Strategy("full", keep_runs=True, stream=3),
    "full, ratios alone": Strategy("full", keep_runs=False, stream=4),
    "partial, ratios alone": Strategy("partial", keep_runs=False, stream=5, most_coupled=2),
    "auto, ratios alone": Strategy("auto", keep_runs=False, stream=6),
    "full, ratios alone, runs of default": Strategy("full", keep_runs=False, stream=7, runs_of=DEFAULT),
    "recompute, runs of default": Strategy("none", keep_runs=False, stream=8, runs_of=DEFAULT),
    "olmix, recompute": Strategy("none", keep_runs=False, stream=9, method="olmix"),
    "olmix, auto": Strategy("auto", keep_runs=True, stream=10, method="olmix"),
}
"""By name, each after the one it takes its number of runs from."""


@dataclass(frozen=True)
class Trained:
    """A run and the revision it was trained for."""

    revision: str
    run: RunEvidence


@dataclass
class State:
    """Where a strategy stands.

    Attributes:
        start: the mixture in use.
        trained: every run so far.
        runs: new ones of each update.
        gains: of each update's mixture over that revision's natural distribution, in the truth.
        plans: of each update; None where no law could be fitted.
        seen: how often something was not possible as asked, by what it was.
    """

    start: StartMixture
    trained: tuple[Trained, ...]
    runs: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    plans: list[ReusePlan | None] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Bench:
    """A truth and a pool.

    Attributes:
        truth: over the contents of `updates.whole`.
        updates: the revisions.
        seed: of everything that is drawn.
    """

    truth: Truth
    updates: Updates
    seed: int

    def begin(self, method: str) -> State:
        """The swarm over the first revision and its mixture, which all strategies of a method have in common."""
        revision = self.updates.ids[0]
        runs = method_named(method).default_runs(len(self.updates.domains(revision)))
        step = _Step(self, Strategy("none", False, 0, method), revision, NOTHING_REUSED)
        trained = step.train(runs)
        runs_of = tuple(one.run for one in trained)
        return State(step.started(propose(step.question, runs_of)), trained)

    def update(self, state: State, strategy: Strategy, revision: str, runs: int | None = None) -> None:
        """Decide the mixture of the next revision; `state` is changed.

        Args:
            state: of the strategy, at the revision before.
            strategy: what is asked for.
            revision: id.
            runs: new runs, where their number is given.
        """
        question = self._continuation(state, strategy, self.updates.space(revision), runs)
        try:
            plan, state.start, new = self._with_room(state, strategy, question)
        except TooFewRuns:
            if runs is None:
                raise
            state.seen["no law from so few runs"] += 1
            plan, state.start, new = None, self._carried(state, revision), ()
        state.plans.append(plan)
        state.trained += new
        # The number was given, so the runs were trained even where they taught nothing.
        state.runs.append(runs if runs is not None else len(new))
        state.gains.append(self.gain(revision, state.start.weights))

    def gain(self, revision: str, weights: Mapping[str, float]) -> float:
        """True gain over the revision's natural distribution."""
        natural = self.updates.domains(revision).natural()
        return self._objective(revision, natural) - self._objective(revision, weights)

    def _objective(self, revision: str, weights: Mapping[str, float]) -> float:
        way = self.updates.whole.maps[revision]
        return self.truth.objective(way.expand(Mixture.of(weights).align(way.free)))

    def _continuation(
        self, state: State, strategy: Strategy, space: EvidenceSpace, runs: int | None
    ) -> Continuation:
        past = tuple(
            PastRun(one.run.id, one.revision, one.run.mixture, self.truth.tasks, None, TRAINING_SEED)
            for one in state.trained
        )
        question = Question(
            domains=newest_domains(space),
            method=strategy.method,
            objective=dict.fromkeys(self.truth.tasks, 1.0),
            target_tokens=self.updates.target_tokens,
            repetition_cap=self.updates.repetition_cap,
            seed=TRAINING_SEED,
        )
        return Continuation(
            question,
            space,
            past,
            state.start,
            strategy.reuse,
            most_coupled=strategy.most_coupled,
            reuse_runs=strategy.keep_runs,
            runs=runs,
        )

    def _with_room(
        self, state: State, strategy: Strategy, continuation: Continuation
    ) -> tuple[ReusePlan, StartMixture, tuple[Trained, ...]]:
        """What the strategy asks for.

        Where its ratios leave no mixture, members are freed as `auto` frees them; where they leave hardly more than
        one, so that no swarm can be drawn, the member that sets the cap is freed as well.
        """
        try:
            plan = plan_reuse(continuation)
        except Infeasible:
            state.seen["ratios infeasible, members freed"] += 1
            freed = _freed(continuation, state.start)
            plan = plan_reuse(replace(continuation, kind="partial", free=freed, most_coupled=None))
        kept = kept_domains(continuation.space, state.start.revision)
        while True:
            try:
                return plan, *self._mixture(state, strategy, plan, continuation.space)
            except Infeasible:
                if not plan.groups:
                    raise
                state.seen["no room for a swarm, a member freed"] += 1
                frozen = {name for ratios in plan.groups.values() for name in ratios}
                free = tuple(set(kept) - frozen | set(plan.binding_members.values()))
                plan = plan_reuse(replace(continuation, kind="partial", free=free, most_coupled=None))

    def _mixture(
        self, state: State, strategy: Strategy, plan: ReusePlan, space: EvidenceSpace
    ) -> tuple[StartMixture, tuple[Trained, ...]]:
        if plan.is_renormalised:
            state.seen["renormalised"] += 1
            ((_, ratios),) = plan.groups.items()
            total = sum(ratios.values())
            weights = {name: ratios[name] / total for name in space.newest.free}
            return StartMixture(f"of {space.revision}", space.revision, weights), ()
        older = tuple(
            older_run(one.run, one.revision, space, TRAINING_SEED)
            for one in state.trained
            if one.run.id in plan.reused
        )
        reuse = Reuse(plan.groups, space, older) if older else Reuse(plan.groups)
        step = _Step(self, strategy, space.revision, reuse)
        try:
            new = step.train(plan.new_runs)
        except TooFewRuns as error:
            if strategy.runs_of is not None:
                raise
            state.seen["more runs than the plan's"] += 1
            new = step.train(error.needed)
        return step.started(step.proposed(new)), new

    def _carried(self, state: State, revision: str) -> StartMixture:
        """The mixture in use over the newest domains, brought under the caps: all there is without a law."""
        node, domains = self.updates.nodes[revision], self.updates.domains(revision)
        assert node.parent is not None, "only an update is carried over"
        assert node.changes is not None
        way = carry(node.changes, self.updates.nodes[node.parent].leaves, node.leaves)
        weights = carried(way, state.start.weights)[0].align(domains.names)
        caps = Limits(domains, self.updates.target_tokens, self.updates.repetition_cap).caps
        inside = into_capped_simplex(weights, caps, domains.natural_weights)
        return StartMixture(f"of {revision}", revision, domains.mixture(inside))


def _freed(continuation: Continuation, start: StartMixture) -> tuple[str, ...]:
    """The members that `auto` frees at their caps where it knows no couplings, and the most coupled asked for."""
    blind = replace(
        continuation,
        kind="auto",
        start=replace(start, coupling=None),
        reuse_runs=False,
        most_coupled=None,
        runs=None,
    )
    frozen = {name for ratios in plan_reuse(blind).groups.values() for name in ratios}
    kept = kept_domains(continuation.space, start.revision)
    freed = {name for name in kept if name not in frozen}
    if continuation.most_coupled:
        costs = costs_of_keeping(continuation, start, kept) or {}
        freed |= set(sorted(costs, key=lambda name: (-costs[name], name))[: continuation.most_coupled])
    return tuple(sorted(freed))


@dataclass(frozen=True)
class _Step:
    """One update of one strategy: what is trained, and what is made of it."""

    bench: Bench
    strategy: Strategy
    revision: str
    reuse: Reuse

    def train(self, runs: int) -> tuple[Trained, ...]:
        """The swarm, measured in the truth."""
        bench, question = self.bench, self.question
        recipe, domains = question.parts, question.domains
        least = least_new_runs(recipe, self.reuse, domains)
        rounds = method_named(question.method).split(recipe, runs, len(domains), least)
        if not rounds:
            return ()
        generator = np.random.default_rng([bench.seed, int(self.revision), self.strategy.stream])
        way = bench.updates.whole.maps[self.revision]
        found = []
        for number, sampled in enumerate(sample_round(replace(question, rounds=rounds))):
            metrics = bench.truth.measure(way.expand(sampled.mixture.align(way.free)), generator)
            run = RunEvidence(f"{self.revision}-{number}", sampled.mixture, metrics, seed=TRAINING_SEED)
            found.append(Trained(self.revision, run))
        return tuple(found)

    @cached_property
    def question(self) -> Question:
        """What the mixture is asked for."""
        updates, method = self.bench.updates, method_named(self.strategy.method)
        return Question(
            domains=updates.domains(self.revision),
            method=method.name,
            objective=dict.fromkeys(self.bench.truth.tasks, 1.0),
            target_tokens=updates.target_tokens,
            repetition_cap=updates.repetition_cap,
            kl_weight=method.kl_weight,
            seed=self._seed,
            reuse=self.reuse,
        )

    def proposed(self, trained: tuple[Trained, ...]) -> Proposal:
        """The mixture, cross-validated only where something hangs on it."""
        question, runs = self.question, tuple(one.run for one in trained)
        if self.strategy.reuse == "auto" and not self.strategy.keep_runs:
            return propose(question, runs)  # the next choice reads the standard error of the gain
        generator = np.random.default_rng(self._seed)
        learned = learn(question, runs, generator) if question.reuse.groups else _fitted(question, runs)
        problem = problem_of(question, learned.evidence, learned.law)
        found = solution_of(FittedQuestion(question, problem, learned.evidence, learned.held_out, generator))
        return Proposal(question, learned, problem, found, None)

    def started(self, proposal: Proposal) -> StartMixture:
        """The proposal as the mixture to go on from, read off its document as the service reads it."""
        document = proposal.to_dict()
        objective: dict[str, Any] = document["objective"]
        noise = None
        if (bounds := objective["gain_interval"]) is not None:
            normal = NormalDist().inv_cdf((1 + objective["confidence"]) / 2)
            noise = (bounds[1] - bounds[0]) / 2 / normal
        return StartMixture(
            f"of {self.revision}",
            self.revision,
            document["weights"],
            document["coupling"],
            objective["gain"],
            noise,
        )

    @property
    def _seed(self) -> int:
        return 1000 * self.bench.seed + self.strategy.stream


def _fitted(question: Question, runs: Sequence[RunEvidence]) -> Learned:
    """`learn` without its cross-validation, where no ratios are frozen."""
    space, part = question.reuse.evidence_space(question.domains), REGRESSIONS[question.parts.regression]
    evidence = gather_over(question, space, runs)
    law = through(fit(part, evidence.table), space.newest.matrix)
    shown, off = space.onto_newest(evidence.weights)
    evidence = replace(evidence, table=replace(evidence.table.over(space.newest.free, shown), off=off))
    return Learned(evidence, law, None, None, CONTENTS, (), None)
