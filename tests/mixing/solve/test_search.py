from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lightgbm import LGBMRegressor

from benchmarks.laws import EffectivePowerLaw
from mixing.errors import Infeasible, InvalidSetting
from mixing.laws.processes.gaussian_process import GaussianProcess
from mixing.laws.regression import Fitted
from mixing.simplex_map import SimplexMap
from mixing.solve.constraints import LinearSystem
from mixing.solve.exact import solve
from mixing.solve.problem import GuardRail, MixtureProblem
from mixing.solve.search import Region, priced, search
from mixing.solve.solvers import mean_of_best, predicted_best, regmix_candidates
from tests.mixing.solve.problems import LAWS, names, pinned_at, problem_of, share_between, single_tasks


@dataclass(frozen=True)
class PredictOnly(Fitted):
    """A law of which nothing but predictions is known; it counts the mixtures it was asked about."""

    law: Fitted
    asked: list[int]

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(len(weights))
        return self.law.predict(weights)


@dataclass(frozen=True)
class Bent(Fitted):
    """A law that has slopes and says nothing of its curvature."""

    law: Fitted

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.law.predict(weights)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return self.law.gradient(weights)


@dataclass(frozen=True)
class Trees(Fitted):
    models: tuple[LGBMRegressor, ...]

    @classmethod
    def fit(cls, weights: np.ndarray, metrics: np.ndarray) -> "Trees":
        settings = {"n_estimators": 60, "num_leaves": 15, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}
        return cls(tuple(LGBMRegressor(**settings).fit(weights, column) for column in metrics.T))

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = np.stack([model.booster_.predict(weights, num_threads=1) for model in self.models], axis=1)
        return mean, np.zeros_like(mean)


def of_law(problem: MixtureProblem, law: Fitted) -> MixtureProblem:
    return replace(problem, objective=replace(problem.objective, law=law))


def trees_problem(kl_weight: float) -> tuple[MixtureProblem, np.ndarray]:
    problem = problem_of(1, 8, law=EffectivePowerLaw, kl_weight=kl_weight)
    runs = Region.of(problem).draw(problem.objective.prior, 150, np.random.default_rng(2))
    metrics = problem.objective.law.predict(runs)[0] + np.random.default_rng(3).normal(0, 0.01, (150, 5))
    return of_law(problem, Trees.fit(runs, metrics)), runs


def constrained(seed: int, domains: int, law: type = EffectivePowerLaw) -> MixtureProblem:
    every = names(domains)
    share = share_between("group", every[:2], 0.2, 0.5)
    pin = pinned_at(every[2], 0.1)
    return problem_of(seed, domains, law=law, caps=np.full(domains, 0.4), constraints=(share, pin))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("with_gradient", [True, False])
def test_a_convex_optimum_is_found_from_predictions(law: type, with_gradient: bool) -> None:
    problem = constrained(2, 6, law)
    exact = solve(problem).value
    asked = problem if with_gradient else of_law(problem, PredictOnly(problem.objective.law, []))
    found = search(asked, np.random.default_rng(0), evaluations=20_000)
    assert exact - 1e-9 <= found.value < exact + 1e-4


def test_the_search_finds_lower_predictions_than_ten_times_as_many_draws() -> None:
    problem, _ = trees_problem(kl_weight=0.05)
    found = search(problem, np.random.default_rng(0), evaluations=5_000)
    draws = Region.of(problem).draw(problem.objective.prior, 50_000, np.random.default_rng(1))
    assert found.value < problem.objective.predicted(draws).min()


def test_the_answer_keeps_its_constraints_is_reproducible_and_counts_its_evaluations() -> None:
    asked: list[int] = []
    plain = constrained(4, 5)
    problem = of_law(plain, PredictOnly(plain.objective.law, asked))
    found = search(problem, np.random.default_rng(7), evaluations=3_000)
    assert found.evaluations == sum(asked) <= 3_001
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (found.weights <= 0.4).all()
    assert (found.weights >= 0).all()
    assert found.weights[2] == pytest.approx(0.1, abs=1e-9)
    assert 0.2 - 1e-9 <= found.weights[:2].sum() <= 0.5 + 1e-9
    again = search(problem, np.random.default_rng(7), evaluations=3_000)
    np.testing.assert_array_equal(found.weights, again.weights)


def test_a_dearer_distance_brings_the_answer_to_the_runs() -> None:
    problem, runs = trees_problem(kl_weight=0.0)
    distances = []
    for penalty in (0.0, 0.1, 10.0):
        found = search(
            problem,
            np.random.default_rng(0),
            evaluations=4_000,
            evidence_weights=runs,
            distance_penalty=penalty,
        )
        distances.append(np.abs(runs - found.weights).sum(1).min())
    assert distances[0] > distances[1] > distances[2]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kl_weight", [0.0, 0.02])
def test_descents_end_as_low_as_many_times_as_many_moves(seed: int, kl_weight: float) -> None:
    """Of a law that bends both ways, with a share and a pin, where a unit of distance costs a fifth of a spread."""
    problem = constrained(seed, 6)
    runs = Region.of(problem).draw(problem.objective.prior, 24, np.random.default_rng(seed))
    metrics = problem.objective.law.predict(runs)[0] + np.random.default_rng(9).normal(0, 0.05, (24, 5))
    bent = of_law(problem, GaussianProcess().fit(runs, metrics))
    bent = replace(bent, objective=replace(bent.objective, kl_weight=kl_weight))
    price = float(metrics.std()) / 5

    def lowest(asked: MixtureProblem) -> float:
        found = search(
            asked,
            np.random.default_rng(1),
            evaluations=40_000,
            evidence_weights=runs,
            distance_penalty=price,
        )
        assert outside(problem.system, problem.space.collapse(found.weights)) <= 1e-9
        return found.value + price * float(np.abs(runs - found.weights).sum(1).min())

    blind = of_law(bent, PredictOnly(bent.objective.law, []))
    assert lowest(bent) <= lowest(blind) + 0.005 * price


def test_frozen_ratios_hold() -> None:
    problem = problem_of(5, 4, caps=np.full(4, 0.6))
    every = names(4)
    space = SimplexMap.freeze(every, {"frozen": {every[0]: 3, every[1]: 1}})
    frozen = replace(problem, space=space)
    found = search(frozen, np.random.default_rng(0), evaluations=3_000)
    assert found.weights[0] == pytest.approx(3 * found.weights[1], rel=1e-9)
    assert found.value < solve(frozen).value + 1e-4


def test_guard_rails_hold_or_are_named() -> None:
    problem = constrained(3, 5)
    task = single_tasks(5)[1]
    alone = replace(problem.objective, task_weights=task.weights, kl_weight=0.0)
    least = solve(replace(problem, objective=alone)).value
    kept = replace(problem, guard_rails=(GuardRail(task, least + 0.01),))
    found = search(kept, np.random.default_rng(0), evaluations=10_000)
    assert problem.objective.law.predict(found.weights[None])[0][0, 1] <= least + 0.01
    assert found.value == pytest.approx(solve(kept).value, abs=1e-3)
    with pytest.raises(Infeasible, match="guard rails"):
        search(
            replace(problem, guard_rails=(GuardRail(task, least - 0.01),)),
            np.random.default_rng(0),
            evaluations=2_000,
        )


def outside(system: LinearSystem, free: np.ndarray) -> float:
    """By how much a q breaks the worst of the constraints, q >= 0 and sum q = 1 included."""
    rows, held = system.inequality @ free - system.bound, np.abs(system.equality @ free - system.value)
    return float(np.concatenate([rows, held, -free, [abs(free.sum() - 1)]]).max())


@given(st.integers(0, 10**6), st.integers(4, 12))
@hypothesis_settings(max_examples=15)
def test_draws_and_steps_stay_in_the_region(seed: int, domains: int) -> None:
    problem = constrained(seed, domains)
    region = Region.of(problem)
    generator = np.random.default_rng(seed)
    drawn = region.draw(problem.objective.prior, 40, generator)
    targets = generator.dirichlet(np.ones(domains), size=40)
    for points in (drawn, region.towards(drawn, targets)):
        for point in points:
            assert outside(region.system, point) <= 1e-9


def test_a_law_without_a_certificate_is_not_solved_and_few_evaluations_are_refused() -> None:
    problem = problem_of(1, 4)
    only = of_law(problem, PredictOnly(problem.objective.law, []))
    with pytest.raises(InvalidSetting, match="search it"):
        solve(only)
    with pytest.raises(InvalidSetting, match="too few"):
        search(only, np.random.default_rng(0), evaluations=10)
    with pytest.raises(InvalidSetting, match="needs the runs"):
        search(only, np.random.default_rng(0), distance_penalty=1.0)


def test_the_mean_of_the_best_and_the_predicted_best() -> None:
    candidates = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])

    def predict(weights: np.ndarray) -> np.ndarray:
        return weights[:, 0]

    np.testing.assert_allclose(mean_of_best(predict, candidates, best=2), [0.1, 0.9])
    np.testing.assert_allclose(predicted_best(predict, candidates), [0.0, 1.0])
    trained = np.array([[0.0, 1.0], [0.2, 0.8 + 1e-7]])
    np.testing.assert_allclose(predicted_best(predict, candidates, trained), [0.5, 0.5])
    with pytest.raises(InvalidSetting, match="best"):
        mean_of_best(predict, candidates)
    with pytest.raises(InvalidSetting, match="trained already"):
        predicted_best(predict, candidates, candidates)


def test_regmix_candidates_have_the_moments_of_their_dirichlet() -> None:
    prior = np.array([0.5, 0.3, 0.2])
    drawn = regmix_candidates(prior, np.random.default_rng(0), draws=20_000)
    np.testing.assert_allclose(drawn.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(drawn.mean(0), prior, atol=0.01)
    np.testing.assert_allclose(drawn.var(0), prior * (1 - prior) / 2, atol=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_what_binds_a_mixture_is_priced_from_slopes_as_the_exact_solve_prices_it(seed: int) -> None:
    """A second method: least squares over the slopes at the optimum, beside the multipliers of the solve."""
    caps = np.random.default_rng(seed).uniform(0.12, 0.4, 8)
    problem = problem_of(seed, 8, law=EffectivePowerLaw, caps=caps, kl_weight=0.02)
    exact = solve(problem)
    assert exact.cap_prices is not None
    bare = replace(exact, active=(), cap_prices=None)
    by_slopes = priced(of_law(problem, Bent(problem.objective.law)), bare)
    np.testing.assert_allclose(by_slopes.cap_prices, exact.cap_prices, atol=1e-6)
    named = {item.name for item in exact.active if item.price > 1e-6}
    assert {item.name for item in by_slopes.active if item.price > 1e-6} == named
    assert by_slopes.gap == exact.gap
    np.testing.assert_array_equal(by_slopes.weights, exact.weights)


@pytest.mark.parametrize("seed", range(4))
def test_shares_and_pins_are_priced_from_slopes_too(seed: int) -> None:
    problem = constrained(seed, 6)
    exact = solve(problem)
    by_slopes = priced(of_law(problem, Bent(problem.objective.law)), replace(exact, active=()))
    prices, expected = (
        {(item.kind, item.name): item.price for item in each.active} for each in (by_slopes, exact)
    )
    assert "pin" in {kind for kind, _ in expected}
    for constraint, price in expected.items():
        assert prices.get(constraint, 0.0) == pytest.approx(price, abs=1e-5)


def test_a_law_without_slopes_is_not_priced() -> None:
    problem = problem_of(0, 8, law=EffectivePowerLaw, caps=np.full(8, 0.2))
    bare = replace(solve(problem), active=(), cap_prices=None)
    assert priced(of_law(problem, PredictOnly(problem.objective.law, [])), bare) is bare


def test_the_curvature_of_a_law_that_promises_none_is_that_of_its_slopes() -> None:
    law = problem_of(0, 6, law=EffectivePowerLaw).objective.law
    point, task_weights = np.full(6, 1 / 6), np.full(len(law.predict(np.full((1, 6), 1 / 6))[0][0]), 0.5)
    known, found = law.expand(point, task_weights), Bent(law).local(point, task_weights)
    assert found is not None
    np.testing.assert_allclose(found.gradient, known.gradient, rtol=1e-9)
    np.testing.assert_allclose(
        found.factors.T @ found.factors,
        np.diag(known.diagonal) + known.factors.T @ known.factors,
        rtol=1e-3,
        atol=1e-4,
    )
