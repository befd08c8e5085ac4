"""What a swarm's runs predict of mixtures that somebody has in mind.

As a proposal (`mixing.answer.proposal`), with the mixtures given instead of solved for: so nothing was chosen by the
runs, the interval of the gain has no optimism in it, and one more run of the mixture is expected where any other is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixing.answer.proposal import FOLDS, Proposal, stream
from mixing.answer.report import Report
from mixing.answer.uncertainty import CONFIDENCE, gain_intervals
from mixing.domains import Mixture
from mixing.laws.ensemble import MOST_WORK, work
from mixing.laws.learning import Learned, learn
from mixing.limits import BINDING
from mixing.methods import combine, method_named
from mixing.question import Question, problem_of
from mixing.runs.evidence import RunEvidence
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
    elif not _is_one_mean(question, runs) or products > QUICK_PRODUCTS:
        law, granularity = "linear", question.parts.granularity
        said = "a linear law alone"
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


def _is_one_mean(question: Question, runs: Sequence[RunEvidence]) -> bool:
    """Whether the objective is a mean that nearly all runs have measured, and no task is bounded on its own."""
    spec = question.specification
    counted = [task for task, weight in spec.tasks.items() if weight > 0]
    whole = sum(all(task in run.metrics for task in counted) for run in runs)
    one_mean = question.parts.granularity == "per task" and spec.aggregation == "weighted mean"
    return one_mean and not question.guard_rails and whole >= _WHOLE * len(runs)


_WHOLE = 0.9
"""Share of the runs that have to measure all of an objective which is fitted as one."""


def expected_seconds(question: Question, runs: int, tasks: int) -> float:
    """CPU seconds that a proposal takes, to a factor of two or three: for who waits to know how long."""
    domains, law = len(question.domains), question.parts.regression
    if law.endswith("-of-objective"):
        law, tasks = law.removesuffix("-of-objective"), 1
    if law == "ensemble":
        return 1.0 + 20 * work(runs, domains, tasks) / MOST_WORK
    return 1.0 + (runs * domains**2 * tasks / 1e6 if law == "effective-power" else 0.0)


@dataclass(frozen=True)
class _Judge:
    """What one fit says of any mixture."""

    question: Question
    learned: Learned
    problem: MixtureProblem

    def document(self, weights: np.ndarray) -> Document:
        """What is predicted of (m,) weights, and what they break."""
        question, learned = self.question, self.learned
        intervals = None
        if (refits := learned.refits) is not None:
            same = np.repeat(weights[None], len(refits.laws), axis=0)
            natural = question.domains.natural_weights
            intervals = gain_intervals(learned.law, refits, learned.evidence, same, natural, weights)
        given = Solution(weights, float("nan"))
        report = Report(Proposal(question, learned, self.problem, given, intervals))
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
        broken = self.problem.excesses(report.at_proposed[None])[:, 0]
        rails = zip(self.question.guard_rails, self.problem.guard_rails, broken.tolist(), strict=True)
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


def fitted(question: Question, runs: Sequence[RunEvidence]) -> Learned:
    """What `evaluate` judges by, which is the same for any mixtures; raises as `mixing.answer.proposal.propose`."""
    question, _ = quick(question, runs)
    return learn(question, runs, stream(question, FOLDS))


def evaluate(
    question: Question,
    runs: Sequence[RunEvidence],
    mixtures: Mapping[str, Mapping[str, float]],
    learned: Learned | None = None,
) -> Document:
    """What the runs predict of given mixtures, each over all domains, by one fit.

        evaluate(question, runs, {"mine": {"web": 0.6, "code": 0.4}})["mixtures"]["mine"]["objective"]["gain"]

    Of each mixture the document has the members of a proposal's (`objective`, `tasks`, `worse`, `domains`), with
    `proposed_interval`, where one more run of it is expected; what it breaks (`violated`); and its L1 distance to the
    runs.

    Args:
        question: what was asked of the runs.
        runs: the finished ones, in any order.
        mixtures: `{name: {domain: weight}}`.
        learned: what `fitted` gave for the question and the runs; None to fit now.

    Raises:
        UnknownDomain, MissingDomain, InvalidWeights: a mixture.
        TooFewRuns, InvalidMetrics, ...: as `mixing.answer.proposal.propose`.
    """
    question, note = quick(question, runs)
    names = question.domains.names
    rows = {called: Mixture.of(given, over=names).align(names) for called, given in mixtures.items()}
    learned = fitted(question, runs) if learned is None else learned
    judge = _Judge(question, learned, problem_of(question, learned.evidence, learned.law))
    return {
        "regression": question.parts.regression,
        "runs_used": len(learned.evidence.weights),
        "mixtures": {called: judge.document(weights) for called, weights in rows.items()},
        "notes": [*learned.evidence.notes, *learned.law.notes(), *([note] if note else [])],
    }
