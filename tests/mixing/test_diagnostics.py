from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.diagnostics import (
    HeldOutError,
    decision_accuracy,
    effects,
    held_out_error,
    joined_folds,
    kept_in_folds,
    rank_correlation,
)
from mixing.laws.exponential.log_linear import LogLinearLaw, believable
from mixing.laws.regression import Fitted, Regression


@dataclass(frozen=True)
class FittedLine(Fitted):
    """a . p with the deviation that least squares gives it, times `confidence`."""

    coefficients: np.ndarray
    inverse: np.ndarray
    residual_std: np.ndarray
    boast: float

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        variance = np.einsum("nj,jk,nk->n", weights, self.inverse, weights)
        return weights @ self.coefficients, np.sqrt(variance)[:, None] * self.residual_std / self.boast


@dataclass(frozen=True)
class Line(Regression):
    """Least squares without a gradient and without batches: all the protocol asks for and nothing more."""

    boast: float = 1.0

    def runs_to_fit(self, domains: int) -> int:
        return domains + 1

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedLine:
        if len(weights) < self.runs_to_fit(weights.shape[1]):
            raise TooFewRuns("too few", needed=self.runs_to_fit(weights.shape[1]), given=len(weights))
        coefficients = np.linalg.lstsq(weights, metrics, rcond=None)[0]
        residuals = metrics - weights @ coefficients
        std = np.sqrt((residuals**2).sum(0) / (len(weights) - weights.shape[1]))
        return FittedLine(coefficients, np.linalg.inv(weights.T @ weights), std, self.boast)


@dataclass(frozen=True)
class OneByOne(Regression):
    """The log-linear law without its batches and gradients."""

    law: LogLinearLaw

    def runs_to_fit(self, domains: int) -> int:
        return self.law.runs_to_fit(domains)

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> Fitted:
        return PredictionsOnly(self.law.fit(weights, metrics, noise))


@dataclass(frozen=True)
class PredictionsOnly(Fitted):
    fitted: Fitted

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.fitted.predict(weights)


@dataclass(frozen=True)
class Roots(Fitted):
    """sum_j j sqrt(p_j), which is nothing where a weight is negative."""

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = np.sqrt(weights) @ np.arange(weights.shape[1])
        return value[:, None], np.zeros((len(weights), 1))


def cross_validate(
    regression: Regression,
    weights: np.ndarray,
    metrics: np.ndarray,
    objective: np.ndarray,
    generator: np.random.Generator,
    noise: np.ndarray | None = None,
    folds: int = 5,
    repeats: int = 6,
) -> HeldOutError:
    """Of predictions of every run by fits without it, over `repeats` choices of folds."""
    kept = kept_in_folds(regression, weights, generator, folds, repeats)
    predicted = believable(
        regression.held_out(weights, metrics, kept, noise), np.stack([metrics.min(0), metrics.max(0)])
    )
    both = joined_folds(predicted, kept, repeats), metrics
    return held_out_error(*(np.concatenate([each, (each @ objective)[..., None]], axis=-1) for each in both))


def world(runs: int, seed: int = 0, noise: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(4), runs)
    effect = generator.normal(-0.5, 0.8, (3, 4))
    return weights, 1 + np.exp(weights @ effect.T) + noise * generator.standard_normal((runs, 3))


def test_decision_accuracy_on_a_case_done_by_hand() -> None:
    """Measured 1 < 2 = 2 < 3 has five pairs to decide: one is right, one a tie of the prediction, three are wrong."""
    measured = np.array([[1.0], [2.0], [2.0], [3.0]])
    predicted = np.array([[5.0], [5.0], [6.0], [4.0]])
    # right: (0,2). tie: (0,1). wrong: (0,3), (1,3), (2,3). undecided by nature: (1,2).
    assert decision_accuracy(predicted, measured)[0] == pytest.approx(1.5 / 5)
    assert decision_accuracy(measured, measured)[0] == 1
    assert decision_accuracy(-measured, measured)[0] == 0
    assert decision_accuracy(predicted, np.ones((4, 1)))[0] == 0.5


@given(st.integers(0, 10**6))
def test_decision_accuracy_is_what_counting_pairs_says(seed: int) -> None:
    predicted, measured = np.random.default_rng(seed).integers(0, 6, (2, 9, 2)).astype(float)
    for task, ours in enumerate(decision_accuracy(predicted, measured)):
        score, decided = 0.0, 0
        for i, j in combinations(range(9), 2):
            if measured[i, task] == measured[j, task]:
                continue
            decided += 1
            better, other = (i, j) if measured[i, task] < measured[j, task] else (j, i)
            if predicted[better, task] < predicted[other, task]:
                score += 1
            elif predicted[better, task] == predicted[other, task]:
                score += 0.5
        assert ours == pytest.approx(score / decided if decided else 0.5)


def test_without_ties_it_is_kendalls_tau_on_another_scale() -> None:
    predicted, measured = np.random.default_rng(0).normal(size=(2, 40, 1))
    tau = kendalltau(predicted[:, 0], measured[:, 0]).statistic
    assert decision_accuracy(predicted, measured)[0] == pytest.approx((1 + tau) / 2)


def test_a_batch_of_folds_says_what_fold_after_fold_says() -> None:
    weights, metrics = world(40)
    share, law = np.full(3, 1 / 3), LogLinearLaw()
    batched = cross_validate(law, weights, metrics, share, np.random.default_rng(1), repeats=1)
    single = cross_validate(OneByOne(law), weights, metrics, share, np.random.default_rng(1), repeats=1)
    np.testing.assert_allclose(batched.predictions, single.predictions, atol=2e-3)
    assert batched.rank_correlation[-1] > 0.9


def test_the_scores_are_those_of_predictions_by_fits_without_the_run() -> None:
    """A second method: leave each run out by hand."""
    weights, metrics = world(12, noise=0.1)
    share = np.array([0.5, 0.5, 0.0])
    found = cross_validate(Line(), weights, metrics, share, np.random.default_rng(0), folds=12, repeats=2)
    expected = np.empty_like(metrics)
    for run in range(12):
        rest = np.arange(12) != run
        expected[run] = weights[run] @ np.linalg.lstsq(weights[rest], metrics[rest], rcond=None)[0]
    np.testing.assert_allclose(found.predictions[..., :-1], [expected, expected], atol=1e-10)
    np.testing.assert_allclose(found.mae[:-1], np.abs(expected - metrics).mean(0))
    np.testing.assert_allclose(found.rank_correlation[:-1], rank_correlation(expected, metrics))
    np.testing.assert_allclose(found.decision_accuracy[:-1], decision_accuracy(expected, metrics))
    error = (expected - metrics) @ share
    assert found.mae[-1] == pytest.approx(np.abs(error).mean())
    assert found.decision_accuracy[-1] == pytest.approx(
        decision_accuracy((expected @ share)[:, None], (metrics @ share)[:, None])[0]
    )


def test_folds_shrink_until_what_is_left_can_be_fitted() -> None:
    weights, metrics = world(6)
    share = np.full(3, 1 / 3)
    found = cross_validate(Line(), weights, metrics, share, np.random.default_rng(0), folds=2)
    assert np.isfinite(found.predictions).all()
    with pytest.raises(TooFewRuns) as caught:
        cross_validate(Line(), weights[:5], metrics[:5], share, np.random.default_rng(0))
    assert (caught.value.needed, caught.value.given) == (6, 5)
    with pytest.raises(InvalidSetting):
        cross_validate(Line(), weights, metrics, share, np.random.default_rng(0), folds=1)


def test_one_wild_prediction_does_not_decide_the_mean() -> None:
    """The only run that shows a domain, predicted without it by a law that may then say anything."""
    weights, metrics = world(30)
    weights[:, 3] = 0
    weights[7] = [0, 0, 0, 1]
    weights /= weights.sum(1, keepdims=True)
    metrics[7] = metrics[:7].mean(0)
    found = cross_validate(
        LogLinearLaw(ridge=0.0), weights, metrics, np.full(3, 1 / 3), np.random.default_rng(0)
    )
    assert (found.mae[:-1] <= 3 * np.ptp(metrics, axis=0)).all()


def test_the_same_seed_draws_the_same_folds() -> None:
    weights, metrics = world(20)
    first, again = (
        cross_validate(Line(), weights, metrics, np.full(3, 1 / 3), np.random.default_rng(5))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.predictions, again.predictions)


def test_effects_are_differenced_without_leaving_the_simplex() -> None:
    """By hand at p = (1, 0) and h = .02: towards domain 1, (sqrt(.02) - 0) / .02; towards domain 0, nothing moves."""
    found = effects(Roots(), np.array([1.0, 0.0]))
    np.testing.assert_allclose(found[:, 0], [0.0, np.sqrt(0.02) / 0.02])


@pytest.mark.parametrize("mixture", [[0.4, 0.3, 0.2, 0.1], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
def test_the_effects_of_a_linear_law_are_its_centred_coefficients(mixture: list[float]) -> None:
    weights, metrics = world(30)
    fitted, point = Line().fit(weights, metrics), np.array(mixture)
    expected = fitted.coefficients - point @ fitted.coefficients
    np.testing.assert_allclose(effects(fitted, point), expected, atol=1e-9)


def test_effects_by_gradient_and_by_difference_agree_and_balance() -> None:
    weights, metrics = world(60)
    fitted, point = LogLinearLaw().fit(weights, metrics), np.array([0.4, 0.3, 0.2, 0.1])
    exact = effects(fitted, point)
    assert exact.shape == (4, 3)
    np.testing.assert_allclose(point @ exact, 0, atol=1e-12)
    np.testing.assert_allclose(effects(PredictionsOnly(fitted), point, step=1e-4), exact, atol=1e-6)
    np.testing.assert_allclose(effects(PredictionsOnly(fitted), point), exact, atol=2e-3)
