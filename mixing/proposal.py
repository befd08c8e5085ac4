"""From a swarm's runs to a mixture that carries its evidence."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixing.errors import Infeasible
from mixing.evidence import Evidence, gather
from mixing.fitting import Columns, fit, refit
from mixing.optimization.problem import MixtureProblem
from mixing.parts import FitContext
from mixing.question import ProposalRequest, problem_of
from mixing.regression.catalogue import REGRESSIONS
from mixing.regression.diagnostics import HeldOutError, held_out_error
from mixing.regression.protocol import Fitted
from mixing.report import document_of
from mixing.solving import Found, Question, find
from mixing.uncertainty import GainIntervals, gain_intervals

_FOLDS, _SEARCH = 2, 3
"""Keys that keep the streams of the cross-validation and of the search apart from the swarm's (1)."""


@dataclass(frozen=True)
class Proposal:
    """The mixture and everything known about it; `to_dict` is its document.

    Attributes:
        request: what was asked for.
        evidence: the runs, joined.
        columns: what the regression was fitted to.
        law: the regression fitted to all runs.
        problem: what was solved.
        found: the mixture.
        held_out: errors on runs not seen; None where there are too few runs to leave any out.
        intervals: of the gain; None where there is no held-out error.
    """

    request: ProposalRequest
    evidence: Evidence
    columns: Columns
    law: Fitted
    problem: MixtureProblem
    found: Found
    held_out: HeldOutError | None
    intervals: GainIntervals | None

    def to_dict(self) -> dict[str, Any]:
        """JSON: weights by name, the objective and every task, domains, constraints, effects, warnings."""
        return document_of(self)


def propose(request: ProposalRequest) -> Proposal:
    """Fit, cross-validate, solve and say how sure the answer is.

    Raises:
        UnknownMethod, InvalidSetting: the method, a part or a setting.
        TooFewRuns, InvalidMetrics, InvalidWeights, UnknownDomain, MissingDomain, DuplicateRun: the runs
            (`mixing.evidence.gather`).
        Infeasible: no mixture satisfies the constraints.
    """
    recipe, domains = request.parts, request.domains
    part = REGRESSIONS[recipe.regression]
    others = {name: other.minimum_runs(len(domains)) for name, other in REGRESSIONS.items() if other.offered}
    evidence = gather(
        domains,
        request.runs,
        request.specification,
        part.minimum_runs(len(domains)),
        alternatives=others,
        positive=part.positive,
    )
    columns = Columns.of(evidence)
    context = FitContext(evidence.tokens, evidence.rounds, domains.names, columns.names)
    law = fit(part, context, evidence.weights, columns)
    refits = refit(part, context, evidence.weights, columns, _stream(request, _FOLDS))
    held_out = None
    if refits is not None:
        held_out = held_out_error(refits.predicted, refits.measured, columns.objective)
    problem = problem_of(request, columns, law)
    question = Question(request, problem, evidence, held_out, _stream(request, _SEARCH))
    found = find(question)
    intervals = None
    if refits is not None:
        optima = np.stack([_optimum(question, columns, other, found) for other in refits.laws])
        intervals = gain_intervals(law, refits, columns, optima, domains.natural_weights, found.weights)
    return Proposal(request, evidence, columns, law, problem, found, held_out, intervals)


_AGAIN = 0.1
"""Share of a search's evaluations that each refit's optimum gets: it is one of many, and only their spread counts."""


def _optimum(question: Question, columns: Columns, law: Fitted, found: Found) -> np.ndarray:
    """(m,) what a refit would have proposed; the answer itself where by its law no mixture keeps the guard rails."""
    problem = problem_of(question.request, columns, law)
    try:
        return find(replace(question, problem=problem, effort=_AGAIN)).weights
    except Infeasible:
        return found.weights


def _stream(request: ProposalRequest, key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([request.seed, key])))
