"""AutoScale from its runs at two budgets to the mixture at the target."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from mixing.domains import Domains
from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.powers.budgets import BudgetLaw, FittedBudgets
from mixing.swarm.samplers import perturbed_runs
from mixing.swarm.space import SwarmSpace

POOL = Domains.of({"books": 2e6, "code": 1e6, "forums": 3e6, "web": 6e6})
# Two tasks of the published form, y = sum_i (n_i + a_i)^-b_i + c, n in thousandths of a full run.
EQUIVALENT = np.array([[20.0, 5.0, 60.0, 30.0], [1.0, 80.0, 10.0, 200.0]])
EXPONENT = np.array([[0.3, 0.5, 0.2, 0.4], [0.6, 0.2, 0.3, 0.15]])


def truth(weights: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(n, 2) losses."""
    amounts = 1000 * weights * tokens[:, None]
    return 1.5 + ((amounts[:, None] + EQUIVALENT) ** -EXPONENT).sum(2)


def runs_of(rounding: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, tokens and rounds of both budgets; tokens rounded to so many of a full run's where that is given."""
    swarms = [perturbed_runs(SwarmSpace.of(POOL), budget, np.random.default_rng(0)) for budget in (0.5, 1.0)]
    weights, tokens = (np.concatenate(parts) for parts in list(zip(*swarms, strict=True))[:2])
    if rounding is not None:
        tokens = np.round(tokens * rounding) / rounding
    return weights, tokens, np.repeat([0, 1], [len(mixtures) for mixtures, _, _ in swarms])


def fitted(rounding: float | None = None) -> FittedBudgets:
    weights, tokens, rounds = runs_of(rounding)
    return BudgetLaw(tokens, rounds).fit(weights, truth(weights, tokens))


def best(task: int, budget: float) -> np.ndarray:
    """(4,) the mixture of least true loss, by a general solver."""
    count = len(POOL)

    def loss(weights: np.ndarray) -> float:
        return float(truth(weights[None], np.array([budget]))[0, task])

    found = minimize(
        loss,
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(1e-6, 1)] * count,
        constraints=LinearConstraint(np.ones(count), 1, 1),
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return found.x


def test_predictions_are_of_the_larger_budget_and_right_where_one_domain_changes_at_a_time() -> None:
    """Moves from the base that leave the total at one: exact up to what is not additive, which here is nothing."""
    law, base = fitted(), POOL.natural_weights
    predicted, deviation = law.predict(base[None])
    np.testing.assert_allclose(predicted, truth(base[None], np.ones(1)), atol=1e-8)
    assert (deviation == 0).all()
    traded = base * np.array([3.0, 1.0, 1.0, 1.0])
    traded[3] = 1 - traded[:3].sum()
    predicted, _ = law.predict(traded[None])
    np.testing.assert_allclose(predicted, truth(traded[None], np.ones(1)), rtol=2e-3)


def test_each_budget_knows_its_size_its_base_and_its_own_losses() -> None:
    smaller, larger = fitted().budgets
    assert (smaller.tokens, larger.tokens) == pytest.approx((0.5, 1.0))
    np.testing.assert_allclose(larger.base, 1000 * POOL.natural_weights)
    np.testing.assert_allclose(larger.measured, truth(POOL.natural_weights[None], np.ones(1))[0])


@pytest.mark.parametrize("task", [0, 1])
def test_the_optimum_at_a_budget_is_nearly_as_good_as_a_general_solvers_on_the_truth(task: int) -> None:
    """Through three points pass two laws, so it need not be the same mixture."""
    weights = fitted().extrapolated(1.0, task)
    natural, found, lowest = (
        float(truth(mixture[None], np.ones(1))[0, task])
        for mixture in (POOL.natural_weights, weights, best(task, 1.0))
    )
    assert weights.sum() == pytest.approx(1)
    assert lowest <= found <= lowest + 0.15 * (natural - lowest)


def test_the_last_task_is_the_one_extrapolated_unless_another_is_named() -> None:
    law = fitted()
    np.testing.assert_array_equal(law.extrapolated(4.0), law.extrapolated(4.0, 1))
    assert np.abs(law.extrapolated(4.0, 0) - law.extrapolated(4.0, 1)).max() > 0.05


def test_extrapolation_follows_the_published_rule() -> None:
    """N3 = N2 N2 / N1 for each domain, and again with the two latest: budgets 1/2 and 1, so 8 is three steps on."""
    law = fitted()
    first, second = (budget.optimum(1) for budget in law.budgets)
    third = second * second / first
    fourth = third * third / second
    fifth = fourth * fourth / third
    np.testing.assert_allclose(law.extrapolated(8.0), fifth / fifth.sum(), rtol=1e-9)
    np.testing.assert_allclose(law.extrapolated(0.7), second / second.sum(), rtol=1e-12)


def test_tokens_counted_in_whole_ones_change_nothing_that_matters() -> None:
    np.testing.assert_allclose(fitted(30_000).extrapolated(8.0), fitted().extrapolated(8.0), atol=5e-3)


def test_the_order_of_the_runs_plays_no_part() -> None:
    weights, tokens, rounds = runs_of()
    order = np.random.default_rng(3).permutation(len(weights))
    metrics = truth(weights, tokens)
    shuffled = BudgetLaw(tokens[order], rounds[order]).fit(weights[order], metrics[order])
    np.testing.assert_allclose(shuffled.extrapolated(8.0), fitted().extrapolated(8.0), rtol=1e-6)


def test_runs_that_are_no_perturbations_are_refused() -> None:
    weights, tokens, rounds = runs_of()
    metrics = truth(weights, tokens)
    with pytest.raises(TooFewRuns) as caught:
        BudgetLaw(tokens[:-1], rounds[:-1]).fit(weights[:-1], metrics[:-1])
    assert (caught.value.needed, caught.value.given) == (9, 8)
    drawn = np.random.default_rng(0).dirichlet(np.ones(4), len(weights))
    with pytest.raises(InvalidSetting, match="base run"):
        BudgetLaw(tokens, rounds).fit(drawn, metrics)
    with pytest.raises(InvalidSetting, match="how much"):
        BudgetLaw(tokens[1:], rounds[1:]).fit(weights, metrics)
