"""The ensemble: shares by held-out error, and the fit of the whole from its parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.diagnostics import rank_correlation
from mixing.laws.ensemble import Ensemble, fold_masks
from mixing.laws.linear import FittedLinear, LinearLaw
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.processes.gaussian_process import GaussianProcess
from mixing.laws.regression import Fitted, Regression


@dataclass(frozen=True)
class Line(Fitted):
    """Two coefficients and no gradient."""

    coefficients: np.ndarray
    deviation: float

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = weights @ self.coefficients
        return mean, np.full_like(mean, self.deviation)


@dataclass(frozen=True)
class Linear(Regression):
    """Least squares, spoilt for the tasks named: there it predicts the mean and `off`."""

    spoilt: tuple[int, ...] = ()
    off: float = 1.0
    needed: int = 4
    deviation: float = 0.0

    def runs_to_fit(self, domains: int) -> int:
        return self.needed

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> Line:
        coefficients = np.linalg.lstsq(weights, metrics)[0]
        for task in self.spoilt:
            coefficients[:, task] = metrics[:, task].mean() + self.off
        return Line(coefficients, self.deviation)


def linear_world(runs: int = 40, noise: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(3), runs)
    metrics = weights @ np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    return weights, metrics + noise * generator.standard_normal(metrics.shape)


def power_world(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    weights = np.random.default_rng(seed).dirichlet(np.full(5, 0.6), count)
    amount = np.sqrt(weights) @ np.array([[1.0, 0.1], [0.3, 0.2], [0.1, 0.9], [0.5, 0.1], [0.2, 0.4]])
    return weights, 2 + 1 / (amount + 0.3)


def ensemble_of(members: Sequence[Regression], **settings: int) -> Ensemble:
    return Ensemble({f"member {number}": member for number, member in enumerate(members)}, **settings)


def test_equally_good_members_count_equally() -> None:
    fitted = ensemble_of((Linear(), Linear())).fit(*linear_world())
    np.testing.assert_allclose(fitted.shares, 0.5)


def test_each_task_has_its_own_shares_and_a_bad_member_hardly_any() -> None:
    weights, metrics = linear_world()
    fitted = ensemble_of((Linear(spoilt=(0,)), Linear(spoilt=(1,)))).fit(weights, metrics)
    assert fitted.shares[0, 0] < 1e-3 > fitted.shares[1, 1]
    np.testing.assert_allclose(fitted.shares.sum(0), 1)
    expected = Linear().fit(weights, metrics).predict(weights)[0]
    np.testing.assert_allclose(fitted.predict(weights)[0], expected, atol=1e-2)


def test_held_out_errors_are_those_of_refits_without_the_fold() -> None:
    weights, metrics = linear_world(runs=12)
    ensemble = ensemble_of((Linear(),), folds=3, repeats=1, seed=5)
    missed = np.zeros_like(metrics)
    for fold in fold_masks(12, 3, 1, np.random.default_rng(5)):
        line = Linear().fit(weights[~fold], metrics[~fold])
        missed[fold] = np.abs(metrics - line.predict(weights)[0])[fold]
    np.testing.assert_allclose(ensemble.fit(weights, metrics).held_out_error[0], missed.mean(0))


def test_the_variance_is_that_of_a_mixture_of_the_members() -> None:
    """Against draws: a member by its share, then a normal of its mean and deviation."""
    weights, metrics = linear_world()
    fitted = ensemble_of((Linear(deviation=0.3), Linear((0, 1), off=0.02, deviation=0.1))).fit(
        weights, metrics
    )
    mean, deviation = fitted.predict(weights[:1])
    generator = np.random.default_rng(1)
    members = [member.predict(weights[:1]) for member in fitted.members]
    chosen = (generator.random(200_000) >= fitted.shares[0, 0]).astype(int)
    means, spreads = (np.array([member[part][0, 0] for member in members])[chosen] for part in (0, 1))
    draws = generator.normal(means, spreads)
    assert draws.mean() == pytest.approx(mean[0, 0], abs=5e-3)
    assert draws.std() == pytest.approx(deviation[0, 0], rel=1e-2)


def test_members_that_need_more_runs_stay_out() -> None:
    weights, metrics = linear_world(runs=20)
    hungry, modest = Linear(needed=17), Linear(needed=16)
    assert len(ensemble_of((hungry, modest)).fit(weights, metrics).members) == 1
    assert ensemble_of((hungry, modest)).runs_to_fit(3) == 16
    # Where no member could be judged without a fold, the least demanding is alone.
    alone = ensemble_of((hungry, modest)).fit(weights[:17], metrics[:17])
    assert alone.names == ("member 1",)
    by_itself = modest.fit(weights[:17], metrics[:17])
    np.testing.assert_array_equal(alone.predict(weights)[0], by_itself.predict(weights)[0])
    with pytest.raises(TooFewRuns) as error:
        ensemble_of((hungry,)).fit(weights[:16], metrics[:16])
    assert (error.value.needed, error.value.given) == (17, 16)


def test_an_ensemble_of_nothing_and_a_gradient_that_a_member_lacks_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="at least one member"):
        ensemble_of(())
    fitted = ensemble_of((Linear(),)).fit(*linear_world())
    with pytest.raises(InvalidSetting, match="Line, a member of the ensemble, has no gradient"):
        fitted.gradient(np.full((1, 3), 1 / 3))


def test_gradient_agrees_with_finite_differences() -> None:
    fitted = ensemble_of((EffectivePowerLaw(), GaussianProcess())).fit(*power_world(30, 0))
    assert fitted.has_gradient
    points = np.random.default_rng(2).dirichlet(np.full(5, 8.0), 4)
    gradient = fitted.gradient(points)
    for domain in range(5):
        step = np.zeros(5)
        step[domain] = 1e-6
        slope = (fitted.predict(points + step)[0] - fitted.predict(points - step)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, :, domain], slope, rtol=1e-4, atol=1e-5)


def test_the_default_ranks_unseen_mixtures_and_says_the_same_twice() -> None:
    weights, metrics = power_world(30, 0)
    unseen, expected = power_world(100, 1)
    regression: Regression = Ensemble()
    assert regression.fits_subsets_at_once
    first, second = (regression.fit(weights, metrics).predict(unseen)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert rank_correlation(first, expected).min() > 0.99


def test_held_out_predictions_do_not_see_the_run_left_out() -> None:
    weights, metrics = linear_world(runs=20)
    ensemble = ensemble_of((Linear(), Linear(spoilt=(0,))))
    kept = np.ones((1, 20), dtype=bool)
    kept[0, 3] = False
    changed = metrics.copy()
    changed[3] += 1e-3
    plain, other = (ensemble.held_out(weights, values, kept)[0, 3] for values in (metrics, changed))
    np.testing.assert_allclose(plain, other, atol=1e-5)  # the shares saw it
    expected = Linear().fit(weights[kept[0]], metrics[kept[0]]).predict(weights[[3]])[0][0]
    assert plain[1] == pytest.approx(expected[1], abs=1e-9)


def test_every_repeat_leaves_every_run_out_once() -> None:
    masks = fold_masks(23, 5, 3, np.random.default_rng(0))
    assert masks.shape == (15, 23)
    np.testing.assert_array_equal(masks.reshape(3, 5, 23).sum(1), 1)
    assert masks.sum(1).max() - masks.sum(1).min() <= 1


@dataclass(frozen=True)
class Curved(FittedLinear):
    """A linear law that says it is none, off by so much in every prediction."""

    off: float = 0.0

    @property
    def is_convex(self) -> bool:
        return False

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.mean(weights), super().predict(weights)[1]

    def mean(self, weights: np.ndarray) -> np.ndarray:
        return super().mean(weights) + self.off * np.sin(1e4 * weights[:, :1])


@dataclass(frozen=True)
class CurvedLaw(LinearLaw):
    off: float = 0.0

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedLinear:
        fitted = super().fit(weights, metrics, noise)
        return Curved(fitted.coefficients, fitted.unscaled, fitted.residual_std, self.off)

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> list[FittedLinear]:
        return [self.fit(weights[rows], metrics[rows]) for rows in kept]


def test_what_is_no_better_for_not_being_convex_is_left_out_so_the_answer_can_be_certified() -> None:
    weights, metrics = linear_world()
    fitted = Ensemble({"line": LinearLaw(), "curve": CurvedLaw(off=0.01)}).fit(weights, metrics)
    assert fitted.names == ("line",)
    assert fitted.parts() == ({"line": 1.0}, {"line": 1.0})
    assert fitted.is_convex
    point = np.array([0.2, 0.3, 0.5])
    expansion = fitted.expand(point, np.array([0.25, 0.75]))
    assert expansion.value == pytest.approx(float(fitted.predict(point[None])[0][0] @ [0.25, 0.75]))


def test_what_predicts_clearly_better_counts_though_nothing_can_be_certified_then() -> None:
    weights, metrics = linear_world(noise=0.2)
    fitted = Ensemble({"stiff": LinearLaw(ridge=1e6), "curve": CurvedLaw()}).fit(weights, metrics)
    assert fitted.parts()[0]["curve"] > fitted.parts()[0]["stiff"]
    assert not fitted.is_convex


def test_an_average_of_convex_laws_is_expanded_to_its_own_second_derivatives() -> None:
    weights, metrics = power_world(30, 0)
    law = Ensemble({"linear": LinearLaw(), "power": EffectivePowerLaw()}).fit(weights, metrics)
    point, task_weights = np.full(5, 0.2), np.array([0.4, 0.6])
    expansion = law.expand(point, task_weights)
    hessian = np.diag(expansion.diagonal) + expansion.factors.T @ expansion.factors
    for domain in range(5):
        step = np.zeros(5)
        step[domain] = 1e-5
        slopes = [task_weights @ law.gradient((point + sign * step)[None])[0] for sign in (1, -1)]
        np.testing.assert_allclose(hessian[domain], (slopes[0] - slopes[1]) / 2e-5, rtol=1e-4, atol=1e-5)


def test_members_that_would_take_too_long_stay_out_and_are_named() -> None:
    weights, metrics = power_world(30, 0)
    processes = {"Gaussian process", "Gaussian process around the effective power law"}
    whole, brief = Ensemble().fit(weights, metrics), Ensemble(most_work=1.0).fit(weights, metrics)
    assert whole.notes() == ()
    assert not processes & set(brief.names)
    (note,) = brief.notes()
    assert all(name in note for name in ("30 runs", "5 domains", "2 tasks", *processes))
    only = Ensemble({"process": GaussianProcess()}, most_work=1.0).fit(weights, metrics)
    assert only.names == ("process",)  # nothing would be left without it
