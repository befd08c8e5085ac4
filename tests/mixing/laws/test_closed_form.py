import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize, root

from mixing.errors import Infeasible, InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.powers.budgets import (
    autoscale_optimum,
    extrapolate_budgets,
    fit_autoscale,
)
from tests.mixing.solve.bimix import bimix_optimum, fit_bimix


def bimix_world(seed: int, domains: int) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    scale, exponent = generator.uniform(1, 4, domains), generator.uniform(0.02, 0.6, domains)
    caps = generator.uniform(0.15, 1.0, domains)
    return scale, exponent, caps * max(1.0, 1.2 / caps.sum())


@given(st.integers(0, 10**6), st.integers(2, 6))
@hypothesis_settings(max_examples=20, deadline=None)
def test_bimix_shares_are_those_a_general_solver_finds(seed: int, domains: int) -> None:
    scale, exponent, caps = bimix_world(seed, domains)
    weights = np.random.default_rng(seed + 1).uniform(0.2, 2, domains)
    found = bimix_optimum(scale, exponent, caps, weights)

    def loss(r: np.ndarray) -> float:
        return float((weights * scale * r**-exponent).sum())

    other = minimize(
        loss,
        np.minimum(caps, 1) / np.minimum(caps, 1).sum(),
        method="SLSQP",
        bounds=[(1e-6, min(cap, 1.0)) for cap in caps],
        constraints=LinearConstraint(np.ones(domains), 1, 1),
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert (found <= caps + 1e-12).all()
    assert loss(found) <= other.fun + 1e-9 * abs(other.fun)


def test_bimix_shares_below_their_caps_share_one_slope_and_those_at_them_are_steeper() -> None:
    """The Karush-Kuhn-Tucker conditions."""
    scale, exponent = np.array([3.0, 2.0, 2.5, 1.0]), np.array([0.5, 0.3, 0.2, 0.1])
    caps = np.array([0.2, 1.0, 1.0, 1.0])
    found = bimix_optimum(scale, exponent, caps)
    slopes = scale * exponent * found ** (-exponent - 1)
    assert found[0] == pytest.approx(0.2, abs=1e-12)
    np.testing.assert_allclose(slopes[1:], slopes[1], rtol=1e-9)
    assert slopes[0] > slopes[1]


def test_bimix_law_is_found_again_from_a_few_runs_read_at_several_steps() -> None:
    """Its published swarm: 4 mixtures."""
    generator = np.random.default_rng(0)
    exponent, factor = np.array([0.05, 0.2, 0.12]), np.array([20.0, 9.0, 40.0])
    step_exponent, constant = np.array([0.4, 0.3, 0.5]), np.array([1.8, 1.2, 2.2])
    shares = np.repeat(generator.dirichlet(np.ones(3) * 3, 4), 5, axis=0)
    steps = np.tile([2000.0, 5000.0, 10000.0, 20000.0, 40000.0], 4)
    losses = shares**-exponent * (factor * steps[:, None] ** -step_exponent + constant)
    laws = fit_bimix(shares, steps, losses)
    np.testing.assert_allclose(laws.share_exponent, exponent, rtol=1e-4)
    np.testing.assert_allclose(laws.step_exponent, step_exponent, rtol=1e-3)
    np.testing.assert_allclose(laws.predict(shares, steps), losses, rtol=1e-7)
    later = constant + factor * 1e5**-step_exponent
    expected = bimix_optimum(later, exponent, np.ones(3))
    np.testing.assert_allclose(laws.optimum(1e5, np.ones(3)), expected, atol=1e-4)


@given(st.integers(0, 10**6), st.integers(2, 6))
@hypothesis_settings(max_examples=20, deadline=None)
def test_autoscale_amounts_are_those_a_general_solver_finds(seed: int, domains: int) -> None:
    generator = np.random.default_rng(seed)
    equivalent, exponent = generator.uniform(0, 1, domains), generator.uniform(0.05, 1.5, domains)
    budget = generator.uniform(1, 20)
    lower = generator.uniform(0.01, 0.3, domains) * budget / domains
    found = autoscale_optimum(equivalent, exponent, budget, lower)

    def loss(n: np.ndarray) -> float:
        return float(((n + equivalent) ** -exponent).sum())

    other = minimize(
        loss,
        lower + (budget - lower.sum()) / domains,
        method="SLSQP",
        bounds=[(low, budget) for low in lower],
        constraints=LinearConstraint(np.ones(domains), budget, budget),
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert found.sum() == pytest.approx(budget, rel=1e-12)
    assert (found >= lower - 1e-12).all()
    assert loss(found) <= other.fun + 1e-9 * abs(other.fun)
    slopes = exponent * (found + equivalent) ** (-exponent - 1)
    free = found > lower * (1 + 1e-9)
    np.testing.assert_allclose(slopes[free], slopes[free].max(), rtol=1e-6)
    assert (slopes[~free] <= slopes[free].max() * (1 + 1e-6)).all()


@pytest.mark.parametrize("factors", [(1 / 3, 1, 3), (1 / 5, 1, 3)])
def test_autoscale_law_passes_through_its_three_runs(factors: tuple[float, ...]) -> None:
    """The paper's thirds and the code's fifth."""
    base = np.array([1.0, 4.0, 0.5])
    equivalent, exponent = np.array([0.4, 2.0, 0.1]), np.array([0.3, 0.5, 0.2])
    tokens = np.array(factors)[:, None] * base
    losses = (tokens + equivalent) ** -exponent + np.array([2.0, 1.0, 3.0])
    laws = fit_autoscale(tokens, losses)
    np.testing.assert_allclose(laws.predict(tokens), losses, atol=1e-8)
    assert (laws.equivalent <= equivalent * (1 + 1e-3)).all()


def test_autoscale_law_is_found_again_from_more_than_three_runs() -> None:
    equivalent, exponent, constant = np.array([0.4, 2.0]), np.array([0.3, 0.5]), np.array([2.0, 1.0])
    tokens = np.geomspace(0.05, 50, 9)[:, None] * np.array([1.0, 4.0])
    laws = fit_autoscale(tokens, (tokens + equivalent) ** -exponent + constant)
    np.testing.assert_allclose(laws.exponent, exponent, rtol=1e-5)
    np.testing.assert_allclose(laws.equivalent, equivalent, rtol=1e-4)
    np.testing.assert_allclose(laws.constant, constant, rtol=1e-5)


def test_autoscale_moves_data_from_domains_that_saturate_to_those_that_do_not_as_the_budget_grows() -> None:
    """The paper's finding, and its theorem: without equivalents, optima on one path extrapolate exactly."""
    exponent, nothing = np.array([1.2, 0.4]), np.zeros(2)
    path = [(exponent / slope) ** (1 / (exponent + 1)) for slope in (1e-2, 1e-3, 1e-4, 1e-5)]
    optima = [autoscale_optimum(nothing, exponent, amounts.sum(), nothing) for amounts in path]
    np.testing.assert_allclose(optima, path, rtol=1e-9)
    shares = np.array([amounts / amounts.sum() for amounts in optima])
    assert (np.diff(shares[:, 1]) > 0).all()
    np.testing.assert_allclose(extrapolate_budgets(optima[0], optima[1], 2), shares[2:], rtol=1e-8)


def test_caps_bounds_and_readings_that_leave_nothing_are_refused() -> None:
    half = np.full(3, 0.3)
    with pytest.raises(Infeasible):
        autoscale_optimum(np.ones(3), half, 1.0, np.ones(3))
    with pytest.raises(InvalidSetting, match="exponent"):
        autoscale_optimum(np.ones(3), np.array([0.1, 0.0, 0.1]), 5.0, np.ones(3))
    with pytest.raises(TooFewRuns):
        fit_autoscale(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(InvalidMetrics):
        fit_autoscale(np.zeros((3, 3)), np.ones((3, 3)))


def test_of_two_laws_through_the_published_matrix_the_smaller_a_is_taken_and_the_other_moves_the_optimum_little() -> (
    None
):
    """The perplexities over all domains of `algorithms/DDO_example.ipynb` of feiyang-k/AutoScale: a third, once and
    three times the data of each of seven domains. Three points, three parameters: two laws go through them."""
    less = [30.11152249, 28.37687875, 29.85955983, 29.90195668, 30.37704005, 29.23766591, 28.92552215]
    more = [25.78619752, 27.68033216, 26.25833879, 26.47376351, 25.49797272, 27.01485416, 27.24200395]
    losses = np.log([less, 7 * [28.11373645], more])
    amounts = np.array([[1 / 3], [1.0], [3.0]]) * np.ones(7)
    smaller = fit_autoscale(amounts, losses)
    np.testing.assert_allclose(smaller.predict(amounts), losses, atol=1e-6)
    begin = ((2.3, 1.5), (4.9, 1.9), (2.3, 1.8), (2.1, 2.1), (2.2, 1.4), (2.5, 2.2), (2.8, 2.2))
    found = []
    for start, (third, once, thrice) in zip(begin, losses.T, strict=True):

        def steps(
            law: np.ndarray, third: float = third, once: float = once, thrice: float = thrice
        ) -> list[float]:
            powers = (np.array([1 / 3, 1.0, 3.0]) + law[0]) ** -law[1]
            return [powers[0] - powers[1] - third + once, powers[1] - powers[2] - once + thrice]

        found.append(root(steps, np.array(start), tol=1e-12).x)
    equivalent, exponent = np.array(found).T
    powers = (amounts + equivalent) ** -exponent
    np.testing.assert_allclose(powers - powers.mean(0), losses - losses.mean(0), atol=1e-9)
    assert (smaller.equivalent < 1).all()
    assert (equivalent > 2).all()
    assert smaller.exponent.max() < 0.13 < 1.3 < exponent.min()
    lower = np.full(7, 0.2)  # of a domain's base
    other = autoscale_optimum(equivalent, exponent, 7.0, lower)
    np.testing.assert_allclose(smaller.optimum(7.0, lower), other, atol=0.1)
