"""Acquisition functions and CLIMB's rounds."""

import numpy as np
import pytest
from scipy.integrate import trapezoid

from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting, TooFewRuns
from mixing.swarm.acquisition import (
    Acquisition,
    Predict,
    Prospects,
    Surrogate,
    choose_batch,
    log_expected_improvement,
    max_value_entropy,
    objective_of,
    sample_minima,
)
from mixing.swarm.climb import Climb, first_batch, next_batch
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


@pytest.mark.parametrize(("mean", "std", "best"), [(1.0, 0.5, 1.2), (1.0, 0.2, 0.8), (0.0, 1.0, -2.5)])
def test_expected_improvement_is_what_sampling_finds(mean: float, std: float, best: float) -> None:
    drawn = mean + std * np.random.default_rng(0).standard_normal(2_000_000)
    gains = np.maximum(best - drawn, 0)
    exact = np.exp(log_expected_improvement(np.array([mean]), np.array([std]), best))[0]
    assert exact == pytest.approx(gains.mean(), abs=4 * gains.std() / np.sqrt(len(gains)))


def test_expected_improvement_ranks_the_hopeless_too() -> None:
    """phi(z) - |z| Phi(-|z|) = phi(z) / z^2 (1 - 3 / z^2 + ...), far beyond where it underflows."""
    z = np.array([-20.0, -200.0, -2e4, -2e6])
    found = log_expected_improvement(-z, np.ones(4), 0.0)
    series = -(z**2) / 2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(-z) + np.log1p(-3 / z**2)
    np.testing.assert_allclose(found, series, rtol=1e-6)
    certain = log_expected_improvement(np.array([1.0]), np.array([0.0]), 3.0)
    assert np.exp(certain)[0] == pytest.approx(2)


def test_minima_are_distributed_as_the_smallest_of_the_draws() -> None:
    generator = np.random.default_rng(0)
    mean, std = generator.standard_normal(30), generator.random(30) + 0.1
    found = np.quantile(sample_minima(mean, std, 5_000, generator), [0.1, 0.5, 0.9])
    drawn = (mean + std * generator.standard_normal((5_000, 30))).min(1)
    np.testing.assert_allclose(found, np.quantile(drawn, [0.1, 0.5, 0.9]), atol=0.05)


def test_max_value_entropy_is_the_entropy_a_known_minimum_removes() -> None:
    """H(N(0, 1)) - H(N(0, 1) above the minimum), the latter integrated numerically."""
    for minimum in (-2.0, 0.0, 0.7):
        grid = np.linspace(minimum, minimum + 14, 400_001)
        density = np.exp(-(grid**2) / 2)
        density /= trapezoid(density, grid)
        truncated = -trapezoid(density * np.log(np.maximum(density, 1e-300)), grid)
        expected = 0.5 * np.log(2 * np.pi * np.e) - truncated
        found = max_value_entropy(np.zeros(1), np.ones(1), np.array([minimum]))
        assert found[0] == pytest.approx(expected, abs=1e-5)
        variance = trapezoid(density * grid**2, grid) - trapezoid(density * grid, grid) ** 2
        bound = max_value_entropy(np.zeros(1), np.ones(1), np.array([minimum]), correlation=1.0)
        assert bound[0] == pytest.approx(-0.5 * np.log(variance), abs=1e-5)
        assert bound[0] <= found[0]


def test_what_is_measured_without_correlation_tells_nothing() -> None:
    gains = max_value_entropy(np.zeros(3), np.ones(3), np.array([-1.0]), np.array([0.0, 0.5, 1.0]))
    assert gains[0] == 0
    assert gains[0] < gains[1] < gains[2]


@pytest.mark.parametrize("kind", ["expected improvement", "max-value entropy"])
@pytest.mark.parametrize("believing", [False, True])
def test_a_batch_goes_where_it_is_best_and_does_not_repeat_itself(kind: str, believing: bool) -> None:
    generator = np.random.default_rng(0)
    mixtures = generator.dirichlet(np.ones(4), size=12)
    values = bowl(mixtures)[0]
    predict = process(mixtures, values)

    def believe(known: np.ndarray) -> Predict:
        return process(np.concatenate([mixtures, known]), np.concatenate([values, predict(known)[0]]))

    candidates = generator.dirichlet(np.ones(4), size=300)
    candidates = np.concatenate([candidates, candidates])
    surrogate = Surrogate(predict, float(values.min()), believe if believing else None)
    chosen = choose_batch(surrogate, Prospects(candidates), 4, np.random.default_rng(1), Acquisition(kind))
    picked = candidates[chosen]
    apart = np.abs(picked[:, None] - picked[None]).sum(2) + 9 * np.eye(4)
    assert apart.min() > 0.02, "every candidate is there twice, and is not taken twice"


def test_pending_runs_are_not_proposed_again() -> None:
    candidates = np.random.default_rng(0).dirichlet(np.ones(4), size=200)
    surrogate, prospects = Surrogate(bowl, 0.05), Prospects(candidates)
    (alone,) = choose_batch(surrogate, prospects, 1, np.random.default_rng(0))
    pending = candidates[[alone]]
    (other,) = choose_batch(surrogate, prospects, 1, np.random.default_rng(0), pending=pending)
    assert other != alone


def test_the_cheaper_of_two_equal_runs_is_taken_unless_it_tells_too_little() -> None:
    twice, costs = np.tile(TARGET, (2, 1)), np.array([4.0, 1.0])
    generator = np.random.default_rng(0)
    assert choose_batch(Surrogate(bowl, 0.1), Prospects(twice, costs), 1, generator).tolist() == [1]
    proxies = Prospects(twice, costs, correlations=np.array([1.0, 0.1]))
    entropy = Acquisition("max-value entropy")
    chosen = choose_batch(Surrogate(bowl, 0.1), proxies, 1, generator, entropy)
    assert chosen.tolist() == [0], "a quarter of the cost is not worth a hundredth of the information"


def test_the_objective_of_a_fit_is_the_weighted_sum_of_its_tasks() -> None:
    class TwoTasks:
        def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return weights[:, :2], np.tile([0.1, 0.3], (len(weights), 1))

    mean, std = objective_of(TwoTasks(), np.array([0.25, 0.75]))(np.array([[0.2, 0.8]]))
    assert mean[0] == pytest.approx(0.65)
    assert std[0] == pytest.approx(0.25)


def test_the_rounds_climb_towards_the_best_mixture_within_the_caps() -> None:
    space = SwarmSpace.of(DOMAINS, np.array([0.5, 0.5, 0.5, 0.35]), pins={"b": 0.2})
    generator = np.random.default_rng(0)
    existing = first_batch(space, 32, generator)
    distance = [np.median(bowl(existing)[0])]
    for runs in (16, 8):
        batch = next_batch(bowl, existing, space, runs, generator)
        assert space.contains(batch).all()
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


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="kind"):
        Acquisition("knowledge gradient")
    with pytest.raises(InvalidSetting, match="best"):
        Climb(best=0.5)
    with pytest.raises(TooFewRuns):
        choose_batch(Surrogate(bowl, 0.0), Prospects(TARGET[None]), 2, np.random.default_rng(0))
    with pytest.raises(InvalidSetting, match="cost"):
        Prospects(TARGET[None], costs=np.zeros(1))
