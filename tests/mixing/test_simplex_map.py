import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.errors import DuplicateDomain, InvalidWeights, MissingDomain, UnknownDomain
from mixing.simplex_map import SimplexMap

seeds = st.integers(0, 2**32 - 1)


def random_map(generator: np.random.Generator, leaves: int, free: int, prefix: str = "") -> SimplexMap:
    matrix = generator.dirichlet(np.ones(leaves), size=free).T
    names = tuple(f"{prefix}leaf{index}" for index in range(leaves))
    return SimplexMap(names, tuple(f"free{index}" for index in range(free)), matrix)


@given(seeds)
def test_composition_is_associative_and_stays_column_stochastic(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a = SimplexMap(("l0", "l1", "l2"), ("m0", "m1", "m2", "m3"), generator.dirichlet(np.ones(3), 4).T)
    b = SimplexMap(("m0", "m1", "m2", "m3"), ("n0", "n1"), generator.dirichlet(np.ones(4), 2).T)
    c = SimplexMap(("n0", "n1"), ("o0", "o1", "o2"), generator.dirichlet(np.ones(2), 3).T)
    left, right = (a @ b) @ c, a @ (b @ c)
    np.testing.assert_allclose(left.matrix, right.matrix, atol=1e-15)
    np.testing.assert_allclose(left.matrix.sum(0), 1, atol=1e-12)
    q = generator.dirichlet(np.ones(3))
    np.testing.assert_allclose(left.expand(q), a.expand(b.expand(c.expand(q))), atol=1e-15)


@given(seeds)
def test_frozen_ratios_survive_expansion_and_the_cap_is_that_of_the_first_to_run_out(seed: int) -> None:
    generator = np.random.default_rng(seed)
    leaves = ("a", "b", "c", "d", "e")
    ratios = dict(zip("bcd", generator.dirichlet(np.ones(3)) + 0.01, strict=True))
    frozen = SimplexMap.freeze(leaves, {"virtual": ratios})
    assert set(frozen.free) == {"a", "e", "virtual"}
    q = generator.dirichlet(np.ones(3))
    p = frozen.expand(q)
    inside = p[1:4] / p[1:4].sum()
    np.testing.assert_allclose(
        inside, np.array([ratios[n] for n in "bcd"]) / sum(ratios.values()), atol=1e-12
    )
    caps = generator.uniform(0.05, 0.6, 5)
    virtual_cap = frozen.pull_back_caps(caps)[0][frozen.free.index("virtual")]
    assert virtual_cap == pytest.approx(min(caps[1:4] / inside))
    at_cap = np.zeros(3)
    at_cap[frozen.free.index("virtual")] = virtual_cap
    expanded = frozen.expand(at_cap)
    assert (expanded <= caps + 1e-12).all()
    assert np.isclose(expanded, caps).any()


def test_composition_joins_by_name_not_by_position() -> None:
    outer = SimplexMap(("x", "y"), ("a", "b"), np.array([[1.0, 0.0], [0.0, 1.0]]))
    inner = SimplexMap(("b", "a"), ("q",), np.array([[0.3], [0.7]]))
    np.testing.assert_allclose((outer @ inner).matrix[:, 0], [0.7, 0.3])


def test_maps_that_do_not_meet_are_refused_by_name() -> None:
    outer = SimplexMap.identity(("a", "b"))
    with pytest.raises(UnknownDomain, match="c"):
        outer @ SimplexMap(("a", "b", "c"), ("q",), np.full((3, 1), 1 / 3))
    with pytest.raises(MissingDomain, match="b"):
        outer @ SimplexMap(("a",), ("q",), np.ones((1, 1)))


def test_a_column_that_is_no_distribution_is_named() -> None:
    with pytest.raises(InvalidWeights, match="q1"):
        SimplexMap(("a", "b"), ("q0", "q1"), np.array([[1.0, 0.6], [0.0, 0.6]]))
    with pytest.raises(DuplicateDomain, match="b"):
        SimplexMap.freeze(("a", "b", "c"), {"v": {"a": 1, "b": 1}, "w": {"b": 1, "c": 1}})


@given(seeds)
def test_what_keeps_the_frozen_ratios_comes_back_from_its_virtual_domains_unchanged(seed: int) -> None:
    generator = np.random.default_rng(seed)
    leaves = ("a", "b", "c", "d", "e", "f")
    groups = {
        name: dict(zip(members, generator.dirichlet(np.ones(len(members))) + 0.01, strict=True))
        for name, members in (("first", "bcd"), ("second", "ef"))
    }
    way = SimplexMap.freeze(leaves, groups)
    collapse = (way.matrix > 0).astype(float)
    q = generator.dirichlet(np.ones(3))
    p = way.expand(q)
    np.testing.assert_allclose(p @ collapse, q, atol=1e-15)
    np.testing.assert_allclose(way.expand(p @ collapse), p, atol=1e-15)
