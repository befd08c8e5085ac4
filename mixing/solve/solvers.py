"""From a fitted regression to a mixture, by the solver a recipe names."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from mixing.capped_simplex import into_capped_simplex
from mixing.errors import Infeasible, InvalidSetting
from mixing.laws.diagnostics import HeldOutError
from mixing.laws.powers.budgets import FittedBudgets
from mixing.laws.regression import Fitted
from mixing.parts import SOLVERS
from mixing.question import Question
from mixing.runs.evidence import Evidence
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem
from mixing.solve.search import Region, priced, search
from mixing.solve.solution import Solution

# How published methods choose a mixture from a fitted regression: among candidates, no constraints of their own.
#
# `predict` gives the value to be minimised, (n,) for (n, m) mixtures; candidates come from `mixing.swarm`.

Predict = Callable[[np.ndarray], np.ndarray]

REGMIX_DRAWS = 100_000
REGMIX_BEST = 128


def regmix_candidates(
    prior: np.ndarray, generator: np.random.Generator, draws: int = REGMIX_DRAWS
) -> np.ndarray:
    """(draws, m) of Dirichlet(prior), the prior being the weights themselves, which sum to 1 (arXiv 2407.01492)."""
    drawn = np.maximum(generator.dirichlet(prior, size=draws), 0.0)
    return drawn / drawn.sum(axis=1, keepdims=True)


def mean_of_best(predict: Predict, candidates: np.ndarray, best: int = REGMIX_BEST) -> np.ndarray:
    """RegMix's choice: the mean of the `best` candidates with the lowest predictions.

    Raises:
        InvalidSetting: fewer candidates than are to be averaged.
    """
    if not 1 <= best <= len(candidates):
        raise InvalidSetting(
            f"the mean of the {best} best needs that many candidates, not {len(candidates)}", field="best"
        )
    chosen = np.argsort(predict(candidates), kind="stable")[:best]
    return candidates[chosen].mean(axis=0)


def predicted_best(
    predict: Predict, candidates: np.ndarray, trained: np.ndarray | None = None, apart: float = 1e-5
) -> np.ndarray:
    """The candidate with the lowest prediction.

    CLIMB (arXiv 2504.13161) chooses among fresh candidates: those within L1 distance `apart` of a (K, m) `trained`
    mixture are left out. ADMIRE-BayesOpt chooses the best posterior mean at full fidelity among all of its
    candidates, trained ones included: leave `trained` out and let `predict` be that mean.

    Raises:
        InvalidSetting: every candidate was trained already.
    """
    fresh = candidates
    if trained is not None:
        fresh = candidates[cdist(candidates, trained, "cityblock").min(axis=1) > apart]
    if not len(fresh):
        raise InvalidSetting("every candidate has been trained already", field="candidates")
    return fresh[int(np.argmin(predict(fresh)))]


@dataclass(frozen=True)
class FittedQuestion:
    """What a solver is given: a question, and what its runs came to.

    Attributes:
        question: what was asked for.
        problem: with the fitted law in its objective.
        evidence: the runs the law was fitted to.
        held_out: how far off it was on runs it had not seen, where that is known.
        generator: for solvers that draw.
        effort: share of a solver's usual evaluations to spend.
        near: (m,) a mixture to begin a search from, if any.
    """

    question: Question
    problem: MixtureProblem
    evidence: Evidence
    held_out: HeldOutError | None
    generator: np.random.Generator
    effort: float = 1.0
    near: np.ndarray | None = None

    @property
    def law(self) -> Fitted:
        """The fitted law."""
        return self.problem.objective.law

    def predicted(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the objective as predicted, the KL term included."""
        return self.problem.objective.predicted(weights)

    def solution(self, weights: np.ndarray, evaluations: int | None = None) -> Solution:
        """The mixture of (m,) weights as an answer, of which nothing is certified."""
        return Solution(weights, float(self.predicted(weights[None])[0]), evaluations=evaluations)


def solution_of(fitted: FittedQuestion) -> Solution:
    """The mixture, by the solver of the recipe, in the metrics' units.

    Raises:
        Infeasible: no mixture satisfies the constraints; those in conflict are named.
    """
    return SOLVERS[fitted.question.parts.solver].solve(fitted).in_metric(fitted.problem)


def exact(fitted: FittedQuestion) -> Solution:
    """The certified minimum of a convex law."""
    return solve(fitted.problem)


def exact_or_searched(fitted: FittedQuestion) -> Solution:
    """The certified minimum of a law that turned out convex for its runs, and the best found of any other."""
    return exact(fitted) if fitted.law.is_convex else refined_search(fitted)


SEARCH_EVALUATIONS = 40_000
_SAME = 1e-9
"""L1 distance below which two runs are of one mixture: replicates, or one mixture trained for longer."""


def refined_search(fitted: FittedQuestion) -> Solution:
    """A search with a price on the distance from the runs: what a law not seen there may be off by.

    One typical distance between neighbouring runs away, the objective counts worse by its held-out error.
    """
    weights = fitted.evidence.weights
    penalty = 0.0
    if fitted.held_out is not None:
        *each, whole = fitted.held_out.mae
        # Where hardly a run measured all of the objective its error is at most the tasks' together.
        missed = whole if np.isfinite(whole) else float(fitted.evidence.groups.value(np.array(each)))
        missed /= fitted.problem.objective.unit
        penalty = missed / max(_typical_distance(weights), 1e-3)
    solution = search(
        fitted.problem,
        fitted.generator,
        evaluations=max(1000, round(fitted.effort * SEARCH_EVALUATIONS)),
        evidence_weights=weights,
        distance_penalty=penalty,
        starts=None if fitted.near is None else fitted.near[None],
    )
    return priced(fitted.problem, solution) if fitted.effort == 1 else solution


def _typical_distance(weights: np.ndarray) -> float:
    """L1 distance of a run to the nearest of another mixture, the median over (K, m) runs."""
    apart = cdist(weights, weights, "cityblock")
    apart[apart < _SAME] = np.inf
    return float(np.median(apart.min(axis=1)))


def best_draws(fitted: FittedQuestion) -> Solution:
    """RegMix's choice; where caps or shares bind, its draws are brought inside them, and so is their mean."""
    region, space = Region.of(fitted.problem), fitted.problem.space
    draws = max(1000, round(fitted.effort * REGMIX_DRAWS))
    candidates = regmix_candidates(fitted.problem.centre, fitted.generator, draws)
    if fitted.question.constraints or (fitted.problem.caps < 1).any():
        candidates = region.towards(np.tile(region.inside, (draws, 1)), candidates)
    kept = _within_guard_rails(fitted, space.expand(candidates))
    count = min(REGMIX_BEST, len(kept))
    weights = mean_of_best(fitted.predicted, kept, count)
    # A law that is not convex may break a guard rail at a mean that all it is taken of keep; a single one keeps it.
    while count > 1 and _excess(fitted, weights[None])[0] > 0:
        count //= 2
        weights = mean_of_best(fitted.predicted, kept, count)
    return fitted.solution(weights, draws)


CANDIDATES = 20_000


def best_candidate(fitted: FittedQuestion) -> Solution:
    """CLIMB's choice among fresh candidates: wide draws, then draws around the best of these."""
    candidates = _within_guard_rails(fitted, _candidates(fitted))
    weights = predicted_best(fitted.predicted, candidates, fitted.evidence.weights)
    return fitted.solution(weights, len(candidates))


def best_posterior_mean(fitted: FittedQuestion) -> Solution:
    """ADMIRE-BayesOpt's choice: the best posterior mean at full fidelity, also among the runs' own mixtures."""
    candidates = _candidates(fitted)
    inside = [row for row in fitted.evidence.weights if _is_inside(fitted.problem, row)]
    candidates = np.concatenate([candidates, np.array(inside).reshape(-1, candidates.shape[1])])
    kept = _within_guard_rails(fitted, candidates)
    return fitted.solution(predicted_best(fitted.predicted, kept), len(candidates))


def _excess(fitted: FittedQuestion, candidates: np.ndarray) -> np.ndarray:
    """(n,) by how much (n, m) candidates are predicted to break the worst guard rail."""
    return fitted.problem.excess(fitted.law.mean(candidates))


def _within_guard_rails(fitted: FittedQuestion, candidates: np.ndarray) -> np.ndarray:
    """The (n, m) candidates that keep to the guard rails.

    Raises:
        Infeasible: none does.
    """
    if not fitted.problem.guard_rails:
        return candidates
    kept = candidates[_excess(fitted, candidates) <= 0]
    if not len(kept):
        names = [rail.mean.name for rail in fitted.problem.guard_rails]
        raise Infeasible(
            f"none of {len(candidates):,} mixtures drawn keeps to the guard rails {', '.join(names)}; loosen them, or"
            " ask for the solver 'search', which looks for one",
            field="guard_rails",
            names=names,
        )
    return kept


def _candidates(fitted: FittedQuestion) -> np.ndarray:
    """(n, m) feasible mixtures: half drawn wide around the natural distribution, half around the best of those."""
    region, generator, space = Region.of(fitted.problem), fitted.generator, fitted.problem.space
    half = max(500, round(fitted.effort * CANDIDATES / 2))
    wide = region.draw(fitted.problem.centre, half, generator)
    best = wide[np.argsort(fitted.predicted(space.expand(wide)), kind="stable")[:8]]
    centres = best[generator.integers(0, len(best), half)]
    drawn = generator.gamma(np.maximum(300 * centres, 1e-3)) + 1e-300
    near = region.towards(centres, drawn / drawn.sum(axis=1, keepdims=True))
    return space.expand(np.concatenate([wide, near]))


def _is_inside(problem: MixtureProblem, weights: np.ndarray) -> bool:
    kept = problem.space.expand(problem.space.collapse(weights))
    if np.abs(kept - weights).sum() > _SAME:
        return False  # a run of other ratios than those that are frozen
    within = all(
        share.lower - 1e-9 <= share.row(problem.space.leaves) @ weights <= share.upper + 1e-9
        for share in problem.constraints
    )
    return within and bool((weights <= problem.caps + 1e-9).all())


def extrapolated(fitted: FittedQuestion) -> Solution:
    """AutoScale's closed form at its two budgets, extrapolated to the target, brought under the caps at the end."""
    question, law = fitted.question, fitted.law
    assert question.proxy_tokens is not None, "the proposal is refused without them"
    question.limits.check()
    assert isinstance(law, FittedBudgets), "the recipe allows no other regression with this solver"
    weights = law.extrapolated(question.target_tokens / question.proxy_tokens)
    prior = fitted.problem.objective.prior
    return fitted.solution(into_capped_simplex(weights, fitted.problem.caps, prior))
