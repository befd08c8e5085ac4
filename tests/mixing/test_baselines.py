import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.answer.untrained import natural, temperature, uniform, unimax
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting
from mixing.limits import Limits

POOL = {"books": 3e5, "code": 1e6, "web": 5e6, "wiki": 1e5}
pools = st.lists(st.integers(1, 10**7), min_size=1, max_size=8)


def domains_of(tokens: list[int]) -> Domains:
    return Domains.of({f"d{index}": count for index, count in enumerate(tokens)})


def test_without_caps_they_are_their_formulas() -> None:
    pool = Limits(Domains.of(POOL), 1.0)
    assert natural(pool) == pool.domains.natural()
    assert uniform(pool) == dict.fromkeys(POOL, 0.25)
    root = {name: count**0.3 for name, count in POOL.items()}
    assert temperature(pool, 0.3) == pytest.approx({name: w / sum(root.values()) for name, w in root.items()})


def test_temperature_reaches_from_uniform_to_natural_and_beyond_without_overflow() -> None:
    pool = Limits(Domains.of(POOL), 1.0)
    assert temperature(pool, 0) == pytest.approx(uniform(pool))
    assert temperature(pool, 1) == pytest.approx(natural(pool))
    assert temperature(pool, 1e4)["web"] == 1
    assert temperature(pool, -1e4)["wiki"] == 1
    with pytest.raises(InvalidSetting):
        temperature(pool, float("nan"))


def test_unimax_on_a_published_example() -> None:
    """Character counts of five languages, 250e9 characters, 4 epochs (documentation of unimax-sampling)."""
    counts = {
        "swe": 179955884499,
        "fas": 184595788282,
        "ekk": 42541080893,
        "isl": 10027573389,
        "fao": 549707867,
    }
    expected = {
        "fao": 0.008795325872,
        "isl": 0.160441174224,
        "ekk": 0.2769211666346667,
        "swe": 0.27692116663466665,
        "fas": 0.27692116663466665,
    }
    limits = Limits(Domains.of(counts), 250e9, 4)
    assert unimax(limits) == pytest.approx(expected, rel=1e-12)
    assert uniform(limits) == pytest.approx(expected, rel=1e-12)


@given(pools, st.floats(0.01, 1), st.integers(1, 8), st.floats(-1, 2))
def test_under_caps_all_are_mixtures_no_domain_is_read_too_often_and_ratios_below_are_kept(
    tokens: list[int], fullness: float, cap: int, tau: float
) -> None:
    domains = domains_of(tokens)
    limits = Limits(domains, fullness * cap * sum(tokens), cap)
    free = temperature(Limits(domains, 1.0), tau).align(domains.names)
    found = temperature(limits, tau).align(domains.names)
    assert found.sum() == pytest.approx(1)
    assert (limits.epochs(found) <= cap * (1 + 1e-9)).all()
    below = found < limits.caps * (1 - 1e-9)
    if below.any():
        np.testing.assert_allclose(found[below] / free[below], (found[below] / free[below])[0], rtol=1e-6)


@given(pools, st.floats(0.01, 1), st.integers(1, 8))
def test_unimax_is_what_the_published_procedure_spends(tokens: list[int], fullness: float, cap: int) -> None:
    """Two methods: the paper's loop over domains, and filling up like water."""
    limits = Limits(domains_of(tokens), fullness * cap * sum(tokens), cap)
    weights, left = np.zeros(len(tokens)), 1.0
    for rank, j in enumerate(np.argsort(limits.domains.tokens, kind="stable")):
        weights[j] = min(limits.caps[j], left / (len(tokens) - rank))
        left -= weights[j]
    np.testing.assert_allclose(unimax(limits).align(limits.domains.names), weights, atol=1e-9)


@given(pools, st.floats(0.01, 1), st.integers(1, 8))
def test_one_cap_for_all_leaves_the_natural_distribution_alone(
    tokens: list[int], full: float, cap: int
) -> None:
    domains = domains_of(tokens)
    limits = Limits(domains, full * cap * sum(tokens), cap)
    assert natural(limits) == pytest.approx(domains.natural(), rel=1e-9)


def test_a_budget_that_no_mixture_keeps_is_refused() -> None:
    beyond = Limits(Domains.of(POOL), 5 * sum(POOL.values()), 4)
    for method in (natural, uniform, unimax, lambda limits: temperature(limits, 0.5)):
        with pytest.raises(Infeasible, match="cannot be reached"):
            method(beyond)
    # Reached by all domains together, but not by the one that a temperature gives everything to.
    with pytest.raises(Infeasible, match="cannot hold"):
        temperature(Limits(Domains.of(POOL), 2 * sum(POOL.values()), 2), 1e4)
