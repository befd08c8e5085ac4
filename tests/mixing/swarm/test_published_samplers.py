"""RegMix's tempered Dirichlet, Data Mixing Laws' grid and AutoScale's perturbations; what all samplers keep."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sample import contains, d_optimal_design, maximin_design, pool_of
from mixing.domains import Domains
from mixing.errors import InvalidWeights
from mixing.swarm import acquisition, grid
from mixing.swarm.dirichlet import rounded_to, sample_tempered, tempered_draws
from mixing.swarm.filling import effective_runs
from mixing.swarm.grid import Grid
from mixing.swarm.samplers import perturbed_runs
from mixing.swarm.space import SwarmSpace

POOL = Domains.of({"books": 1e6, "code": 4e6, "web": 9e6, "wiki": 2e6})
Sampler = Callable[[SwarmSpace, int, np.random.Generator], np.ndarray]


def test_the_tempered_prior_is_the_square_root_of_the_natural_distribution() -> None:
    """Square roots of 1, 4, 9, 2 are 1, 2, 3, 1.414. Dirichlet(s a) has variance a (1 - a) / (s + 1)."""
    prior = np.array([1, 2, 3, math.sqrt(2)]) / (6 + math.sqrt(2))
    weights = tempered_draws(SwarmSpace.of(POOL), 20_000, np.random.default_rng(0), (5.0,), quantum=1e-9)
    np.testing.assert_allclose(weights.mean(0), prior, atol=0.01)
    np.testing.assert_allclose(weights.var(0), prior * (1 - prior) / 6, rtol=0.05)


def test_tempered_weights_are_multiples_of_the_quantum_and_under_fifteen_times_natural() -> None:
    domains = Domains.of({"big": 1e9, "middle": 1e8, "small": 1e7})
    weights = sample_tempered(SwarmSpace.of(domains), 300, np.random.default_rng(0))
    units = weights / 2e-4
    np.testing.assert_allclose(units, np.round(units), atol=1e-6)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    assert (weights <= 15 * domains.natural_weights + 1e-12).all()
    assert weights[:, 2].max() > 10 * domains.natural_weights[2], "and the bound is used"


def test_caps_that_clash_with_fifteen_times_natural_widen_it() -> None:
    domains = Domains.of({"big": 1e9, "small": 1e5})
    space = SwarmSpace.of(domains, np.array([0.9, 1.0]))
    weights = sample_tempered(space, 20, np.random.default_rng(0))
    assert contains(space, weights).all()


def test_rounding_is_by_largest_remainder_and_leaves_pins_alone() -> None:
    """Thirds in tenths: 0.4 0.3 0.3 by largest remainder; a pin of 1/7 is no tenth and stays."""
    trio = Domains.of({"a": 1.0, "b": 1.0, "c": 1.0})
    at_cap = rounded_to(SwarmSpace.of(trio, np.array([0.3, 1, 1])), np.array([[0.3, 0.36, 0.34]]), 0.1)
    np.testing.assert_allclose(at_cap, [[0.3, 0.4, 0.3]])
    assert at_cap[0, 0] <= 0.3, "three tenths are a bit more than 0.3 in floating point"
    rounded = rounded_to(SwarmSpace.of(trio), np.array([[0.38, 0.335, 0.285]]), 0.1)
    np.testing.assert_allclose(rounded, [[0.4, 0.3, 0.3]])
    pinned = SwarmSpace.of(trio, pins={"b": 1 / 7})
    weights = sample_tempered(pinned, 30, np.random.default_rng(0), quantum=0.01)
    assert (weights[:, 1] == 1 / 7).all()
    assert contains(pinned, weights).all()
    on_grid = np.abs(weights[:, [0, 2]] * 100 - np.round(weights[:, [0, 2]] * 100)) < 1e-6
    assert (on_grid.sum(1) >= 1).all(), "one domain takes what 6/7 leaves beside hundredths"


def brute_force_grid(caps: np.ndarray, delta: float) -> set[tuple[float, ...]]:
    """Every combination, in the published order: falling caps, the last domain taking the rest."""
    order = sorted(range(len(caps)), key=lambda column: -caps[column])
    candidates = [
        {math.floor(caps[column] / 2**s / delta + 1e-9) * delta for s in range(20)} | {0.0}
        for column in order[:-1]
    ]
    points = set()
    for taken in itertools.product(*candidates):
        rest = 1 - sum(taken)
        if -1e-12 <= rest <= caps[order[-1]] + 1e-12:
            point = np.zeros(len(caps))
            point[order] = [*taken, max(rest, 0.0)]
            points.add(tuple(np.round(point, 9).tolist()))
    return points


@pytest.mark.parametrize("caps", [[1.0, 1.0, 1.0], [0.9, 0.5, 0.3, 0.2], [0.7, 0.33, 0.33, 0.1], [0.55, 0.5]])
def test_the_grid_is_the_one_that_trying_everything_finds(caps: list[float]) -> None:
    space = SwarmSpace.of(Domains.of({f"d{index}": 1.0 for index in range(len(caps))}), np.array(caps))
    listed = Grid.of(space, 1 / 16)
    points = {tuple(np.round(point, 9).tolist()) for point in listed.points()}
    expected = brute_force_grid(np.array(caps), 1 / 16)
    assert points == expected
    assert listed.size == pytest.approx(len(expected))
    drawn = listed.draw(200 * len(expected), np.random.default_rng(0))
    rows, counts = np.unique(np.round(drawn, 9), axis=0, return_counts=True)
    assert {tuple(row.tolist()) for row in rows} == expected
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200), "every point as often"


def test_the_swarm_is_of_grid_points_and_respects_pins_and_minima() -> None:
    space = SwarmSpace.of(POOL, pins={"web": 0.25}, minimum_weights=np.full(4, 0.05), nonzero=["code"])
    weights = grid.sample(space, 8, np.random.default_rng(0))
    assert contains(space, weights).all()
    assert (weights[:, 1] > 0).all()
    np.testing.assert_allclose(weights * 32, np.round(weights * 32), atol=1e-9)
    assert len(np.unique(weights, axis=0)) == 8


@pytest.mark.parametrize("room", [1.02, 1.3])
def test_a_grid_over_many_domains_under_tight_caps_still_answers(room: float) -> None:
    domains = Domains.of({f"d{index:03}": float(10 + index) for index in range(120)})
    space = SwarmSpace.of(domains, domains.natural_weights * room)
    weights = grid.sample(space, 40, np.random.default_rng(0))
    assert contains(space, weights).all()
    assert len(np.unique(weights, axis=0)) == 40


@given(st.integers(0, 10**6), st.integers(3, 60), st.sampled_from([1.1, 1.25, 2.0, 10.0, np.inf]))
@settings(max_examples=25)
def test_the_grid_varies_every_domain(seed: int, count: int, room: float) -> None:
    """In 3 m - 1 runs, as many as were published, of domains whose sizes lie orders of magnitude apart."""
    generator = np.random.default_rng(seed)
    sizes = np.exp(generator.normal(0, generator.uniform(0, 2.5), count))
    domains = Domains.of({f"d{index:02}": float(size) for index, size in enumerate(sizes)})
    space = SwarmSpace.of(domains, domains.natural_weights * room)
    weights = grid.sample(space, 3 * count - 1, generator)
    assert contains(space, weights).all()
    assert len(np.unique(weights, axis=0)) == 3 * count - 1
    moved = np.abs(weights - np.median(weights, axis=0)) > 1e-9
    assert (moved.sum(0) >= 2).all(), "one run alone would have to show an effect and be its own noise"


def test_domains_too_small_for_any_step_of_the_grid_are_varied_beside_it() -> None:
    """Of 1,000 domains those below a cap of 1 / 4,096 have no point but 0."""
    domains = pool_of(1000)
    space = SwarmSpace.of(domains, domains.natural_weights * 1.25)
    assert (space.upper < 1 / 4096).sum() > 300
    weights = grid.sample(space, 512, np.random.default_rng(1))
    assert contains(space, weights).all()
    assert (effective_runs(weights) > 1).all()


@pytest.mark.parametrize(
    "sampler", [sample_tempered, grid.sample, acquisition.first_batch, d_optimal_design, maximin_design]
)
def test_the_order_in_which_domains_are_given_plays_no_part(sampler: Sampler) -> None:
    tokens = dict(zip(POOL.names, POOL.tokens.tolist(), strict=True))
    caps = {"books": 0.2, "code": 0.5, "web": 0.6, "wiki": 0.3}

    def swarm(names: list[str]) -> np.ndarray:
        domains = Domains.of({name: tokens[name] for name in names})
        space = SwarmSpace.of(
            domains, np.array([caps[name] for name in domains.names]), pins={"wiki": 0.05}, nonzero=["books"]
        )
        weights = sampler(space, 15, np.random.default_rng(2))
        assert contains(space, weights).all()
        return weights

    assert np.array_equal(swarm(list(tokens)), swarm(list(reversed(tokens))))


def test_perturbed_runs_multiply_one_domains_tokens_and_leave_the_others() -> None:
    weights, totals, held = perturbed_runs(SwarmSpace.of(POOL), 16e6, np.random.default_rng(0))
    tokens = weights * totals[:, None]
    natural = np.array([1e6, 4e6, 9e6, 2e6])
    np.testing.assert_allclose(tokens[0], natural)
    for column in range(4):
        for row, factor in ((2 * column + 1, 3.0), (2 * column + 2, 1 / 3)):
            changed = natural * np.where(np.arange(4) == column, factor, 1.0)
            np.testing.assert_allclose(tokens[row], changed, rtol=1e-9)
    assert weights.shape == (9, 4)
    assert held == ()


def test_perturbations_stop_at_caps_and_say_what_they_could_not_vary() -> None:
    space = SwarmSpace.of(POOL, np.array([0.1, 0.3, 0.5625, 0.3]))
    weights, totals, held = perturbed_runs(space, 16e6, np.random.default_rng(0))
    assert contains(space, weights).all()
    assert weights[1, 0] == pytest.approx(0.1), "books: as far as its cap"
    assert set(held) == set(POOL.names)
    web = POOL.names.index("web")
    tokens = weights[:, web] * totals
    assert tokens[2 * web + 1] / tokens[0] == pytest.approx(1)
    # It falls until code, at 0.25, reaches its cap of 0.3: the total to 5/6, so web by (1/6) / 0.5625.
    assert tokens[2 * web + 2] / tokens[0] == pytest.approx(1 - (1 / 6) / 0.5625)


def test_perturbations_keep_a_pin() -> None:
    space = SwarmSpace.of(POOL, pins={"code": 0.3})
    weights, totals, _ = perturbed_runs(space, 1e6, np.random.default_rng(0))
    assert (weights[:, 1] == 0.3).all()
    assert len(weights) == 7
    assert contains(space, weights).all()
    free = np.delete(weights * totals[:, None], 1, axis=1)
    np.testing.assert_allclose(free[1] / free[0], [3, 1, 1], rtol=1e-9)


def test_a_domain_that_its_least_weight_leaves_out_cannot_be_perturbed() -> None:
    space = SwarmSpace.of(POOL, minimum_weights=np.array([0.0, 0.0, 0.0, 0.2]))
    with pytest.raises(InvalidWeights, match="wiki") as caught:
        perturbed_runs(space, 1.0, np.random.default_rng(0))
    assert caught.value.names == ("wiki",)
