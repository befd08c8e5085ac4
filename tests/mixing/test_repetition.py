import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.domains import Domains
from mixing.errors import Infeasible
from mixing.repetition import check_target_reachable, effective_tokens, epochs, repetition_caps


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
    domains = Domains.of({"a": 100, "b": 300, "c": 600})
    caps = repetition_caps(domains, 1000, 4)
    np.testing.assert_allclose(caps, [0.4, 1.2, 2.4])
    np.testing.assert_allclose(epochs(domains, caps, 1000), 4)
    assert np.isinf(repetition_caps(domains, 1000, None)).all()


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), st.integers(1, 10))
def test_the_largest_reachable_target_is_reachable_and_one_more_is_not(tokens: list[int], cap: int) -> None:
    domains = Domains.of({f"d{index}": count for index, count in enumerate(tokens)})
    largest = cap * sum(tokens)
    check_target_reachable(domains, largest, cap)
    with pytest.raises(Infeasible) as caught:
        check_target_reachable(domains, largest + cap, cap)
    assert caught.value.missing_tokens == 1
    assert caught.value.largest_target == largest
