import itertools

import numpy as np
import pytest

from mixing.domains import Domains
from mixing.errors import InvalidSetting, TooFewRuns
from mixing.swarm.design import Design, choose, design, information
from mixing.swarm.space import SwarmSpace

LINEAR = Design(features="linear", ridge=1e-9)


def lattice(domains: int, parts: int) -> np.ndarray:
    points = [p for p in itertools.product(range(parts + 1), repeat=domains) if sum(p) == parts]
    return np.array(points) / parts


def determinant(weights: np.ndarray, settings: Design) -> float:
    return float(np.linalg.slogdet(information(weights, settings))[1])


def test_the_best_design_for_a_linear_law_is_the_vertices() -> None:
    """Scheffe's linear model on the simplex: equally many runs at every vertex (Kiefer, 1961)."""
    pool = lattice(4, 6)
    chosen = pool[choose(pool, 4, LINEAR)]
    assert {tuple(row) for row in chosen} == {tuple(row) for row in np.eye(4)}
    twice = np.concatenate([pool, np.eye(4)])
    assert (twice[choose(twice, 8, LINEAR)].max(1) == 1).all()


def test_under_caps_the_best_design_is_the_corners_of_what_is_left() -> None:
    """Caps of one half on three domains leave the triangle between (1/2, 1/2, 0) and its permutations."""
    space = SwarmSpace.of(Domains.of({"a": 1.0, "b": 2.0, "c": 3.0}), np.full(3, 0.5))
    found = design(space, 3, np.random.default_rng(0), LINEAR)
    assert {tuple(row) for row in found} == {(0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)}


@pytest.mark.parametrize("features", ["linear", "sqrt", "log"])
def test_exchange_comes_within_a_hundredth_of_the_best_of_all_subsets(features: str) -> None:
    """Of the determinant; an exchange of one row at a time can stop short of the very best."""
    generator = np.random.default_rng(3)
    pool = generator.dirichlet(np.ones(3), size=11)
    settings = Design(features=features, ridge=1e-9)
    best = max(
        determinant(pool[list(rows)], settings) for rows in itertools.combinations(range(len(pool)), 5)
    )
    assert determinant(pool[choose(pool, 5, settings)], settings) >= best - 0.01


def test_a_chosen_swarm_tells_more_than_any_of_many_random_ones() -> None:
    generator = np.random.default_rng(0)
    pool = generator.dirichlet(np.full(8, 0.5), size=400)
    settings = Design()
    chosen = determinant(pool[choose(pool, 30, settings)], settings)
    others = [determinant(pool[generator.choice(400, size=30, replace=False)], settings) for _ in range(300)]
    assert chosen > max(others) + 2


def test_runs_trained_already_are_complemented() -> None:
    """With three of four vertices trained, the one run to add is the fourth, by either criterion."""
    pool = lattice(4, 4)
    for criterion in ("d-optimal", "maximin"):
        settings = Design(criterion, "linear", ridge=1e-9)
        (row,) = choose(pool, 1, settings, existing=np.eye(4)[:3])
        assert pool[row].tolist() == [0, 0, 0, 1]


def test_maximin_keeps_runs_as_far_apart_as_any_subset_could_be() -> None:
    """At least half the best smallest distance (Gonzalez, 1985); here brute force knows the best."""
    pool = np.random.default_rng(1).dirichlet(np.ones(3), size=14)
    settings = Design("maximin", "linear")

    def least(rows: np.ndarray) -> float:
        apart = np.sqrt(((pool[rows][:, None] - pool[rows][None]) ** 2).sum(2))
        return float(apart[np.triu_indices(len(rows), 1)].min())

    best = max(least(np.array(rows)) for rows in itertools.combinations(range(14), 4))
    found = least(choose(pool, 4, settings))
    assert found >= best / 2
    random = [least(np.random.default_rng(seed).choice(14, 4, replace=False)) for seed in range(100)]
    assert found >= np.quantile(random, 0.95)


@pytest.mark.parametrize("criterion", ["d-optimal", "maximin"])
def test_a_design_lies_in_its_space_and_is_the_same_again(criterion: str) -> None:
    domains = Domains.of({"a:x": 3e6, "a:y": 1e6, "b": 2e6, "c": 5e5, "d": 4e6})
    space = SwarmSpace.of(
        domains, domains.natural_weights * 1.5, np.full(5, 0.02), {"b": 0.21}, nonzero=["c"]
    )
    weights = design(space, 20, np.random.default_rng(0), Design(criterion))
    assert space.contains(weights).all()
    assert len(np.unique(weights, axis=0)) == 20
    assert np.array_equal(weights, design(space, 20, np.random.default_rng(0), Design(criterion)))


def test_what_cannot_be_designed_is_refused() -> None:
    with pytest.raises(TooFewRuns):
        choose(np.eye(3), 4)
    with pytest.raises(InvalidSetting, match="criterion"):
        Design("a-optimal")
    with pytest.raises(InvalidSetting, match="features"):
        Design(features="cubic")
    with pytest.raises(InvalidSetting, match="ridge"):
        Design(ridge=0.0)
