import numpy as np
import pytest
from scipy.special import digamma

from benchmarks.sample import unvaried
from mixing.domains import Domains
from mixing.errors import InvalidSetting
from mixing.swarm import dirichlet
from mixing.swarm.dirichlet import DEFAULT_STRENGTHS, LEAST_PRESENCE, dirichlet_rows, log_gamma_variates
from mixing.swarm.filling import fill
from mixing.swarm.space import SwarmSpace

POOL = Domains.of({"books": 1e6, "code": 3e6, "web:forums": 2e6, "web:news": 4e6})


def as_drawn(
    space: SwarmSpace,
    runs: int,
    strengths: tuple[float, ...] = DEFAULT_STRENGTHS,
    minimum_weight: float = 0.0,
) -> np.ndarray:
    """A two-level swarm in which nothing is done for domains that hardly vary."""
    generator = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        return dirichlet.two_level_draws(
            space.domains.names, space.prior, count, generator, strengths, minimum_weight
        )

    return fill(space, runs, draw, generator, presence=0)


def test_the_moments_are_those_of_the_two_level_dirichlet() -> None:
    """With one strength s at both levels and shares x (source) and y (topic within it), independent:
    E[x y] = E[x] E[y] and E[(x y)^2] = E[x^2] E[y^2], E[x^2] = a (a s + 1) / (s + 1) for a mean of a."""
    strength, runs = 2.0, 40_000
    weights = as_drawn(SwarmSpace.of(POOL), runs, (strength,))

    def second(mean: float) -> float:
        return mean * (mean * strength + 1) / (strength + 1)

    means = np.array([0.1, 0.3, 0.2, 0.4])
    seconds = np.array([second(0.1), second(0.3), second(0.6) * second(1 / 3), second(0.6) * second(2 / 3)])
    np.testing.assert_allclose(weights.mean(0), means, atol=4 * np.sqrt(seconds / runs).max())
    np.testing.assert_allclose((weights**2).mean(0), seconds, atol=4 * np.sqrt(seconds / runs).max())


def test_pinned_mass_leaves_the_shares_of_the_rest_as_they_were() -> None:
    space = SwarmSpace.of(POOL, pins={"web:news": 0.25})
    weights = as_drawn(space, 20_000, (3.0,))
    np.testing.assert_allclose(weights.mean(0), np.array([1, 3, 2, 2]) / 8, atol=0.01)


def test_redrawing_above_a_loose_cap_keeps_the_conditional_distribution() -> None:
    """Held against numpy's own Dirichlet, draws above the cap thrown away."""
    flat = Domains.of({"a": 1.0, "b": 1.0, "c": 2.0})
    caps = np.array([0.6, 0.6, 0.8])
    weights = as_drawn(SwarmSpace.of(flat, caps), 20_000, (4.0,))
    reference = np.random.default_rng(1).dirichlet([1, 1, 2], size=60_000)
    reference = reference[(reference <= caps).all(1)]
    np.testing.assert_allclose(weights.mean(0), reference.mean(0), atol=0.01)
    np.testing.assert_allclose(weights.std(0), reference.std(0), atol=0.01)


def test_shapes_too_small_for_floating_point_still_give_a_distribution() -> None:
    """A gamma of shape 1e-7 underflows to 0 in 999 of 1,000 draws; numpy's dirichlet would give rows of NaN."""
    rows = dirichlet_rows(np.full((2000, 50), 1e-7), np.random.default_rng(0))
    np.testing.assert_allclose(rows.sum(1), 1)
    # So small a shape picks one domain, each as often: 40 times with a standard deviation of 6.3.
    np.testing.assert_allclose(rows.max(1), 1)
    assert np.abs(np.bincount(rows.argmax(1), minlength=50) - 40).max() < 5 * 6.3


@pytest.mark.parametrize("shape", [0.01, 0.5, 3.0])
def test_log_gamma_variates_have_the_mean_of_the_logarithm(shape: float) -> None:
    """E[log G(a)] = digamma(a); its variance trigamma(a) is about 1 / a^2 for small a."""
    drawn = log_gamma_variates(np.full(100_000, shape), np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(digamma(shape), abs=4 * (1 + 1 / shape) / np.sqrt(100_000))


def test_weights_below_the_smallest_are_zero_and_rare_domains_still_vary() -> None:
    rare = Domains.of({"web": 1e9, "tiny": 1e3, "code": 1e8})
    weights = dirichlet.sample(SwarmSpace.of(rare), 60, np.random.default_rng(0))
    assert ((weights == 0) | (weights >= 0.0019)).all()
    assert ((weights > 0).sum(0) >= 10).all(), "a sixth of 60 runs"


def test_a_domain_that_cannot_vary_leaves_the_swarm_as_drawn() -> None:
    """A minimum weight equal to the cap fixes books; the others are drawn as if nothing were to be covered."""
    bounds = np.array([0.1, np.inf, np.inf, np.inf]), np.array([0.1, 0.0, 0.0, 0.0])
    space = SwarmSpace.of(POOL, *bounds, nonzero=["books"])
    covered = dirichlet.sample(space, 40, np.random.default_rng(0))
    assert np.array_equal(as_drawn(space, 40, minimum_weight=LEAST_PRESENCE), covered)
    assert unvaried(covered, POOL.names) == ("books",)


def test_the_order_in_which_domains_are_given_plays_no_part() -> None:
    tokens = {"b:x": 3e5, "a": 1e6, "b:y": 2e6, "c": 5e4}
    caps = {"a": 0.5, "b:x": 0.3, "b:y": 0.4, "c": 0.2}

    def swarm(names: list[str]) -> np.ndarray:
        domains = Domains.of({name: tokens[name] for name in names})
        space = SwarmSpace.of(domains, np.array([caps[name] for name in domains.names]))
        return dirichlet.sample(space, 20, np.random.default_rng(5))

    assert np.array_equal(swarm(list(tokens)), swarm(list(reversed(tokens))))


def test_the_scale_of_token_counts_cancels() -> None:
    def swarm(scale: float) -> np.ndarray:
        domains = Domains.of({"a": 3 * scale, "b:x": 5 * scale, "b:y": scale})
        return dirichlet.sample(SwarmSpace.of(domains), 20, np.random.default_rng(5))

    np.testing.assert_allclose(swarm(1.0), swarm(2.0**40), rtol=1e-9)


def test_a_swarm_has_runs() -> None:
    with pytest.raises(InvalidSetting, match="runs"):
        dirichlet.sample(SwarmSpace.of(POOL), 0, np.random.default_rng(0))
