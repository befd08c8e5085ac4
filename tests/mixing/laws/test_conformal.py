"""Cross-conformal intervals hold as many new runs as they say, whatever the regression."""

import numpy as np
import pytest

from mixing.errors import InvalidSetting
from mixing.laws.conformal import Conformal
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.processes.fitted_process import FeatureMap
from mixing.laws.processes.gaussian_process import GaussianProcess
from mixing.laws.regression import Regression


def world(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two losses whose noise, one-sided in the second, grows with their height."""
    weights = generator.dirichlet(np.full(4, 0.7), count)
    gap = 1 / (np.sqrt(weights) @ [[1.0, 0.1], [0.4, 0.3], [0.1, 0.9], [0.2, 0.5]] + 0.2)
    noise = np.stack([generator.normal(0, 0.04, count), -generator.exponential(0.05, count)], axis=1)
    return weights, 2 + gap * np.exp(noise)


@pytest.mark.parametrize(
    "regression", [EffectivePowerLaw(), GaussianProcess(), GaussianProcess(FeatureMap("raw"))]
)
def test_nine_of_ten_new_runs_lie_inside_on_each_task(regression: Regression) -> None:
    """The raw process has the wrong shape: its intervals are wider, and hold as many."""
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(8):
        fitted = Conformal(regression).fit(*world(40, generator))
        unseen, measured = world(300, generator)
        low, high = fitted.interval(unseen)
        inside.append(((measured >= low) & (measured <= high)).mean(0))
    assert (np.mean(inside, axis=0) > 0.84).all()
    assert (np.mean(inside, axis=0) < 0.97).all()


def test_both_sides_miss_alike_even_where_the_noise_is_one_sided() -> None:
    generator = np.random.default_rng(1)
    below, above = [], []
    for _ in range(10):
        fitted = Conformal(EffectivePowerLaw()).fit(*world(60, generator))
        unseen, measured = world(300, generator)
        low, high = fitted.interval(unseen)
        below.append((measured < low).mean(0))
        above.append((measured > high).mean(0))
    assert 0.02 < np.mean(below) < 0.08
    assert 0.02 < np.mean(above) < 0.08


def test_more_confidence_is_a_wider_interval_around_the_same_prediction() -> None:
    generator = np.random.default_rng(2)
    weights, metrics = world(60, generator)
    unseen, _ = world(20, generator)
    narrow, wide = (
        Conformal(EffectivePowerLaw(), confidence=confidence).fit(weights, metrics)
        for confidence in (0.5, 0.9)
    )
    assert (narrow.interval(unseen)[0] > wide.interval(unseen)[0]).all()
    assert (narrow.interval(unseen)[1] < wide.interval(unseen)[1]).all()
    np.testing.assert_array_equal(narrow.predict(unseen)[0], wide.predict(unseen)[0])


def test_intervals_are_wider_where_the_loss_is_higher() -> None:
    generator = np.random.default_rng(3)
    fitted = Conformal(EffectivePowerLaw()).fit(*world(60, generator))
    unseen, _ = world(100, generator)
    low, high = fitted.interval(unseen)
    mean, _ = fitted.predict(unseen)
    order = mean[:, 0].argsort()
    assert (np.diff((high - low)[order, 0]) >= -1e-12).all()


def test_a_confidence_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="between 0 and 1"):
        Conformal(EffectivePowerLaw(), confidence=90)
    assert Conformal(EffectivePowerLaw()).runs_to_fit(17) == 9
