"""Ids sort in the order they were made: lists page by them."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from store import tables


def test_ids_made_one_after_the_other_sort_that_way() -> None:
    made = [tables.new_id("run") for _ in range(5_000)]  # many to a millisecond
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"run_[0-9a-f]{24}", one) for one in made)


def test_a_clock_set_back_does_not_bring_later_ids_before_earlier_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = tables.new_id("run")
    monkeypatch.setattr(tables.time, "time_ns", lambda: 0)
    after = [tables.new_id("run") for _ in range(10)]
    assert [before, *after] == sorted({before, *after})


def test_threads_make_no_id_twice() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: tables.new_id("opt"), range(4_000)))
    assert len(set(made)) == len(made)
