"""From a swarm's runs to a mixture that carries its evidence."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixing.answer.report import document_of
from mixing.answer.uncertainty import GainIntervals, gain_intervals
from mixing.errors import Infeasible
from mixing.laws.diagnostics import HeldOutError
from mixing.laws.fitting import Columns
from mixing.laws.learning import Learned, learn
from mixing.laws.protocol import Fitted
from mixing.question import ProposalRequest, problem_of
from mixing.runs.evidence import Evidence
from mixing.solve.problem import MixtureProblem
from mixing.solve.solvers import Found, Question, find

_FOLDS, _SEARCH = 2, 3
"""Keys that keep the streams of the cross-validation and of the search apart from the swarm's (1)."""


@dataclass(frozen=True)
class Proposal:
    """The mixture and everything known about it; `to_dict` is its document.

    Attributes:
        request: what was asked for.
        learned: the regression fitted to all runs, and how it did on those it had not seen.
        problem: what was solved.
        found: the mixture.
        intervals: of the gain; None where there is no held-out error.
    """

    request: ProposalRequest
    learned: Learned
    problem: MixtureProblem
    found: Found
    intervals: GainIntervals | None

    @property
    def evidence(self) -> Evidence:
        """The runs, joined."""
        return self.learned.evidence

    @property
    def columns(self) -> Columns:
        """What the regression was fitted to."""
        return self.learned.columns

    @property
    def law(self) -> Fitted:
        """The regression fitted to all runs."""
        return self.learned.law

    @property
    def held_out(self) -> HeldOutError | None:
        """Errors on runs not seen; None where there are too few runs to leave any out."""
        return self.learned.held_out

    def to_dict(self) -> dict[str, Any]:
        """JSON: weights by name, the objective and every task, domains, constraints, effects, warnings."""
        return document_of(self)


def propose(request: ProposalRequest) -> Proposal:
    """Fit, cross-validate, solve and say how sure the answer is.

    Raises:
        UnknownMethod, InvalidSetting: the method, a part or a setting.
        TooFewRuns, InvalidMetrics, InvalidWeights, UnknownDomain, MissingDomain, DuplicateRun: the runs
            (`mixing.runs.evidence.gather`).
        Infeasible: no mixture satisfies the constraints.
    """
    learned = learn(request, _stream(request, _FOLDS))
    columns = learned.columns
    problem = problem_of(request, columns, learned.law)
    question = Question(request, problem, learned.evidence, learned.held_out, _stream(request, _SEARCH))
    found = find(question)
    intervals = None
    if (refits := learned.refits) is not None:
        optima = np.stack([_optimum(question, columns, other, found) for other in refits.laws])
        natural = request.domains.natural_weights
        intervals = gain_intervals(learned.law, refits, columns, optima, natural, found.weights)
    return Proposal(request, learned, problem, found, intervals)


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
