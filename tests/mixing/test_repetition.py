import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mixing.domains import Domains
from mixing.errors import Infeasible
from mixing.limits import BINDING, Limits
from mixing.solve.constraints import share_of
from tests.mixing.solve.problems import effective_tokens


@pytest.mark.parametrize(
    ("repeats", "value"), [(1, 1.0), (2, 0.9841), (4, 0.9314), (8, 0.8280), (16, 0.6614), (40, 0.3792)]
)
def test_a_repeated_token_is_worth_what_the_paper_says(repeats: int, value: float) -> None:
    """Scaling Data-Constrained Language Models (arXiv 2305.16264), R* = 15.387756."""
    unique = 7e9
    assert effective_tokens(unique, repeats * unique) / (repeats * unique) == pytest.approx(value, abs=5e-5)


@given(st.floats(1, 200), st.floats(1, 200))
def test_more_tokens_are_worth_more_each_less_than_the_one_before(first: float, second: float) -> None:
    """Increasing and concave; a fresh token is worth 1, and no repetition more than 1 + R* times the data."""
    low, high = sorted([first, second])
    worth = [float(effective_tokens(1.0, total)) for total in (low, (low + high) / 2, high)]
    assert worth[0] <= worth[2] <= 1 + 15.387756
    assert worth[1] >= (worth[0] + worth[2]) / 2 - 1e-12
    assert worth[2] <= high
    assert effective_tokens(1.0, low / 200) == low / 200


def test_a_weight_at_its_cap_is_read_so_many_times() -> None:
    limits = Limits(Domains.of({"a": 100, "b": 300, "c": 600}), 1000, 4)
    np.testing.assert_allclose(limits.caps, [0.4, 1.2, 2.4])
    np.testing.assert_allclose(limits.epochs(limits.caps), 4)
    assert np.isinf(Limits(limits.domains, 1000).caps).all()


pools = st.lists(st.integers(1, 10**9), min_size=1, max_size=8)


def domains_of(tokens: list[int]) -> Domains:
    return Domains.of({f"d{index}": count for index, count in enumerate(tokens)})


@given(pools, st.integers(1, 10))
def test_the_largest_reachable_target_is_reachable_and_one_more_is_not(tokens: list[int], cap: int) -> None:
    domains = domains_of(tokens)
    largest = cap * sum(tokens)
    Limits(domains, largest, cap).check()
    with pytest.raises(Infeasible) as caught:
        Limits(domains, largest + cap, cap).check()
    assert caught.value.missing_tokens == 1
    assert caught.value.largest_target == largest


@given(pools, st.floats(0.01, 10), st.floats(1.001, 1e6))
def test_what_a_refusal_advises_is_accepted(tokens: list[int], cap: float, beyond: float) -> None:
    """The cap as it is written in the message, the lower target, and the tokens that are missing."""
    domains = domains_of(tokens)
    target = beyond * cap * sum(tokens)
    with pytest.raises(Infeasible) as caught:
        Limits(domains, target, cap).check()
    advised = re.search(r"raise the repetition cap to ([0-9.]+),", str(caught.value))
    assert advised
    assert float(advised[1]) == caught.value.smallest_cap
    Limits(domains, target, float(advised[1])).check()
    if caught.value.largest_target:
        Limits(domains, caught.value.largest_target, cap).check()
    more = domains_of([*tokens, caught.value.missing_tokens or 0])
    Limits(more, target, cap).check()


def test_a_cap_of_4_504_is_advised_as_4_51() -> None:
    """Rounded to the nearest hundredth it would be 4.50, and refused again."""
    with pytest.raises(Infeasible, match=r"raise the repetition cap to 4\.51,"):
        Limits(Domains.of({"a": 1000.0}), 4504.0, 4.0).check()


def test_a_weight_binds_and_breaks_its_cap_by_one_tolerance() -> None:
    limits = Limits(Domains.of({"a": 100.0, "b": 900.0}), 1000.0, 4.0)
    near = np.array([0.4 * (1 - BINDING / 2), 0.6])
    below, above = np.array([0.4 * (1 - 2 * BINDING), 0.6]), np.array([0.4 * (1 + 2 * BINDING), 0.6])
    assert limits.binding(near).tolist() == [True, False]
    assert limits.binding(below).tolist() == [False, False]
    assert limits.exceeded(above).tolist() == [True, False]
    assert not limits.exceeded(near).any()


@given(pools, st.floats(0.1, 8), st.floats(0.1, 10))
def test_caps_alone_are_judged_as_a_linear_programme_judges_them(
    tokens: list[int], cap: float, epochs: float
) -> None:
    """Two methods: the sum of the caps, and the programme, which a share that binds nothing calls for."""
    domains = domains_of(tokens)
    target = epochs * sum(tokens)
    assume(abs(np.minimum(cap * domains.tokens / target, 1).sum() - 1) > 1e-6)
    idle = (share_of([domains.names[0]], domains.names, 0.0, 1.0),)
    assert Limits(domains, target, cap).is_feasible() == Limits(domains, target, cap, idle).is_feasible()
