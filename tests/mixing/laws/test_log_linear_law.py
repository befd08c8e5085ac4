import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.laws.exponential.log_linear import LogLinearLaw
from tests.mixing.laws.law_checks import (
    assert_convex_along_chords,
    assert_expansion_is_the_second_order,
    swarm,
)


def losses(weights: np.ndarray, seed: int, tasks: int, noise: float = 0.005) -> np.ndarray:
    generator = np.random.default_rng(seed)
    slopes = generator.normal(-0.5, 0.8, (tasks, weights.shape[1]))
    clean = generator.uniform(0.5, 1.5, tasks) + np.exp(weights @ slopes.T)
    return clean + noise * generator.standard_normal(clean.shape)


def test_the_expansion_is_the_law_to_second_order() -> None:
    weights = swarm(0, 40, 4)
    fitted = LogLinearLaw().fit(weights, losses(weights, 1, 3))
    assert fitted.is_convex
    assert_expansion_is_the_second_order(fitted, np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.5, 0.0, 2.0]))


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=8, deadline=None)
def test_the_law_is_convex(seed: int) -> None:
    weights = swarm(seed, 30, 4)
    assert_convex_along_chords(LogLinearLaw().fit(weights, losses(weights, seed, 2)), 4, seed)


def test_fits_in_one_batch_predict_what_fits_one_after_the_other_do() -> None:
    """The ridge acts on metrics scaled by all runs' deviation, hence not to the last digit."""
    weights = swarm(2, 50, 4)
    metrics = losses(weights, 3, 3)
    kept = np.random.default_rng(4).random((6, 50)) < 0.8
    law = LogLinearLaw()
    assert law.fits_subsets_at_once
    single = [law.fit(weights[rows], metrics[rows]).predict(weights)[0] for rows in kept]
    np.testing.assert_allclose(law.held_out(weights, metrics, kept), single, atol=1e-3)


def test_the_smallest_swarm_is_the_one_it_states() -> None:
    weights = swarm(5, 7, 5)
    assert LogLinearLaw().runs_to_fit(5) == 7
    LogLinearLaw().fit(weights, losses(weights, 6, 1))
