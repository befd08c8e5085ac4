"""What a swarm's runs predict of mixtures that somebody has in mind.

As a proposal (`mixing.answer.proposal`), with the mixtures given instead of solved for: so nothing was chosen by the
runs, the interval of the gain has no optimism in it, and one more run of the mixture is expected where any other is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from mixing.answer.proposal import FOLDS, Proposal, stream
from mixing.answer.report import Report
from mixing.answer.standing import Standing
from mixing.answer.uncertainty import CONFIDENCE, gain_intervals
from mixing.domains import Mixture
from mixing.laws.ensemble import MOST_WORK, work
from mixing.laws.learning import Learned, learn
from mixing.limits import BINDING
from mixing.methods import combine, method_named
from mixing.question import Question, problem_of
from mixing.reuse.reuse import Reuse
from mixing.runs.evidence import RunEvidence
from mixing.runs.table import MOSTLY
from mixing.solve.problem import MixtureProblem
from mixing.solve.solution import Solution

Document = dict[str, Any]
QUICK = MOST_WORK / 5
"""Of an ensemble's work, some 4 seconds: what takes longer is not done where somebody waits for it."""

QUICK_PRODUCTS = 2e6
"""Of the effective power law's normal equations, K m^2 T, likewise: it descends through some hundreds of them."""


def quick(question: Question, runs: Sequence[RunEvidence]) -> tuple[Question, str | None]:
    """The question with a law that is fitted in seconds, and the note that says so; itself and None where its own is.

    Where a law for every task would take long the objective has one to itself, and the tasks a linear one each, which
    says what gets worse and has no part in what is best.
    """
    method = method_named(question.method)
    count, tasks = len(runs), len({task for run in runs for task in run.metrics})
    if not method.trains_runs or question.parts.regression != "ensemble":
        return question, None
    if work(count, len(question.domains), tasks) <= QUICK:
        return question, None
    products = count * len(question.domains) ** 2
    granularity = "aggregated"
    if products * tasks <= QUICK_PRODUCTS:
        law, granularity = "effective-power", question.parts.granularity
        said = "the effective power law alone"
    elif why := _not_one_mean(question, runs) or ("they are too many" if products > QUICK_PRODUCTS else None):
        law, granularity = "linear", question.parts.granularity
        said = f"a linear law alone (the objective has none to itself, for {why})"
    elif work(count, len(question.domains), 1) <= QUICK:
        law, said = (
            "ensemble-of-objective",
            "the ensemble for the objective, and a linear law for each metric alone",
        )
    else:
        law = "effective-power-of-objective"
        said = "the effective power law for the objective, and a linear law for each metric alone"
    note = (
        f"{count} runs of {tasks} metrics were fitted by {said}, which takes seconds; the regression 'ensemble' takes"
        " longer and mostly predicts each metric better."
    )
    return replace(question, recipe=combine(method, regression=law, granularity=granularity)), note


def _not_one_mean(question: Question, runs: Sequence[RunEvidence]) -> str | None:
    """Why the objective is no mean that nearly all runs measured most of, with no task bounded alone; or None."""
    spec = question.specification
    if question.guard_rails:
        return "a guard rail bounds a metric by a law of its own"
    if question.parts.granularity != "per task" or spec.aggregation != "weighted mean":
        return "it is the worst of several means"
    counted = {task: weight for task, weight in spec.tasks.items() if weight > 0}
    least = MOSTLY * sum(counted.values())
    whole = [sum(weight for task, weight in counted.items() if task in run.metrics) >= least for run in runs]
    if sum(whole) < _WHOLE * len(runs):
        return f"{len(runs) - sum(whole)} runs lack more than {1 - MOSTLY:.0%} of it"
    return None


_WHOLE = 0.9
"""Share of the runs that have to measure most of an objective which is fitted as one."""


def expected_seconds(question: Question, runs: int, tasks: int) -> float:
    """CPU seconds that a proposal takes, to a factor of two or three: for who waits to know how long."""
    domains, law = len(question.domains), question.parts.regression
    if law.endswith("-of-objective"):
        law, tasks = law.removesuffix("-of-objective"), 1
    if law == "ensemble":
        return 1.0 + 20 * work(runs, domains, tasks) / MOST_WORK
    return 1.0 + (runs * domains**2 * tasks / 1e6 if law == "effective-power" else 0.0)


@dataclass(frozen=True)
class Judge:
    """What one fit says of any mixture: all that an answer needs, so it can be kept (`mixing.kept`) without the runs.

        said = Judge.of(question, runs).evaluate({"mine": {"web": 0.6, "code": 0.4}})
        said["mixtures"]["mine"]["objective"]["gain"]

    Attributes:
        question: by the law that was fitted, without the older runs that it was fitted to.
        learned: the law, its refits, and the runs as a table.
        standing: what is said of every mixture alike.
        note: which lighter law stands in for the question's own; None where that was fitted.
    """

    question: Question
    learned: Learned
    standing: Standing
    note: str | None

    @classmethod
    def of(cls, question: Question, runs: Sequence[RunEvidence]) -> Self:
        """Fitted to the finished runs, in any order.

        Raises:
            TooFewRuns, InvalidMetrics, ...: as `mixing.answer.proposal.propose`.
        """
        question, note = quick(question, runs)
        learned = learn(question, runs, stream(question, FOLDS))
        return cls(replace(question, reuse=Reuse(question.reuse.groups)), learned, Standing.of(learned), note)

    def evaluate(
        self, mixtures: Mapping[str, Mapping[str, float]], against: Mapping[str, float] | None = None
    ) -> Document:
        """What is predicted of `{name: {domain: weight}}`, each over all domains.

        Of each mixture the document has the members of a proposal's (`objective`, `tasks`, `worse`, `domains`), with
        `proposed_interval`, where one more run of it is expected; what it breaks (`violated`); and its L1 distance to
        the runs. With another mixture to hold it `against`, such as the one in use, `over` has its gain over that.

        Raises:
            UnknownDomain, MissingDomain, InvalidWeights: a mixture.
        """
        names, evidence = self.question.domains.names, self.learned.evidence
        rows = {called: Mixture.of(given, over=names).align(names) for called, given in mixtures.items()}
        other = None if against is None else Mixture.of(against, over=names).align(names)
        return {
            "regression": self.question.parts.regression,
            "runs_used": len(evidence.weights),
            "mixtures": {
                called: {
                    **self._document(weights),
                    "over": None if other is None else self._over(other, weights),
                }
                for called, weights in rows.items()
            },
            "notes": [*evidence.notes, *self.learned.law.notes(), *([self.note] if self.note else [])],
        }

    @cached_property
    def _problem(self) -> MixtureProblem:
        return problem_of(self.question, self.learned.evidence, self.learned.law)

    def _document(self, weights: np.ndarray) -> Document:
        """What is predicted of (m,) weights, and what they break."""
        question, learned = self.question, self.learned
        intervals = None
        if (refits := learned.refits) is not None:
            natural = question.domains.natural_weights
            intervals = gain_intervals(learned.law, refits, learned.evidence, weights[None], natural, weights)
        given = Solution(weights, float("nan"))
        report = Report(Proposal(question, learned, self._problem, given, intervals), self.standing)
        away = np.abs(learned.evidence.weights - weights).sum(axis=1) + learned.evidence.table.off
        expected = report.expected(report.at_proposed)
        tasks = [
            {**row, "proposed_interval": _interval(report, row["name"], expected[:, t])}
            for t, row in enumerate(report.tasks)
        ]
        ends = expected[:, -1]
        return {
            "weights": report.by_domain(weights),
            "objective": {
                **report.objective,
                "proposed_interval": None if np.isnan(ends[0]) else report.sense.interval(*ends),
            },
            "tasks": tasks,
            "worse": report.worse(),
            "domains": report.domains,
            "violated": list(self._violated(report)),
            "nearest_run_distance": float(away.min()),
            "run_distances": {
                "nearest": float(away.min()),
                "median": float(np.median(away)),
                "farthest": float(away.max()),
            },
            "confidence": CONFIDENCE,
        }

    def _over(self, other: np.ndarray, weights: np.ndarray) -> Document:
        """What (m,) weights gain over other ones: of the objective and of each task, as over the natural ones."""
        learned, evidence = self.learned, self.learned.evidence
        before, after = evidence.groups.with_value(learned.law.mean(np.stack([other, weights])))
        bounds = None
        if (refits := learned.refits) is not None:
            bounds = gain_intervals(learned.law, refits, evidence, weights[None], other, weights).bounds

        def gain(column: int) -> Document:
            interval = None if bounds is None else bounds[column].tolist()
            return {"gain": float(before[column] - after[column]), "gain_interval": interval}

        return {
            "objective": gain(-1),
            "tasks": [{"name": name, **gain(column)} for column, name in enumerate(evidence.tasks)],
        }

    def _violated(self, report: Report) -> Iterator[Document]:
        """The caps, shares and guard rails the weights break."""
        limits, weights = self.question.limits, report.weights
        exceeded = limits.exceeded(weights)
        for row, above in zip(report.domains, exceeded.tolist(), strict=True):
            if above:
                yield {
                    "kind": "repetition_cap",
                    "name": row["name"],
                    "bound": row["cap"],
                    "value": row["weight"],
                    "statement": f"{row['name']} would be read {row['epochs']:.2f} times, over its cap of"
                    f" {self.question.repetition_cap:g}.",
                }
        for constraint in self.question.constraints:
            weight = float(constraint.row(self.question.domains.names) @ weights)
            for bound, broken, how in (
                (constraint.lower, weight < constraint.lower - BINDING, "at least"),
                (constraint.upper, weight > constraint.upper + BINDING, "at most"),
            ):
                if broken:
                    yield {
                        "kind": "share",
                        "name": constraint.name,
                        "bound": float(bound),
                        "value": weight,
                        "statement": f"{constraint.name} weighs {weight:.4f}, and is to weigh {how} {bound:.4f}.",
                    }
        broken = self._problem.excesses(report.at_proposed[None])[:, 0]
        rails = zip(self.question.guard_rails, self._problem.guard_rails, broken.tolist(), strict=True)
        for guard, rail, excess in rails:
            if excess > BINDING:
                sense = report.senses[guard.task]
                value = float(rail.mean.weights @ report.at_proposed) * rail.unit
                yield {
                    "kind": "guard_rail",
                    "name": guard.task,
                    "bound": sense.measured(rail.bound * rail.unit),
                    "value": sense.measured(value),
                    "statement": f"{guard.task} is predicted at {sense.in_words(value)}, beyond its guard rail of"
                    f" {sense.in_words(rail.bound * rail.unit)}.",
                }


def _interval(report: Report, task: str, ends: np.ndarray) -> list[float] | None:
    return None if np.isnan(ends[0]) else report.senses[task].interval(*ends)
