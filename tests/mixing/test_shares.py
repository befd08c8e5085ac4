"""Shares of domains and of groups of them."""

import numpy as np
import pytest

from mixing.errors import InvalidSetting, UnknownDomain
from mixing.solve.constraints import members, share_of

NAMES = ("books", "web:forums", "web:news", "web:news-archive", "webcam")


def test_a_group_is_what_lies_below_it_and_not_what_begins_like_it() -> None:
    assert members(["web"], NAMES) == ["web:forums", "web:news", "web:news-archive"]
    assert members(["web:news"], NAMES) == ["web:news"]
    assert members(["webcam", "web", "web:news"], NAMES) == [
        "web:forums",
        "web:news",
        "web:news-archive",
        "webcam",
    ]
    with pytest.raises(UnknownDomain, match="wiki") as caught:
        members(["web", "wiki"], NAMES)
    assert caught.value.names == ("wiki",)


def test_the_row_sums_the_weights_of_the_selected_once() -> None:
    share = share_of(["web", "web:news", "web"], NAMES, 0.2, 0.6)
    np.testing.assert_array_equal(share.row(NAMES), [0, 1, 1, 1, 0])
    assert (share.name, share.lower, share.upper) == ("web + web:news", 0.2, 0.6)


@pytest.mark.parametrize(
    ("minimum", "maximum", "bounds"),
    [
        (None, 0.3, (-np.inf, 0.3)),
        (0.3, None, (0.3, np.inf)),
        (0.0, 1.0, (-np.inf, np.inf)),
        (0.3, 0.3, (0.3, 0.3)),
        (None, 0.0, (0.0, 0.0)),
        (1.0, None, (1.0, 1.0)),
    ],
)
def test_bounds_that_say_nothing_are_none_and_equal_ones_are_a_pin(
    minimum: float | None, maximum: float | None, bounds: tuple[float, float]
) -> None:
    share = share_of(["books"], NAMES, minimum, maximum)
    assert (share.lower, share.upper) == bounds


def test_a_share_of_one_domain_is_not_called_like_the_domain() -> None:
    """A domain's name stands for its cap in what binds and what it is worth."""
    assert share_of(["books"], NAMES, 0.1).name not in NAMES
    assert share_of(["books"], NAMES, 0.1, name="prose").name == "prose"
    with pytest.raises(InvalidSetting, match="webcam"):
        share_of(["books"], NAMES, 0.1, name="webcam")


@pytest.mark.parametrize(
    ("minimum", "maximum"), [(0.5, 0.4), (-0.1, None), (None, 1.1), (float("nan"), None)]
)
def test_bounds_that_do_not_rise_from_0_to_1_are_refused(
    minimum: float | None, maximum: float | None
) -> None:
    with pytest.raises(InvalidSetting, match="books") as caught:
        share_of(["books"], NAMES, minimum, maximum)
    assert caught.value.names == ("books",)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="at least one"):
        share_of([], NAMES, 0.1)
