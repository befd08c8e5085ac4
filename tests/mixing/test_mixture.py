import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.domains import Domains, Mixture, parse_name
from mixing.errors import (
    DuplicateDomain,
    InvalidDomainName,
    InvalidTokens,
    InvalidWeights,
    MissingDomain,
    UnknownDomain,
)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("web", ("web",)), ("web:news", ("web", "news")), ("web:news:q_1", ("web", "news", "q_1"))],
)
def test_a_name_is_a_path_of_at_most_three(name: str, parts: tuple[str, ...]) -> None:
    assert parse_name(name) == parts


@pytest.mark.parametrize("name", ["", ":", "a:", "a:b:c:d", "a b", "a/b", "\u0430\u0308 ", "x" * 300, "a\n"])
def test_a_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidDomainName):
        parse_name(name)


def test_domains_are_the_same_in_any_order() -> None:
    counts = {"web": 5, "books": 3, "code": 2}
    shuffled = dict(reversed(counts.items()))
    first, second = Domains.of(counts), Domains.of(shuffled)
    assert first.names == second.names == ("books", "code", "web")
    assert first.tokens.tolist() == second.tokens.tolist() == [3, 2, 5]
    assert first.natural().as_dict() == {"books": 0.3, "code": 0.2, "web": 0.5}


@pytest.mark.parametrize("tokens", [0, -1, math.nan, math.inf])
def test_an_empty_domain_is_named_and_never_a_silent_zero(tokens: float) -> None:
    with pytest.raises(InvalidTokens, match="books"):
        Domains.of({"web": 5, "books": tokens})


def test_a_leaf_cannot_hold_another() -> None:
    with pytest.raises(InvalidDomainName, match="web:news"):
        Domains.of({"web": 1, "web:news": 1})


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"a": 1.2, "b": -0.2}, "b"),
        ({"a": 0.5, "b": math.nan}, "b"),
        ({"a": 0.5, "b": 0.6}, r"1\.1"),
        ({"a": math.inf, "b": 0.0}, "a"),
        ({}, "sum to 0"),
    ],
)
def test_bad_weights_are_named(weights: dict[str, float], named: str) -> None:
    with pytest.raises(InvalidWeights, match=named):
        Mixture.of(weights)


@given(st.permutations(["a", "b", "c", "d"]))
def test_weights_travel_by_name(order: list[str]) -> None:
    weights = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    mixture = Mixture.of({name: weights[name] for name in order})
    assert mixture == Mixture.of(weights)
    assert mixture.align(order).tolist() == [weights[name] for name in order]


def test_aligning_with_other_names_is_an_error_that_names_them() -> None:
    mixture = Mixture.of({"a": 0.5, "b": 0.5})
    with pytest.raises(UnknownDomain, match="b"):
        mixture.align(["a"])
    with pytest.raises(MissingDomain, match="c"):
        mixture.align(["a", "b", "c"])


def test_duplicated_names_are_refused() -> None:
    from mixing.domains import check_names

    with pytest.raises(DuplicateDomain, match="web"):
        check_names(["web", "books", "web"])


def test_arrays_of_domains_cannot_be_changed() -> None:
    domains = Domains.of({"a": 1, "b": 2})
    with pytest.raises(ValueError, match="read-only"):
        domains.tokens[0] = np.float64(7)
