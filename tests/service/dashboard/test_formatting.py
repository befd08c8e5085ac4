import math
from datetime import UTC, datetime

import pytest

from service.dashboard import formatting


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (950, "950"),
        (1_200, "1.2K"),
        (999_949, "999.9K"),
        (999_960, "1.0M"),
        (524_288, "524.3K"),
        (6_000_000_000, "6.0B"),
        (1.1e12, "1.1T"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_quantities_are_short(value: float | None, shown: str) -> None:
    assert formatting.quantity(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(12, "12 B"), (1_572_864, "1.5 MiB"), (1023, "1023 B"), (None, "–")]
)
def test_sizes_are_binary(value: float | None, shown: str) -> None:
    assert formatting.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(999, "999 FLOP"), (1.24e15, "1.2 PFLOP"), (3e21, "3.0 ZFLOP"), (None, "–")]
)
def test_arithmetic_has_its_unit(value: float | None, shown: str) -> None:
    assert formatting.flops(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.00%"), (0.1234, "12.34%"), (0.00001, "<0.01%"), (1.0, "100.00%"), (math.nan, "–")],
)
def test_weights_are_percentages(value: float, shown: str) -> None:
    assert formatting.percent(value) == shown


def test_a_difference_has_its_sign_and_nothing_has_none() -> None:
    assert formatting.signed(0.0412) == "+0.0412"
    assert formatting.signed(-0.0412) == "−0.0412"
    assert formatting.signed(-0.00001) == "0.0000"
    assert formatting.interval([-0.01, 0.0487]) == "−0.0100 to +0.0487"
    assert formatting.interval(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (45.4, "45 s"),
        (59.6, "1 min 00 s"),
        (192, "3 min 12 s"),
        (7500, "2 h 05 min"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (None, "–"),
    ],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert formatting.duration(seconds) == shown


def test_a_time_left_changes_by_the_minute() -> None:
    assert formatting.about(20) == "under a minute"
    assert formatting.about(61) == "about 2 min"
    assert formatting.about(3 * 3600) == "about 3 h"


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ("2026-11-30T11:59:30+00:00", "just now"),
        ("2026-11-30T11:59:00+00:00", "1 minute ago"),
        ("2026-11-30T09:30:00+00:00", "2 hours ago"),
        ("2026-11-30T12:30:00+02:00", "1 hour ago"),
        ("2023-11-30T12:00:00+00:00", "1,096 days ago"),
        ("2026-11-30T12:00:05+00:00", "just now"),
    ],
)
def test_how_long_ago_is_in_the_largest_unit(then: str, words: str) -> None:
    assert formatting.ago(then, datetime(2026, 11, 30, 12, tzinfo=UTC)) == words
