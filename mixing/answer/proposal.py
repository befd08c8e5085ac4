"""From a swarm's runs to a mixture that carries its evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixing.answer.decision import Decision, decide
from mixing.answer.regret import OpenLaw, Regret, regret_of
from mixing.answer.report import Document, Report
from mixing.answer.target import AtTarget, target_document, transfer_of
from mixing.answer.uncertainty import GainIntervals, gain_intervals
from mixing.errors import Infeasible, InvalidSetting
from mixing.laws.learning import Learned, learn
from mixing.laws.regression import Fitted
from mixing.laws.transfer import Transfer
from mixing.parts import REGRESSIONS, SOLVERS
from mixing.question import Question, problem_of
from mixing.runs.evidence import RunEvidence
from mixing.runs.sound import alike
from mixing.solve.problem import MixtureProblem
from mixing.solve.solution import Solution
from mixing.solve.solvers import FittedQuestion, solution_of

FOLDS, _SEARCH, _TARGET, _REGRET = 2, 3, 4, 5
"""Keys that keep the streams of cross-validation, search, target and regret apart from the swarm's (1)."""


@dataclass(frozen=True)
class Proposal:
    """The mixture and everything known about it; `to_dict` is its document.

    Attributes:
        question: what was asked for.
        learned: the regression fitted to all runs, and how it did on those it had not seen.
        problem: what was solved.
        solution: the mixture.
        intervals: of the gain; None where there is no held-out error.
        transfer: what the proxies' gains are worth at the target; None without one.
        decision: what was taken in the place of the best; None where nothing is preferred, or nothing held out.
        regret: what the best as predicted is expected to give away; None where nothing is held out.
        optima: (B, m) what the refits would have proposed; None likewise.
    """

    question: Question
    learned: Learned
    problem: MixtureProblem
    solution: Solution
    intervals: GainIntervals | None
    transfer: Transfer | None = None
    decision: Decision | None = None
    regret: Regret | None = None
    optima: np.ndarray | None = None

    @property
    def at_target(self) -> Document | None:
        """What is predicted of the training run the mixture is for; None without a target, and without intervals."""
        if self.transfer is None or self.intervals is None:
            return None
        evidence = self.learned.evidence
        drawn = AtTarget.of(self.transfer, evidence, self.intervals, stream(self.question, _TARGET))
        return target_document(self.question, evidence, self.transfer, drawn)

    def to_dict(self) -> dict[str, Any]:
        """JSON: weights by name, the objective and every task, domains, constraints, effects, warnings."""
        return Report(self).document()


def propose(question: Question, runs: Sequence[RunEvidence]) -> Proposal:
    """Fit, cross-validate, solve and say how sure the answer is.

        document = propose(question, runs).to_dict()
        document["weights"], document["objective"]["gain_interval"], document["warnings"]

    Args:
        question: what a mixture is asked for.
        runs: the finished runs, in any order. With a target those of another size than the proxies, or longer, are
            anchors: no law is fitted to them, they tell what the law's gains are worth there.

    Raises:
        UnknownMethod, InvalidSetting: the method, a part or a setting.
        TooFewRuns, InvalidMetrics, InvalidWeights, UnknownDomain, MissingDomain, DuplicateRun: the runs
            (`mixing.runs.evidence.gather`).
        Infeasible: no mixture satisfies the constraints.

    >>> from mixing.domains import Domains
    >>> domains = Domains.of({"web": 6e9, "code": 3e9, "books": 1e9})
    >>> weights = np.random.default_rng(0).dirichlet([1, 3, 6], size=16)  # books, code, web
    >>> runs = tuple(
    ...     RunEvidence(f"run-{k}", dict(zip(domains.names, row)), {"humaneval": 2 - row[1] ** 0.4})
    ...     for k, row in enumerate(weights)
    ... )
    >>> question = Question(domains=domains, objective={"humaneval": 1.0}, target_tokens=4e9)
    >>> propose(question, runs).to_dict()["weights"]["code"] > 0.5
    True
    """
    solver = SOLVERS[question.parts.solver]
    if not solver.respects_constraints and question.proxy_tokens is None:
        raise InvalidSetting(
            f"the solver {solver.name!r} extrapolates from the proxy's tokens to the target's; say how many they are",
            field="proxy_tokens",
        )
    proxies, anchors = split(question, runs)
    learned = learn(question, proxies, stream(question, FOLDS))
    transfer = transfer_of(question, learned.evidence, learned.law, anchors)
    factors = 1.0 if transfer is None else transfer.factors
    problem = problem_of(question, learned.evidence, learned.law, factors)
    fitted = FittedQuestion(question, problem, learned.evidence, learned.held_out, stream(question, _SEARCH))
    solution = solution_of(fitted)
    intervals, decision, regret, optima = None, None, None, None
    if (refits := learned.refits) is not None:
        optima = np.stack([_optimum(fitted, other, solution, factors) for other in refits.laws])
        regret = regret_of(OpenLaw.of(problem, learned, solution.weights, optima, stream(question, _REGRET)))
        if (decided := decide(fitted, learned, solution, optima)) is not None:
            solution, decision = decided
        natural = question.domains.natural_weights
        intervals = gain_intervals(learned.law, refits, learned.evidence, optima, natural, solution.weights)
    return Proposal(question, learned, problem, solution, intervals, transfer, decision, regret, optima)


def anchor_mixtures(question: Question, runs: Sequence[RunEvidence], count: int) -> list[dict[str, float]]:
    """The mixtures worth training at another size: the natural one, the proxies' best, and runs from good to bad.

    A slope is known by how far apart its points are, and a decision by its two: the runs are those whose predicted
    objective is nearest to `count` - 2 quantiles from the ninth tenth to the first, each taken once, and none that is
    nearly one of the two.

    Args:
        question: its target is of no account.
        runs: the finished ones.
        count: at least 3.

    Raises:
        TooFewRuns, InvalidMetrics, ...: as `propose`.
    """
    proxies, _ = split(question, runs)
    proposal = propose(replace(question, target=None, prefer=None), proxies)
    evidence, law = proposal.learned.evidence, proposal.learned.law
    values = evidence.groups.value(law.mean(evidence.weights))
    chosen = [question.domains.natural_weights, proposal.solution.weights]
    for step in np.quantile(values, np.linspace(0.9, 0.1, count - 2)):
        apart = np.abs(evidence.weights[:, None] - np.array(chosen)).sum(axis=2).min(axis=1)
        away = np.where(apart > min(_APART, float(apart.max()) / 2), np.abs(values - step), np.inf)
        chosen.append(evidence.weights[int(np.argmin(away))])
    names = question.domains.names
    return [dict(zip(names, map(float, weights), strict=True)) for weights in chosen]


def split(question: Question, runs: Sequence[RunEvidence]) -> tuple[list[RunEvidence], list[RunEvidence]]:
    """The proxies and, where the question has a target, its anchors."""
    if question.target is None:
        return list(runs), []
    reads_tokens = REGRESSIONS[question.parts.regression].reads_tokens
    anchors = [not alike(run.size) or not (reads_tokens or alike(run.tokens)) for run in runs]
    proxies = [run for run, other in zip(runs, anchors, strict=True) if not other]
    return proxies, [run for run, other in zip(runs, anchors, strict=True) if other]


_APART = 0.05
"""L1 distance at which two mixtures stay two when whole rows are trained of them."""
_AGAIN = 0.025
"""Share of a search's evaluations that each refit's optimum gets: it begins at the answer, and is found sooner."""


def _optimum(
    fitted: FittedQuestion, law: Fitted, solution: Solution, factors: np.ndarray | float
) -> np.ndarray:
    """(m,) what a refit would have proposed; the answer itself where by its law no mixture keeps the guard rails."""
    problem = problem_of(fitted.question, fitted.evidence, law, factors)
    try:
        return solution_of(replace(fitted, problem=problem, effort=_AGAIN, near=solution.weights)).weights
    except Infeasible:
        return solution.weights


def stream(question: Question, key: int) -> np.random.Generator:
    """The question's own randomness for one use, by its key."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([question.seed, key])))
