"""BiMix at a fixed number of steps."""

import numpy as np
import pytest

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.laws.powers.own_share import FittedOwnShare, OwnShareLaw
from mixing.simplex_map import SimplexMap
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem, Objective
from tests.mixing.laws.law_checks import (
    assert_convex_along_chords,
    assert_expansion_is_the_second_order,
    assert_gradient_is_the_slope,
    swarm,
)
from tests.mixing.solve.bimix import bimix_optimum

DOMAINS = (2, 0, 3)
"""The tasks' own domains, of four."""
SCALES, EXPONENTS = np.array([2.0, 1.5, 3.0]), np.array([0.1, 0.3, 0.05])


def truth(weights: np.ndarray) -> np.ndarray:
    return SCALES * (weights[:, DOMAINS] + 1e-4) ** -EXPONENTS


def fitted(noise: float = 0.0, runs: int = 12) -> FittedOwnShare:
    weights = swarm(0, runs, 4)
    errors = noise * np.random.default_rng(1).standard_normal((runs, 3))
    return OwnShareLaw(DOMAINS).fit(weights, truth(weights) * np.exp(errors))


def test_the_law_is_found_again_from_the_four_published_runs() -> None:
    law = fitted(runs=4)
    np.testing.assert_allclose(law.scales, SCALES, rtol=1e-9)
    np.testing.assert_allclose(law.exponents, EXPONENTS, rtol=1e-9)
    np.testing.assert_allclose(law.predict(swarm(9, 30, 4))[0], truth(swarm(9, 30, 4)), rtol=1e-9)


def test_it_is_convex_and_its_derivatives_are_right() -> None:
    law = fitted(0.02)
    assert law.is_convex
    assert_convex_along_chords(law, 4, 0)
    point = np.array([0.3, 0.2, 0.4, 0.1])
    assert_gradient_is_the_slope(law, point)
    # Two slices of one domain add up.
    twice = OwnShareLaw((2, 2, 0)).fit(swarm(0, 12, 4), truth(swarm(0, 12, 4)))
    for one in (law, twice):
        assert_expansion_is_the_second_order(one, point, np.array([0.5, 0.2, 0.3]))


def test_each_slice_looks_at_its_own_domain_alone() -> None:
    law = fitted(0.02)
    moved = np.array([[0.3, 0.2, 0.4, 0.1], [0.3, 0.5, 0.1, 0.1]])
    predicted = law.predict(moved)[0]
    assert predicted[0, 1] == predicted[1, 1]
    assert predicted[0, 2] == predicted[1, 2]
    assert predicted[0, 0] != predicted[1, 0]
    weights = swarm(0, 12, 4)
    alone = OwnShareLaw(DOMAINS[1:2]).fit(weights, truth(weights)[:, 1:2]).predict(moved)[0]
    np.testing.assert_allclose(alone[:, 0], fitted().predict(moved)[0][:, 1], rtol=1e-12)


def test_its_solve_is_the_published_closed_form() -> None:
    """r_i = (A_i alpha_i / mu)^(1 / (alpha_i + 1)); the shift of 1e-4 is all that is between the two."""
    law = OwnShareLaw((0, 1, 2)).fit(swarm(0, 12, 3), SCALES * (swarm(0, 12, 3) + 1e-4) ** -EXPONENTS)
    prior = np.array([0.2, 0.5, 0.3])
    caps = np.array([1.0, 0.4, 1.0])
    problem = MixtureProblem(
        Objective(law, np.full(3, 1 / 3), prior, 0.0), SimplexMap.identity(("a", "b", "c")), caps
    )
    np.testing.assert_allclose(solve(problem).weights, bimix_optimum(SCALES, EXPONENTS, caps), atol=1e-3)


def test_more_of_a_domain_never_hurts_its_own_slice_and_a_constant_share_says_nothing() -> None:
    weights = swarm(0, 12, 4)
    rising = weights[:, [2]] + 1
    assert OwnShareLaw((2,)).fit(weights, rising).exponents[0] == 0
    held = np.column_stack([np.full(12, 0.25), 0.75 * swarm(1, 12, 3)])
    law = OwnShareLaw((0,)).fit(held, truth(weights)[:, :1])
    assert law.exponents[0] == 0
    assert np.isfinite(law.predict(np.eye(4))[0]).all()


def test_the_deviation_is_that_of_fits_to_measurements_made_again() -> None:
    weights, unseen = swarm(0, 30, 4), swarm(5, 10, 4)
    generator = np.random.default_rng(2)
    fits = [
        OwnShareLaw(DOMAINS).fit(weights, truth(weights) * np.exp(0.02 * generator.standard_normal((30, 3))))
        for _ in range(200)
    ]
    means, deviations = (np.stack(part) for part in zip(*(fit.predict(unseen) for fit in fits), strict=True))
    np.testing.assert_allclose(deviations.mean(0), means.std(0), rtol=0.25)


def test_what_cannot_be_fitted_is_refused() -> None:
    weights = swarm(0, 12, 4)
    with pytest.raises(TooFewRuns):
        OwnShareLaw(DOMAINS).fit(weights[:2], truth(weights)[:2])
    metrics = truth(weights)
    metrics[3, 1] = 0.0
    with pytest.raises(InvalidMetrics):
        OwnShareLaw(DOMAINS).fit(weights, metrics)
