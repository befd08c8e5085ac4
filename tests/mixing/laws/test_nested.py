import numpy as np
import pytest
from scipy.optimize import curve_fit

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.exponential.log_linear import LogLinearLaw
from mixing.laws.nested import extrapolate, extrapolate_steps_then_sizes, fit_scaling
from tests.mixing.laws.law_checks import swarm

STEPS = np.array([5e3, 1e4, 2e4, 3e4, 5e4])


def test_a_curve_without_noise_is_continued_exactly() -> None:
    constant = np.array([[1.5, 2.0], [0.8, 3.0]])
    exponent = np.array([[0.2, 0.5], [0.9, 0.35]])
    losses = constant + (800.0 / STEPS[:, None, None]) ** exponent
    np.testing.assert_allclose(
        extrapolate(STEPS, losses, 1e6), constant + (800.0 / 1e6) ** exponent, atol=1e-6
    )


def test_noisy_curves_are_fitted_as_by_a_general_optimizer() -> None:
    generator = np.random.default_rng(0)
    steps = np.geomspace(1e3, 1e5, 12)
    losses = 1.2 + 8 * steps[:, None] ** -0.3 + 0.002 * generator.standard_normal((12, 5))
    laws = fit_scaling(steps, losses)
    for curve in range(5):
        found, _ = curve_fit(
            lambda d, c, b, a: c + b * (d / 1e4) ** -a, steps, losses[:, curve], p0=[1, 1, 0.3], maxfev=10000
        )
        squares = np.square(found[0] + found[1] * (steps / 1e4) ** -found[2] - losses[:, curve]).sum()
        ours = np.square([laws.at(step)[curve] for step in steps] - losses[:, curve]).sum()
        assert ours <= squares * (1 + 1e-6)


def test_a_loss_never_goes_below_nothing_and_never_rises() -> None:
    """Curves that a free fit would continue below 0, or upwards."""
    falling = 10.0 - 1e-4 * STEPS
    rising = 2.0 + 1e-6 * STEPS
    laws = fit_scaling(STEPS, np.column_stack([falling, rising]))
    assert (laws.at(1e9) >= 0).all()
    assert (laws.at(1e9) <= laws.at(5e4)).all()


def test_steps_then_sizes_then_the_mixture() -> None:
    """The order of Data Mixing Laws, where each law holds exactly: the mixing law at the target is found."""
    weights = swarm(0, 30, 3)
    slopes = np.array([[-1.0, 0.2, -0.3], [0.5, -0.8, 0.0]])
    mixed = 1.0 + np.exp(weights @ slopes.T)
    sizes = np.array([70e6, 160e6, 305e6, 410e6])

    def loss(step: float, size: float) -> np.ndarray:
        return mixed * (1 + (1e8 / size) ** 0.4) * (0.5 + (1e3 / step) ** 0.5)

    losses = np.array([[loss(step, size) for size in sizes] for step in STEPS])
    predicted = extrapolate_steps_then_sizes(STEPS, sizes, losses, 1e5, 1e9)
    np.testing.assert_allclose(predicted, loss(1e5, 1e9), rtol=1e-6)
    law = LogLinearLaw().fit(weights, predicted)
    fresh = swarm(1, 50, 3)
    expected = (1.0 + np.exp(fresh @ slopes.T)) * (loss(1e5, 1e9) / mixed)[0, 0]
    np.testing.assert_allclose(law.predict(fresh)[0], expected, atol=1e-3)


def test_what_cannot_be_continued_is_refused() -> None:
    with pytest.raises(TooFewRuns) as caught:
        extrapolate(np.array([1e8, 2e8, 2e8]), np.ones((3, 2)), 1e9)
    assert caught.value.needed == 3
    spoiled = np.ones((5, 2))
    spoiled[2, 1] = np.nan
    with pytest.raises(InvalidMetrics, match=r"\(2, 1\)"):
        extrapolate(STEPS, spoiled, 1e6)
    with pytest.raises(InvalidSetting):
        extrapolate(STEPS, np.ones((5, 2)), -1.0)
