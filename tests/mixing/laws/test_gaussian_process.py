"""Gaussian processes, held against textbook formulas, finite differences, and brute force."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.diagnostics import rank_correlation
from mixing.laws.ensemble import fold_masks
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.processes.descent import ProcessProblems, correlation, descend, evaluate, posterior
from mixing.laws.processes.fitted_process import FEATURES, FeatureMap, FittedProcess
from mixing.laws.processes.gaussian_process import GaussianProcess
from mixing.laws.processes.multi_fidelity import MultiFidelityGaussianProcess
from mixing.laws.regression import Fitted, Regression

DOMAINS = 4
MEANS = [None, EffectivePowerLaw()]


def mixtures(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).dirichlet(np.full(DOMAINS, 0.6), count)
    drawn[drawn < 0.005] = 0
    return drawn / drawn.sum(1, keepdims=True)


def truth(weights: np.ndarray) -> np.ndarray:
    """(n, 2): two losses that no law of the package has, for two domains interfere."""
    rooted = np.sqrt(weights)
    first = 3 - rooted @ [0.9, 0.3, 0.5, 0.1] + 0.8 * weights[:, 0] * weights[:, 2]
    second = 2 + np.exp(-3 * rooted[:, 1]) + 0.3 * np.sin(4 * rooted[:, 3])
    return np.stack([first, second], axis=1)


def problems(seed: int, *, fidelity: bool) -> ProcessProblems:
    generator = np.random.default_rng(seed)
    runs = 18
    return ProcessProblems(
        features=generator.random((runs, DOMAINS)),
        targets=generator.standard_normal((3, runs)),
        inflation=generator.uniform(0.5, 2, (3, runs)),
        base=np.full((1, runs, runs), 4.0),
        fidelity=generator.integers(0, 2, runs).astype(float) if fidelity else None,
        centre=np.zeros(DOMAINS + 2 + fidelity),
        width=np.ones(DOMAINS + 2 + fidelity),
    )


@pytest.mark.parametrize("fidelity", [False, True])
def test_gradient_of_the_marginal_likelihood_agrees_with_finite_differences(fidelity: bool) -> None:
    setup = problems(0, fidelity=fidelity)
    theta = np.random.default_rng(1).normal(0, 0.5, (3, len(setup.centre)))
    _, gradient = evaluate(setup, theta)
    for parameter in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[parameter] = 1e-5
        above, below = (evaluate(setup, theta + sign * step)[0] for sign in (1, -1))
        np.testing.assert_allclose(gradient[:, parameter], (above - below) / 2e-5, rtol=1e-5, atol=1e-7)


def test_likelihood_and_prediction_are_those_of_another_implementation() -> None:
    setup = problems(2, fidelity=False)
    theta = np.random.default_rng(3).normal(0, 0.5, (3, DOMAINS + 2))
    unseen = np.random.default_rng(4).random((7, DOMAINS))
    loss, _ = evaluate(setup, theta)
    given = posterior(setup, theta)
    for task, (row, inflation, targets) in enumerate(zip(theta, setup.inflation, setup.targets, strict=True)):
        kernel = ConstantKernel(4.0) + ConstantKernel(np.exp(2 * row[DOMAINS])) * Matern(
            np.exp(row[:DOMAINS]), nu=2.5
        )
        noise = np.exp(2 * row[DOMAINS + 1]) * inflation
        other = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(setup.features, targets)
        constant = len(targets) / 2 * np.log(2 * np.pi)
        prior = 0.5 * (row**2).sum()
        assert loss[task] == pytest.approx(prior - constant - other.log_marginal_likelihood_value_, rel=1e-8)
        covariance = correlation(theta, unseen, setup.features, None)[task] + 4.0
        np.testing.assert_allclose(covariance @ given.dual[task], other.predict(unseen), rtol=1e-6)


def test_the_descent_ends_where_the_gradient_is_nothing_and_every_task_on_its_own() -> None:
    setup = problems(5, fidelity=False)
    start = np.zeros((3, DOMAINS + 2))
    found = descend(setup, start, 400, 1e-12)[0]
    assert np.abs(evaluate(setup, found)[1]).max() < 1e-3
    alone = descend(setup.part(np.array([1])), start[1:2], 400, 1e-12)[0]
    np.testing.assert_allclose(found[1], alone[0], atol=1e-4)


def test_left_out_residuals_are_those_of_processes_without_the_run() -> None:
    setup = problems(6, fidelity=False)
    theta = np.random.default_rng(7).normal(0, 0.5, (3, DOMAINS + 2))
    residuals, variances = posterior(setup, theta).left_out()
    for run in (0, 9):
        others = np.delete(np.arange(18), run)
        given = posterior(setup.runs(others), theta)
        cross = correlation(theta, setup.features[[run]], setup.features[others], None)[:, 0] + 4.0
        predicted = (cross * given.dual).sum(1)
        np.testing.assert_allclose(residuals[:, run], setup.targets[:, run] - predicted, rtol=1e-6)
        own = np.exp(2 * theta[:, DOMAINS]) + 4.0
        own += np.exp(2 * theta[:, DOMAINS + 1]) * setup.inflation[:, run]
        explained = np.einsum("nk,nkl,nl->n", cross, given.precision, cross)
        np.testing.assert_allclose(variances[:, run], own - explained, rtol=1e-6)


@pytest.mark.parametrize("mean", MEANS)
def test_learns_what_no_law_has(mean: EffectivePowerLaw | None) -> None:
    weights, unseen = mixtures(80), mixtures(100, seed=5)
    process = GaussianProcess(mean=mean).fit(weights, truth(weights))
    law = EffectivePowerLaw().fit(weights, truth(weights))
    expected = truth(unseen)
    ours, theirs = (np.abs(fit.predict(unseen)[0] - expected).mean(0) for fit in (process, law))
    assert (ours < 0.6 * theirs).all()
    assert rank_correlation(process.predict(unseen)[0], expected).min() > 0.98


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("kind", FEATURES)
def test_gradient_agrees_with_finite_differences(kind: str, mean: EffectivePowerLaw | None) -> None:
    weights = mixtures(30)
    fitted = GaussianProcess(FeatureMap(kind), mean).fit(weights, truth(weights))
    assert fitted.has_gradient
    points = np.random.default_rng(2).dirichlet(np.full(DOMAINS, 8.0), 5)
    gradient = fitted.gradient(points)
    for domain in range(DOMAINS):
        step = np.zeros(DOMAINS)
        step[domain] = 1e-6
        slope = (fitted.mean(points + step) - fitted.mean(points - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, :, domain], slope, rtol=1e-4, atol=1e-5)


def test_the_mean_alone_is_the_mean_of_the_prediction_however_many_mixtures() -> None:
    weights, many = mixtures(30), mixtures(2500, seed=3)
    fitted = GaussianProcess().fit(weights, truth(weights))
    mean, deviation = fitted.predict(many)
    assert mean.shape == deviation.shape == (2500, 2)
    np.testing.assert_allclose(fitted.mean(many), mean, rtol=1e-12)
    np.testing.assert_allclose(mean[2400:], fitted.predict(many[2400:])[0], rtol=1e-10)


def test_the_deviation_is_small_at_the_runs_and_holds_the_truth_elsewhere() -> None:
    weights, unseen = mixtures(40), mixtures(200, seed=5)
    noisy = truth(weights) + 0.01 * np.random.default_rng(1).standard_normal((40, 2))
    fitted = GaussianProcess().fit(weights, noisy)
    predicted, deviation = fitted.predict(unseen)
    inside = np.abs(predicted - truth(unseen)) < 2 * deviation
    assert 0.8 < inside.mean() <= 1
    assert np.median(fitted.predict(weights)[1]) < 0.6 * np.median(deviation)


def test_permuting_the_domains_permutes_the_process() -> None:
    weights, unseen = mixtures(40), mixtures(50, seed=5)
    order = np.array([2, 0, 3, 1])
    plain = GaussianProcess().fit(weights, truth(weights)).predict(unseen)[0]
    permuted = GaussianProcess().fit(weights[:, order], truth(weights)).predict(unseen[:, order])[0]
    np.testing.assert_allclose(permuted, plain, rtol=1e-5)


def test_one_wild_measurement_hardly_moves_the_process() -> None:
    weights, unseen = mixtures(60), mixtures(100, seed=5)
    metrics = truth(weights) + 0.01 * np.random.default_rng(1).standard_normal((60, 2))
    wild = metrics.copy()
    wild[7] += 1.5
    plain, robust = (GaussianProcess().fit(weights, values).predict(unseen)[0] for values in (metrics, wild))
    assert np.median(np.abs(plain - robust)) < 0.03


def test_known_noise_is_added_to_the_fitted_one() -> None:
    weights = mixtures(40)
    metrics = truth(weights)
    metrics[:5] += 0.5
    noise = np.zeros_like(metrics)
    noise[:5] = 5.0
    told = GaussianProcess().fit(weights, metrics, noise).predict(weights)[0]
    assert np.abs(told - truth(weights)).max() < 0.3
    assert np.abs(told[5:] - truth(weights)[5:]).mean() < 0.02


def test_held_out_predictions_are_those_of_processes_given_the_kept_runs_alone() -> None:
    """By brute force: the same hyperparameters and noise, conditioned on fewer runs; of many, that is."""
    weights = mixtures(24)
    process = GaussianProcess(search_runs=20)
    assert type(process).held_out is not Regression.held_out
    fitted = process.fit(weights, truth(weights))
    kept = np.random.default_rng(8).random((3, 24)) < 0.7
    found = process.held_out(weights, truth(weights), kept)
    level = fitted.frame.fixed(weights)
    for predicted, rows in zip(found, kept, strict=True):
        given = posterior(fitted.problems.runs(np.flatnonzero(rows)), fitted.theta)
        features = fitted.problems.features
        cross = correlation(fitted.theta, features, features[rows], None) + 4.0
        targets = (cross @ given.dual[:, :, None])[:, :, 0]
        expected = fitted.frame.metrics(level + fitted.frame.unit[:, None] * targets, weights).T
        np.testing.assert_allclose(predicted, expected, rtol=1e-6)


@pytest.mark.parametrize("mean", MEANS)
def test_refits_are_processes_given_the_kept_runs_alone(mean: EffectivePowerLaw | None) -> None:
    """Held against the closed form at the runs, and by brute force against the covariance of fewer runs."""
    weights = mixtures(24)
    process = GaussianProcess(mean=mean, search_runs=20)
    fitted = process.fit(weights, truth(weights))
    kept = np.random.default_rng(8).random((3, 24)) < 0.7
    refits = process.refits(weights, truth(weights), kept, whole=fitted)
    for law, predicted, rows in zip(refits, fitted.held_out(kept), kept, strict=True):
        # What keeps the covariance invertible is noise to the one and signal to the other.
        np.testing.assert_allclose(law.mean(weights), predicted, rtol=1e-4)
        chosen = np.flatnonzero(rows)
        alone = posterior(fitted.problems.runs(chosen), fitted.theta)
        fewer = replace(
            fitted,
            weights=weights[chosen],
            problems=fitted.problems.runs(chosen),
            posterior=alone,
            columns=fitted.columns[:, chosen],
        )
        np.testing.assert_allclose(law.mean(weights), fewer.mean(weights), rtol=1e-4)
        if (
            mean is None
        ):  # the law's wide prior cancels but for the last digits of these two worlds without noise
            np.testing.assert_allclose(law.predict(weights)[1], fewer.predict(weights)[1], rtol=1e-5)


@pytest.mark.parametrize("mean", MEANS)
def test_a_refits_hyperparameters_are_likelier_by_its_own_runs(mean: EffectivePowerLaw | None) -> None:
    weights = mixtures(24)
    fitted = GaussianProcess(mean=mean).fit(weights, truth(weights))
    kept = np.random.default_rng(8).random((3, 24)) < 0.7
    refitted = GaussianProcess(mean=mean).fit_and_refit(weights, truth(weights), kept)
    for law, predicted, rows in zip(refitted.parts, refitted.predicted, kept, strict=True):
        assert isinstance(law, FittedProcess)
        own = fitted.problems.runs(np.flatnonzero(rows))
        assert (evaluate(own, law.theta)[0] <= evaluate(own, fitted.theta)[0] + 1e-6).all()
        np.testing.assert_allclose(law.mean(weights), predicted, rtol=1e-4)


def test_what_is_held_out_is_not_missed_less_for_hyperparameters_that_had_seen_it() -> None:
    """Weak signals in much noise, of which those of all runs miss what is held out by a third less than new runs."""
    generator = np.random.default_rng(3)
    slopes = generator.standard_normal((8, 40))

    def measured(runs: int) -> tuple[np.ndarray, np.ndarray]:
        weights = generator.dirichlet(np.full(8, 0.5), runs)
        return weights, weights @ slopes + 0.5 * generator.standard_normal((runs, 40))

    (weights, metrics), (new, truths) = measured(16), measured(200)
    left_out = fold_masks(16, 5, 2, generator)
    found = GaussianProcess().fit_and_refit(weights, metrics, ~left_out)
    assert isinstance(found.whole, FittedProcess)
    missed, too_sure = (
        np.abs(predicted - metrics)[left_out].mean()
        for predicted in (found.predicted, found.whole.held_out(~left_out))
    )
    true = np.abs(found.whole.mean(new) - truths).mean()
    assert too_sure < 0.75 * true
    assert too_sure + 0.25 * (true - too_sure) < missed < 1.1 * true


@dataclass(frozen=True)
class StraightFit(Fitted):
    coefficients: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = weights @ self.coefficients
        return mean, np.zeros_like(mean)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.coefficients.T, (len(weights), *self.coefficients.T.shape))


class Straight(Regression):
    """Least squares in the weights: the simplest regression that follows the protocol."""

    def runs_to_fit(self, domains: int) -> int:
        return domains

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> StraightFit:
        return StraightFit(np.linalg.lstsq(weights, metrics)[0])


def test_any_regression_may_be_the_mean() -> None:
    weights, unseen = mixtures(80), mixtures(100, seed=5)
    fitted = GaussianProcess(mean=Straight()).fit(weights, truth(weights))
    ours = np.abs(fitted.predict(unseen)[0] - truth(unseen)).mean()
    alone = np.abs(Straight().fit(weights, truth(weights)).predict(unseen)[0] - truth(unseen)).mean()
    assert ours < 0.3 * alone
    points = np.random.default_rng(2).dirichlet(np.full(DOMAINS, 8.0), 3)
    step = np.array([1e-6, 0, 0, 0])
    slope = (fitted.mean(points + step) - fitted.mean(points - step)) / 2e-6
    np.testing.assert_allclose(fitted.gradient(points)[:, :, 0], slope, rtol=1e-4, atol=1e-5)
    kept = np.ones((1, 80), dtype=bool)
    again = GaussianProcess(mean=Straight()).held_out(weights, truth(weights), kept)
    np.testing.assert_allclose(again[0], fitted.predict(weights)[0], rtol=1e-8)


def test_a_search_on_some_of_the_runs_predicts_like_one_on_all() -> None:
    weights, unseen = mixtures(120), mixtures(100, seed=5)
    metrics = truth(weights) + 0.01 * np.random.default_rng(1).standard_normal((120, 2))
    full, part = (
        GaussianProcess(search_runs=runs).fit(weights, metrics).predict(unseen)[0] for runs in (200, 60)
    )
    assert rank_correlation(full, part).min() > 0.99


def test_small_runs_help_a_few_large_ones() -> None:
    weights, unseen = mixtures(80), mixtures(100, seed=5)
    size = np.where(np.arange(80) < 65, 1e6, 6e7)
    generator = np.random.default_rng(1)

    def at(mixtures_: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return truth(mixtures_) * (sizes / 1e6)[:, None] ** -0.05

    metrics = at(weights, size) + 0.003 * generator.standard_normal((80, 2))
    fitted = MultiFidelityGaussianProcess().fit(weights, metrics, fidelity=size)
    alone = GaussianProcess().fit(weights[65:], metrics[65:])
    expected = at(unseen, np.full(100, 6e7))
    errors = [np.abs(fit.predict(unseen)[0] - expected).mean() for fit in (fitted, alone)]
    assert errors[0] < 0.7 * errors[1]
    np.testing.assert_allclose(fitted.at(6e7).predict(unseen)[0], fitted.predict(unseen)[0], rtol=1e-9)
    small = fitted.at(1e6).predict(unseen)[0]
    assert np.abs(small - truth(unseen)).mean() < 0.03
    assert fitted.has_gradient


def test_a_size_that_is_none_is_refused() -> None:
    weights = mixtures(20)
    with pytest.raises(InvalidSetting, match="proxy size above 0"):
        MultiFidelityGaussianProcess().fit(weights, truth(weights), fidelity=np.zeros(20))
    with pytest.raises(InvalidSetting, match="constant mean"):
        MultiFidelityGaussianProcess(GaussianProcess(mean=EffectivePowerLaw()))


def test_too_few_runs_metrics_that_say_nothing_and_unknown_features_are_refused() -> None:
    weights = mixtures(20)
    metrics = truth(weights)
    with pytest.raises(TooFewRuns, match="needs 8"):
        GaussianProcess().fit(weights[:7], metrics[:7])
    with pytest.raises(InvalidMetrics, match="run 2, task 1"):
        GaussianProcess().fit(weights, np.where(np.arange(40).reshape(20, 2) == 5, np.inf, metrics))
    with pytest.raises(InvalidMetrics, match="task 0 has the same metric"):
        GaussianProcess().fit(weights, np.ones((20, 1)))
    with pytest.raises(InvalidSetting, match="raw, sqrt, power, log"):
        FeatureMap("cube")
