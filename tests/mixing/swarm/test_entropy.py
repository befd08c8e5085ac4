import numpy as np
import pytest

from benchmarks.sample import contains
from mixing.domains import Domains
from mixing.errors import InvalidSetting, InvalidTokens, MissingDomain, UnknownDomain
from mixing.swarm.entropy import Entropies, entropies, entropy_weighted
from mixing.swarm.space import SwarmSpace

RANDOM = np.random.default_rng(0)


def every_pair_once(size: int) -> list[np.ndarray]:
    return [np.array([first, second]) for first in range(size) for second in range(size)]


def test_uniform_independent_tokens_have_the_entropy_of_the_vocabulary() -> None:
    found = entropies(every_pair_once(8), 8)
    assert found.shannon == pytest.approx(3)
    assert found.joint == pytest.approx(6)
    assert found.conditional == pytest.approx(3)
    # D + A = (I + J / 8) / 8: seven eigenvalues of 1 and one of 2, over 9.
    assert found.von_neumann == pytest.approx(np.log2(9) - 2 / 9)


def test_a_single_token_tells_nothing() -> None:
    assert entropies(np.full(100, 3), 5) == Entropies(0.0, 0.0, 0.0, 0.0)


def test_a_cycle_is_random_by_itself_and_certain_in_context() -> None:
    """Its rho has the eigenvalues (1 + cos(2 pi k / V)) / V of a ring."""
    size = 64
    found = entropies(np.tile(np.arange(size), 200)[:-63], size)
    ring = (1 + np.cos(2 * np.pi * np.arange(size) / size)) / size
    assert found.shannon == pytest.approx(6, abs=1e-3)
    assert found.conditional == pytest.approx(0, abs=1e-3)
    assert found.von_neumann == pytest.approx(
        -(ring[ring > 1e-15] * np.log2(ring[ring > 1e-15])).sum(), abs=1e-3
    )


def test_two_tokens_that_alternate_are_one_state() -> None:
    found = entropies(np.tile([0, 1], 500), 2)
    assert found.shannon == pytest.approx(1)
    assert found.von_neumann == pytest.approx(0, abs=1e-9)


def test_independent_tokens_have_twice_the_entropy_in_pairs() -> None:
    shares = np.array([0.5, 0.25, 0.125, 0.125])
    found = entropies(RANDOM.choice(4, size=400_000, p=shares), 4)
    assert found.shannon == pytest.approx(1.75, abs=0.01)
    assert found.joint == pytest.approx(2 * found.shannon, abs=0.001)
    assert found.conditional == pytest.approx(found.shannon, abs=0.001)


def test_a_markov_chain_has_its_entropy_rate() -> None:
    """Stay with 0.9: the conditional entropy is that of a coin of 0.9, 0.469 bits."""
    tokens = np.cumsum(RANDOM.random(200_000) < 0.1) % 2
    assert entropies(tokens, 2).conditional == pytest.approx(0.469, abs=0.01)


def test_pairs_do_not_span_shards_and_ids_play_no_part() -> None:
    shards = [np.array([0, 1, 1, 2]), np.array([2, 0])]
    found = entropies(shards, 3)
    assert found.joint == pytest.approx(2), "01 11 12 20, once each"
    renamed = entropies([np.array([70, 5, 5, 9]), np.array([9, 70])], 100)
    for kind in ("shannon", "joint", "conditional", "von_neumann"):
        assert getattr(renamed, kind) == pytest.approx(getattr(found, kind))


def test_rare_tokens_share_one_state() -> None:
    tokens = RANDOM.integers(0, 300, size=20_000)
    few, all_states = entropies(tokens, 300, states=15), entropies(tokens, 300, states=300)
    assert few.von_neumann <= 4
    assert all_states.von_neumann == pytest.approx(np.log2(300), abs=0.2)


def test_mixtures_are_proportional_to_the_perplexity_and_under_the_caps() -> None:
    domains = Domains.of({"a": 1e6, "b": 1e6, "c": 1e6})
    measured = {"a": Entropies(1, 2, 1, 0), "b": Entropies(2, 3, 1, 0), "c": Entropies(3, 4, 1, 10)}
    free = entropy_weighted(SwarmSpace.of(domains), measured, RANDOM)
    np.testing.assert_allclose(free[0], np.array([1, 2, 4]) / 7)
    np.testing.assert_allclose(free[1], np.array([1, 2, 4]) / 7)
    np.testing.assert_allclose(free[2], 1 / 3)
    capped = SwarmSpace.of(domains, np.array([1, 1, 0.4]), pins={"a": 0.25})
    weights = entropy_weighted(capped, measured, RANDOM)
    assert contains(capped, weights).all()
    assert weights[3].tolist() == [0.25, 0.35, 0.4]


def test_tokens_outside_the_vocabulary_and_missing_domains_are_refused() -> None:
    with pytest.raises(InvalidTokens, match="outside a vocabulary of 3"):
        entropies(np.array([0, 3]), 3)
    with pytest.raises(InvalidTokens, match="integers"):
        entropies(np.array([0.0, 1.0]), 3)
    with pytest.raises(InvalidTokens, match="two tokens"):
        entropies([np.array([1]), np.array([], int)], 3)
    with pytest.raises(InvalidSetting, match="states"):
        entropies(np.array([0, 1]), 3, states=0)
    space = SwarmSpace.of(Domains.of({"a": 1.0, "b": 1.0}))
    with pytest.raises(MissingDomain, match="b"):
        entropy_weighted(space, {"a": Entropies(1, 1, 1, 1)}, RANDOM)
    with pytest.raises(UnknownDomain, match="moon"):
        entropy_weighted(space, {"moon": Entropies(1, 1, 1, 1)}, RANDOM)
