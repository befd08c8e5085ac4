"""The chains of mixtures that the benchmark on real text compares, along the same five updates.

- ``reuse``: the default, `auto`, going on from the chain's last mixture with the chain's older runs.
- ``ratios alone``: every unchanged domain keeps its ratio, and no older run counts (Olmix, arXiv 2602.12237).
- ``recompute``: nothing is kept. It is trained at the last revision only; what it would have trained before is read
  off the plans.

All begin with the mixture of one first swarm, which each of them needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.reuse_text_domains import Update
from benchmarks.reuse_text_service import Asker
from service.client import ApiError

Document = dict[str, Any]
Ask = Callable[[Asker, int, str], Document]
"""(asker, revision, last mixture) -> the question to ask."""

NOTHING: Document = {"kind": "none", "runs": False}


@dataclass(frozen=True, slots=True)
class Step:
    """A mixture of a chain, and what it took.

    Attributes:
        update: what the pool went through before.
        revision, changes: the number of the revision it is of, and what the service says has changed.
        question: as asked.
        plan: the dry run's answer, from before anything was trained.
        optimization, evidence: as the service tells them afterwards.
    """

    update: str
    revision: int
    changes: Document
    question: Document
    plan: Document
    optimization: Document
    evidence: Document

    @property
    def runs(self) -> int:
        """Proxy runs that were trained for it."""
        return self.optimization["progress"]["runs"]["succeeded"]

    @property
    def tokens(self) -> int:
        """That these runs read."""
        return self.optimization["progress"]["tokens_trained"]

    @property
    def worker_seconds(self) -> float:
        """How long workers were busy sampling, training and solving."""
        return self.optimization["progress"]["cpu_seconds"]

    @property
    def mixture(self) -> str:
        """Its id."""
        return self.optimization["mixture_id"]


@dataclass(frozen=True, slots=True)
class Chains:
    """The first swarm's step, the two chains' steps of every update, and recomputing at the last revision."""

    first: Step
    reuse: Sequence[Step]
    ratios: Sequence[Step]
    recomputed: Step


def follow_chains(asker: Asker, domains: Sequence[Document], updates: Sequence[Update]) -> Chains:
    """Make every revision and mixture. Raises ApiError, Unreachable and BenchmarkFailed."""
    first = _recomputed(asker, "first swarm", asker.first_revision(domains))
    reuse = _follow(asker, "reuse", first, updates, by_default)
    ratios = _follow(asker, "ratios alone", first, updates, ratios_kept)
    last = asker.client.revision(ratios[-1].optimization["domain_set"], ratios[-1].revision)
    return Chains(first, reuse, ratios, _recomputed(asker, "recompute", last))


def by_default(asker: Asker, revision: int, mixture: str) -> Document:
    """Without a word about reuse: `auto`, from the mixture before, which the service finds by itself."""
    return asker.question(revision, None)


def ratios_kept(asker: Asker, revision: int, mixture: str) -> Document:
    """Every unchanged domain keeps its ratio and no older run counts, as far as the service lets it.

    Where the caps leave no room for every ratio, `auto` frees the scarcest; where the plan's runs are fewer than the
    regression needs, as many as it says are asked for.
    """
    question = asker.question(revision, {"kind": "full", "runs": False, "mixture": mixture})
    remedies = {
        "infeasible": lambda _: {"reuse": {**question["reuse"], "kind": "auto"}},
        "too_few_runs": lambda problem: {"runs": problem["needed"]},
    }
    while True:
        try:
            asker.plan(question)
        except ApiError as error:
            if error.code not in remedies:
                raise
            print(f"  refused: {error.detail}")
            question |= remedies.pop(error.code)(error.problem)
        else:
            return question


def _recomputed(asker: Asker, title: str, revision: Document) -> Step:
    return _step(asker, title, revision, asker.question(revision["number"], NOTHING))


def _follow(asker: Asker, chain: str, first: Step, updates: Sequence[Update], ask: Ask) -> list[Step]:
    steps, last = [], first
    for update in updates:
        revision = asker.patched(chain, last.revision, update.patch)
        question = ask(asker, revision["number"], last.mixture)
        last = _step(asker, f"{chain}, {update.name}", revision, question)
        steps.append(last)
    return steps


def _step(asker: Asker, title: str, revision: Document, question: Document) -> Step:
    plan = asker.plan(question)
    for sentence in plan["sentences"]:
        print(f"  {title}: {sentence}")
    optimization = asker.optimized(title, question)
    evidence = asker.client.mixture(optimization["mixture_id"])["evidence"]
    return Step(title, revision["number"], revision["changes"], question, plan, optimization, evidence)
