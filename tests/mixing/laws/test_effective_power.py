"""The effective power law: it finds its own parameters again, it is convex, and its derivatives are right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.laws.diagnostics import rank_correlation
from mixing.laws.powers.descent import PowerProblems, evaluate
from mixing.laws.powers.effective_power import EffectivePowerLaw, FittedEffectivePower, PowerPrior
from mixing.laws.regression import Regression

DOMAINS, TASKS = 5, 3


def mixtures(count: int, domains: int = DOMAINS, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).dirichlet(np.full(domains, 0.6), count)
    drawn[drawn < 0.01] = 0
    return drawn / drawn.sum(1, keepdims=True)


def truth(weights: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, TASKS) of laws of the family, written out here and not taken from the code."""
    generator = np.random.default_rng(seed)
    columns = []
    for _ in range(TASKS):
        useful = np.exp(generator.normal(-1, 1.5, weights.shape[1]))
        powers = generator.uniform(0.35, 0.55, weights.shape[1])
        constant, scale, rest, decay = generator.uniform([2, 0.8, 0.05, 0.25], [3, 1.5, 0.3, 0.5])
        amount = (useful * (weights + 5e-5) ** powers).sum(1) + rest
        columns.append(constant + scale * amount**-decay)
    return np.stack(columns, axis=1)


@pytest.fixture(scope="module")
def fitted() -> FittedEffectivePower:
    weights = mixtures(60)
    noise = np.random.default_rng(1).normal(0, 0.005, (60, TASKS))
    return EffectivePowerLaw().fit(weights, truth(weights) + noise)


def test_is_what_the_protocol_asks_for(fitted: FittedEffectivePower) -> None:
    law: Regression = EffectivePowerLaw()
    assert law.fits_subsets_at_once
    assert fitted.is_convex


def test_noiseless_runs_of_the_family_are_predicted_to_a_thousandth_of_their_range() -> None:
    weights, unseen = mixtures(150), mixtures(100, seed=5)
    law = EffectivePowerLaw(iterations=400, tolerance=1e-10)
    predicted, _ = law.fit(weights, truth(weights)).predict(unseen)
    expected = truth(unseen)
    error = np.abs(predicted - expected) / np.ptp(expected, axis=0)
    assert np.median(error) < 1e-3
    assert error.mean() < 3e-3


def test_with_fewer_runs_than_parameters_the_ranking_is_still_found() -> None:
    weights, unseen = mixtures(12), mixtures(200, seed=5)
    predicted, _ = EffectivePowerLaw().fit(weights, truth(weights)).predict(unseen)
    assert rank_correlation(predicted, truth(unseen)).mean() > 0.8


def test_one_wild_measurement_hardly_moves_the_law() -> None:
    weights, unseen = mixtures(60), mixtures(100, seed=5)
    metrics = truth(weights)
    wild = metrics.copy()
    wild[7] += 3 * np.ptp(metrics, axis=0)
    law = EffectivePowerLaw()
    plain, robust = (law.fit(weights, values).predict(unseen)[0] for values in (metrics, wild))
    assert np.median(np.abs(plain - robust) / np.ptp(metrics, axis=0)) < 0.01


def test_a_run_of_great_noise_counts_less() -> None:
    weights = mixtures(40)
    metrics = truth(weights)
    wrong = metrics.copy()
    wrong[:5] += 0.5
    noise = np.zeros_like(metrics)
    noise[:5] = 10.0
    law = EffectivePowerLaw()
    without = law.fit(weights[5:], metrics[5:]).predict(weights)[0]
    told = law.fit(weights, wrong, noise).predict(weights)[0]
    assert np.abs(told - without).max() < 0.05 * np.ptp(metrics)


def test_gradient_of_the_loss_agrees_with_finite_differences() -> None:
    weights = mixtures(30)
    values = truth(weights).T
    generator = np.random.default_rng(3)
    centre, width = PowerPrior().stacked(DOMAINS)
    importance = generator.uniform(0, 1, values.shape) * (generator.random(values.shape) > 0.2)
    problems = PowerProblems(
        np.log(weights + 5e-5), values - values.min(1, keepdims=True), importance, centre, width
    )
    theta = centre + 0.3 * generator.standard_normal((TASKS, len(centre)))
    _, gradient, _ = evaluate(problems, theta)
    for parameter in range(len(centre)):
        step = np.zeros(len(centre))
        step[parameter] = 1e-6
        above, below = (evaluate(problems, theta + sign * step)[0] for sign in (1, -1))
        np.testing.assert_allclose(gradient[:, parameter], (above - below) / 2e-6, rtol=1e-4, atol=1e-5)


def test_gradient_agrees_with_finite_differences(fitted: FittedEffectivePower) -> None:
    points = np.random.default_rng(2).dirichlet(np.ones(DOMAINS), 6)
    gradient = fitted.gradient(points)
    for domain in range(DOMAINS):
        step = np.zeros(DOMAINS)
        step[domain] = 1e-6
        slope = (fitted.predict(points + step)[0] - fitted.predict(points - step)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, :, domain], slope, rtol=1e-4, atol=1e-6)


def test_expansion_agrees_with_finite_differences(fitted: FittedEffectivePower) -> None:
    point = np.random.default_rng(2).dirichlet(np.ones(DOMAINS))
    task_weights = np.array([0.2, 0.5, 0.3])
    expansion = fitted.expand(point, task_weights)
    assert expansion.value == pytest.approx(
        float(fitted.predict(point[None])[0][0] @ task_weights), rel=1e-12
    )
    np.testing.assert_allclose(expansion.gradient, task_weights @ fitted.gradient(point[None])[0], rtol=1e-10)
    hessian = np.diag(expansion.diagonal) + expansion.factors.T @ expansion.factors
    for domain in range(DOMAINS):
        step = np.zeros(DOMAINS)
        step[domain] = 1e-5
        slopes = [task_weights @ fitted.gradient((point + sign * step)[None])[0] for sign in (1, -1)]
        np.testing.assert_allclose(hessian[domain], (slopes[0] - slopes[1]) / 2e-5, rtol=1e-4, atol=1e-5)
    assert (expansion.diagonal >= 0).all()
    assert expansion.factors.shape == (TASKS, DOMAINS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2 * DOMAINS, max_size=2 * DOMAINS), st.floats(0, 1))
def test_is_convex(fitted: FittedEffectivePower, numbers: list[float], share: float) -> None:
    ends = np.array(numbers).reshape(2, DOMAINS) + 1e-9
    ends /= ends.sum(1, keepdims=True)
    between = share * ends[0] + (1 - share) * ends[1]
    (first, second, middle), _ = fitted.predict(np.stack([*ends, between]))
    assert (middle <= share * first + (1 - share) * second + 1e-9).all()


def test_permuting_the_domains_permutes_the_fit() -> None:
    weights = mixtures(40)
    metrics = truth(weights)
    order = np.random.default_rng(4).permutation(DOMAINS)
    plain = EffectivePowerLaw().fit(weights, metrics)
    permuted = EffectivePowerLaw().fit(weights[:, order], metrics)
    np.testing.assert_allclose(permuted.usefulness, plain.usefulness[:, order], rtol=1e-4)
    np.testing.assert_allclose(permuted.predict(weights[:, order])[0], plain.predict(weights)[0], rtol=1e-6)


def test_splitting_a_domain_in_halves_that_always_go_together_changes_little() -> None:
    weights, unseen = mixtures(60), mixtures(50, seed=5)
    metrics = truth(weights)

    def split(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[:, 1:], values[:, :1] / 2, values[:, :1] / 2], axis=1)

    plain = EffectivePowerLaw().fit(weights, metrics).predict(unseen)[0]
    halves = EffectivePowerLaw().fit(split(weights), metrics)
    np.testing.assert_allclose(halves.usefulness[:, -1], halves.usefulness[:, -2], rtol=1e-6)
    assert np.abs(halves.predict(split(unseen))[0] - plain).max() < 0.02 * np.ptp(metrics)


def test_the_unit_and_origin_of_a_metric_only_change_its_unit_and_origin() -> None:
    weights = mixtures(40)
    metrics = truth(weights)
    mean, deviation = EffectivePowerLaw().fit(weights, metrics).predict(weights)
    scaled, scaled_deviation = EffectivePowerLaw().fit(weights, 100 * metrics - 500).predict(weights)
    np.testing.assert_allclose(scaled, 100 * mean - 500, rtol=1e-6)
    np.testing.assert_allclose(scaled_deviation, 100 * deviation, rtol=1e-4)


def test_many_fits_at_once_are_the_fits_one_by_one() -> None:
    weights = mixtures(40)
    metrics = truth(weights)
    kept = np.random.default_rng(6).random((4, 40)) < 0.7
    law = EffectivePowerLaw()
    together = law.held_out(weights, metrics, kept)
    assert together.shape == (4, 40, TASKS)
    for predicted, rows in zip(together, kept, strict=True):
        alone = law.fit(weights[rows], metrics[rows]).predict(weights)[0]
        np.testing.assert_allclose(predicted, alone, rtol=1e-6)


def test_a_refit_near_a_fit_finds_it_again() -> None:
    weights = mixtures(40)
    metrics = truth(weights)
    law = EffectivePowerLaw()
    fitted = law.fit(weights, metrics)
    again = law.refit(weights, np.stack([metrics, metrics]), np.ones((1, *metrics.shape)), near=fitted)
    assert len(again) == 2
    np.testing.assert_allclose(again[1].predict(weights)[0], fitted.predict(weights)[0], rtol=1e-3)


def test_the_deviation_is_that_of_fits_to_measurements_made_again() -> None:
    weights, unseen = mixtures(60), mixtures(30, seed=5)
    metrics, generator = truth(weights), np.random.default_rng(7)
    law = EffectivePowerLaw()
    remeasured = metrics + 0.01 * generator.standard_normal((20, *metrics.shape))
    fits = law.refit(weights, remeasured, np.ones((1, *metrics.shape)))
    spread = np.std([fit.predict(unseen)[0] for fit in fits], axis=0)
    stated = np.mean([fit.predict(unseen)[1] for fit in fits], axis=0)
    assert 0.6 < np.median(stated / spread) < 1.7


def test_too_few_runs_and_metrics_that_say_nothing_are_refused() -> None:
    weights = mixtures(7)
    with pytest.raises(TooFewRuns, match="needs 8") as error:
        EffectivePowerLaw().fit(weights, truth(weights))
    assert (error.value.needed, error.value.given) == (8, 7)
    weights = mixtures(20)
    metrics = truth(weights)
    metrics[3, 1] = np.nan
    with pytest.raises(InvalidMetrics, match="run 3, task 1"):
        EffectivePowerLaw().fit(weights, metrics)
    metrics[:, 1] = 2.0
    with pytest.raises(InvalidMetrics, match="task 1 has the same metric"):
        EffectivePowerLaw().fit(weights, metrics)


def test_a_general_optimizer_finds_no_lower_minimum() -> None:
    """A second method: L-BFGS on the same loss, from two random starts a task."""
    weights = mixtures(30)
    noisy = truth(weights) + np.random.default_rng(8).normal(0, 0.01, (30, TASKS))
    centre, width = PowerPrior().stacked(DOMAINS)
    values = ((noisy - noisy.min(0)) / noisy.std(0)).T
    problems = PowerProblems(np.log(weights + 5e-5), values, np.ones_like(values), centre, width)
    fitted = EffectivePowerLaw(iterations=400, tolerance=1e-10).fit(weights, noisy)
    ours, _, _ = evaluate(problems, fitted.theta)
    generator = np.random.default_rng(9)
    for task in range(TASKS):
        one = problems.part(np.array([task]))

        def loss(theta: np.ndarray, one: PowerProblems = one) -> tuple[float, np.ndarray]:
            value, gradient, _ = evaluate(one, theta[None])
            return float(value[0]), gradient[0]

        starts = centre + 0.5 * generator.standard_normal((2, len(centre)))
        best = min(minimize(loss, start, jac=True, method="L-BFGS-B").fun for start in starts)
        assert ours[task] <= best + 0.05


def test_a_task_that_a_fold_sees_one_value_of_is_predicted_as_that_value() -> None:
    weights = mixtures(20)
    metrics = np.full((20, 1), 3.0)
    metrics[0] = 2.0
    kept = np.arange(20)[None, :] > 0
    others = np.vstack([kept, np.arange(20) < 19])
    predicted = EffectivePowerLaw().held_out(weights, np.hstack([metrics, truth(weights)]), others)
    np.testing.assert_allclose(predicted[0, :, 0], 3.0, atol=0.05)


def test_a_fit_is_finished_and_more_iterations_change_nothing() -> None:
    weights = mixtures(30)
    metrics = truth(weights) + np.random.default_rng(9).normal(0, 0.01, (30, TASKS))
    fitted = EffectivePowerLaw().fit(weights, metrics)
    assert not fitted.unfinished().size
    longer = EffectivePowerLaw(iterations=20_000, tolerance=1e-14).fit(weights, metrics)
    np.testing.assert_allclose(
        fitted.predict(weights)[0], longer.predict(weights)[0], atol=1e-4 * metrics.std()
    )
    assert EffectivePowerLaw(iterations=3).fit(weights, metrics).unfinished().tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(8))
def test_of_two_domains_both_needed_the_best_share_is_found_inside(seed: int) -> None:
    """Twelve runs without noise of a law with its lowest point between the two domains, from another start lost."""
    generator = np.random.default_rng(seed)
    share = generator.dirichlet([1.0, 1.0], 212)
    useful, powers = np.exp(generator.normal(-1, 0.5, 2)), generator.uniform(0.3, 0.7, 2)
    metric = 1.5 + ((useful * share**powers).sum(1) + 0.05) ** -generator.uniform(0.25, 0.5)
    predicted, _ = EffectivePowerLaw().fit(share[:12], metric[:12, None]).predict(share[12:])
    assert rank_correlation(predicted, metric[12:, None])[0] > 0.99


def test_the_second_derivatives_near_a_minimum_are_those_of_the_loss() -> None:
    weights, generator = mixtures(30), np.random.default_rng(3)
    values = truth(weights).T
    centre, width = PowerPrior().stacked(DOMAINS)
    importance = generator.uniform(0, 1, values.shape)
    problems = PowerProblems(
        np.log(weights + 5e-5), values - values.min(1, keepdims=True), importance, centre, width
    )
    theta = centre + 0.3 * generator.standard_normal((TASKS, len(centre)))
    _, _, matrix = evaluate(problems, theta, np.ones(TASKS, bool))
    for parameter in range(len(centre)):
        step = np.zeros(len(centre))
        step[parameter] = 1e-6
        above, below = (evaluate(problems, theta + sign * step)[1] for sign in (1, -1))
        np.testing.assert_allclose(matrix[:, parameter], (above - below) / 2e-6, rtol=1e-4, atol=1e-4)
