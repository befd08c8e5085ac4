"""Acquisition functions and CLIMB's rounds."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from benchmarks.sample import contains
from mixing.domains import Domains
from mixing.errors import Infeasible, TooFewRuns
from mixing.swarm.acquisition import (
    Predict,
    Prospects,
    choose_batch,
    first_batch,
    max_value_entropy,
    next_batch,
    sample_minima,
)
from mixing.swarm.space import SwarmSpace

DOMAINS = Domains.of({"a": 4e6, "b": 3e6, "c": 2e6, "d": 1e6})
TARGET = np.array([0.1, 0.2, 0.3, 0.4])


def bowl(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return ((weights - TARGET) ** 2).sum(1), np.full(len(weights), 0.05)


def process(mixtures: np.ndarray, values: np.ndarray) -> Predict:
    """A Gaussian process with a squared-exponential kernel of length 0.2 and unit variance, by its formula."""

    def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.exp(-((first[:, None] - second[None]) ** 2).sum(2) / (2 * 0.2**2))

    inverse = np.linalg.inv(kernel(mixtures, mixtures) + 1e-6 * np.eye(len(mixtures)))

    def predict(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cross = kernel(weights, mixtures)
        variance = 1 - np.einsum("nk,kl,nl->n", cross, inverse, cross)
        return cross @ inverse @ values, np.sqrt(np.maximum(variance, 1e-12))

    return predict


def test_minima_are_distributed_as_the_smallest_of_the_draws() -> None:
    generator = np.random.default_rng(0)
    mean, std = generator.standard_normal(30), generator.random(30) + 0.1
    found = np.quantile(sample_minima(mean, std, 5_000, generator), [0.1, 0.5, 0.9])
    drawn = (mean + std * generator.standard_normal((5_000, 30))).min(1)
    np.testing.assert_allclose(found, np.quantile(drawn, [0.1, 0.5, 0.9]), atol=0.05)


def test_max_value_entropy_is_bounded_by_the_entropy_a_known_minimum_removes() -> None:
    """H(N(0, 1)) - H(N(0, 1) above the minimum), the latter integrated numerically; a normal distribution of the same
    variance has more entropy."""
    for minimum in (-2.0, 0.0, 0.7):
        grid = np.linspace(minimum, minimum + 14, 400_001)
        density = np.exp(-(grid**2) / 2)
        density /= trapezoid(density, grid)
        truncated = -trapezoid(density * np.log(np.maximum(density, 1e-300)), grid)
        removed = 0.5 * np.log(2 * np.pi * np.e) - truncated
        variance = trapezoid(density * grid**2, grid) - trapezoid(density * grid, grid) ** 2
        bound = max_value_entropy(np.zeros(1), np.ones(1), np.array([minimum]), np.ones(1))
        assert bound[0] == pytest.approx(-0.5 * np.log(variance), abs=1e-5)
        assert bound[0] <= removed


def test_what_is_measured_without_correlation_tells_nothing() -> None:
    gains = max_value_entropy(np.zeros(3), np.ones(3), np.array([-1.0]), np.array([0.0, 0.5, 1.0]))
    assert gains[0] == 0
    assert gains[0] < gains[1] < gains[2]


def prospects_of(
    weights: np.ndarray, costs: np.ndarray | None = None, correlations: np.ndarray | None = None
) -> Prospects:
    ones = np.ones(len(weights))
    return Prospects(
        weights, ones if costs is None else costs, ones if correlations is None else correlations
    )


def test_a_batch_goes_where_it_is_best_and_does_not_repeat_itself() -> None:
    generator = np.random.default_rng(0)
    mixtures = generator.dirichlet(np.ones(4), size=12)
    values = bowl(mixtures)[0]
    candidates = generator.dirichlet(np.ones(4), size=300)
    candidates = np.concatenate([candidates, candidates])
    predict, generator = process(mixtures, values), np.random.default_rng(1)
    chosen = choose_batch(predict, float(values.min()), prospects_of(candidates), 4, generator)
    picked = candidates[chosen]
    apart = np.abs(picked[:, None] - picked[None]).sum(2) + 9 * np.eye(4)
    assert apart.min() > 0.02, "every candidate is there twice, and is not taken twice"


def test_the_cheaper_of_two_equal_runs_is_taken_unless_it_tells_too_little() -> None:
    twice, costs = np.tile(TARGET, (2, 1)), np.array([4.0, 1.0])
    generator = np.random.default_rng(0)
    assert choose_batch(bowl, 0.1, prospects_of(twice, costs), 1, generator).tolist() == [1]
    proxies = prospects_of(twice, costs, correlations=np.array([1.0, 0.1]))
    chosen = choose_batch(bowl, 0.1, proxies, 1, generator)
    assert chosen.tolist() == [0], "a quarter of the cost is not worth a hundredth of the information"


def test_the_rounds_climb_towards_the_best_mixture_within_the_caps() -> None:
    space = SwarmSpace.of(DOMAINS, np.array([0.5, 0.5, 0.5, 0.35]), pins={"b": 0.2})
    generator = np.random.default_rng(0)
    existing = first_batch(space, 32, generator)
    distance = [np.median(bowl(existing)[0])]
    for runs in (16, 8):
        batch = next_batch(bowl, existing, space, runs, generator)
        assert contains(space, batch).all()
        assert (batch[:, 1] == 0.2).all()
        together = np.concatenate([existing, batch])
        assert len(np.unique(np.round(together, 7), axis=0)) == len(together)
        distance.append(np.median(bowl(batch)[0]))
        existing = together
    assert distance[2] < distance[1] < distance[0] / 4


def test_a_round_is_the_same_again_and_without_room_says_so() -> None:
    space = SwarmSpace.of(DOMAINS)
    existing = first_batch(space, 10, np.random.default_rng(0))
    first, again = (next_batch(bowl, existing, space, 5, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    pinned = SwarmSpace.of(DOMAINS, pins=dict(zip(DOMAINS.names, TARGET.tolist(), strict=True)))
    with pytest.raises(Infeasible, match="not trained yet"):
        next_batch(bowl, TARGET[None], pinned, 1, np.random.default_rng(0))


def test_a_batch_needs_as_many_prospects() -> None:
    with pytest.raises(TooFewRuns):
        choose_batch(bowl, 0.0, prospects_of(TARGET[None]), 2, np.random.default_rng(0))
