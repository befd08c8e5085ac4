import itertools
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.sample import Sampler, contains, d_optimal_design, maximin_design
from mixing.domains import Domains
from mixing.errors import TooFewRuns
from mixing.swarm.design import candidate_pool, d_optimal, log_features, log_weights, maximin
from mixing.swarm.space import SwarmSpace

RIDGE = 1e-9


def lattice(domains: int, parts: int) -> np.ndarray:
    points = [p for p in itertools.product(range(parts + 1), repeat=domains) if sum(p) == parts]
    return np.array(points) / parts


def determinant(rows: np.ndarray) -> float:
    return float(np.linalg.slogdet(rows.T @ rows)[1])


def best_rows(rows: np.ndarray, runs: int, ridge: float = RIDGE) -> np.ndarray:
    return d_optimal(rows, runs, rows[:0], ridge)


def test_the_best_design_for_a_linear_law_is_the_vertices() -> None:
    """Scheffe's linear model on the simplex: equally many runs at every vertex (Kiefer, 1961)."""
    pool = lattice(4, 6)
    chosen = pool[best_rows(pool, 4)]
    assert {tuple(row) for row in chosen} == {tuple(row) for row in np.eye(4)}
    twice = np.concatenate([pool, np.eye(4)])
    assert (twice[best_rows(twice, 8)].max(1) == 1).all()


def test_under_caps_the_best_design_is_the_corners_of_what_is_left() -> None:
    """Caps of one half on three domains leave the triangle between (1/2, 1/2, 0) and its permutations."""
    space = SwarmSpace.of(Domains.of({"a": 1.0, "b": 2.0, "c": 3.0}), np.full(3, 0.5))
    pool = candidate_pool(space, 2048, np.random.default_rng(0))
    found = pool[best_rows(pool, 3)]
    assert {tuple(row) for row in found} == {(0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)}


@pytest.mark.parametrize("features", [np.array, np.sqrt, log_weights, log_features])
def test_exchange_comes_within_a_hundredth_of_the_best_of_all_subsets(
    features: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Of the determinant; an exchange of one row at a time can stop short of the very best."""
    rows = features(np.random.default_rng(3).dirichlet(np.ones(3), size=11))
    best = max(determinant(rows[list(chosen)]) for chosen in itertools.combinations(range(len(rows)), 5))
    assert determinant(rows[best_rows(rows, 5)]) >= best - 0.01


def test_a_chosen_swarm_tells_more_than_any_of_many_random_ones() -> None:
    generator = np.random.default_rng(0)
    rows = log_features(generator.dirichlet(np.full(8, 0.5), size=400))
    chosen = determinant(rows[best_rows(rows, 30, ridge=1e-3)])
    others = [determinant(rows[generator.choice(400, size=30, replace=False)]) for _ in range(300)]
    assert chosen > max(others) + 2


def test_runs_trained_already_are_complemented() -> None:
    """With three of four vertices trained, the one run to add is the fourth, by either criterion."""
    pool = lattice(4, 4)
    trained = np.eye(4)[:3]
    for (row,) in (d_optimal(pool, 1, trained, RIDGE), maximin(pool, 1, trained)):
        assert pool[row].tolist() == [0, 0, 0, 1]


def test_maximin_keeps_runs_as_far_apart_as_any_subset_could_be() -> None:
    """At least half the best smallest distance (Gonzalez, 1985); here brute force knows the best."""
    pool = np.random.default_rng(1).dirichlet(np.ones(3), size=14)

    def least(rows: np.ndarray) -> float:
        apart = np.sqrt(((pool[rows][:, None] - pool[rows][None]) ** 2).sum(2))
        return float(apart[np.triu_indices(len(rows), 1)].min())

    best = max(least(np.array(rows)) for rows in itertools.combinations(range(14), 4))
    found = least(maximin(pool, 4, pool[:0]))
    assert found >= best / 2
    random = [least(np.random.default_rng(seed).choice(14, 4, replace=False)) for seed in range(100)]
    assert found >= np.quantile(random, 0.95)


@pytest.mark.parametrize("design", [d_optimal_design, maximin_design])
def test_a_design_lies_in_its_space_and_is_the_same_again(design: Sampler) -> None:
    domains = Domains.of({"a:x": 3e6, "a:y": 1e6, "b": 2e6, "c": 5e5, "d": 4e6})
    space = SwarmSpace.of(
        domains, domains.natural_weights * 1.5, np.full(5, 0.02), {"b": 0.21}, nonzero=["c"]
    )
    weights = design(space, 20, np.random.default_rng(0))
    assert contains(space, weights).all()
    assert len(np.unique(weights, axis=0)) == 20
    assert np.array_equal(weights, design(space, 20, np.random.default_rng(0)))


def test_what_cannot_be_designed_is_refused() -> None:
    for choose in (d_optimal, maximin):
        with pytest.raises(TooFewRuns):
            choose(np.eye(3), 4, np.empty((0, 3)))


def test_runs_that_leave_features_open_are_complemented_where_nothing_is_assumed_of_these() -> None:
    """Without a ridge the information of two runs at one vertex is singular; the other vertices are what it lacks."""
    pool = lattice(4, 6)
    there = np.tile(np.eye(4)[:1], (2, 1))
    chosen = pool[d_optimal(pool, 3, there, ridge=0.0)]
    assert {tuple(row) for row in chosen} == {tuple(row) for row in np.eye(4)[1:]}
    alone = pool[d_optimal(pool, 4, pool[:0], ridge=0.0)]
    assert {tuple(row) for row in alone} == {tuple(row) for row in np.eye(4)}
