from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.runs.noise import TaskSignal, range_of_noise, rank_tasks, signal


def by_checkpoints(tasks: Sequence[Any], trajectories: np.ndarray) -> tuple[TaskSignal, ...]:
    """Of (J, n, T) checkpoints: each model by their mean, and the noise of one of them."""
    variances = trajectories.var(axis=1, ddof=1).mean(axis=0)
    return rank_tasks(tasks, trajectories.mean(axis=1), np.sqrt(variances))


def test_the_signal_of_a_case_done_by_hand() -> None:
    """Three models at 1.9, 2.0 and 2.1: the range is 0.2, the mean 2."""
    assert signal(np.array([[1.9], [2.0], [2.1]]))[0] == pytest.approx(0.1)


@given(st.floats(0.01, 100))
def test_the_unit_of_a_metric_cancels(unit: float) -> None:
    trajectories = np.random.default_rng(0).uniform(1, 2, (4, 5, 3))
    plain, scaled = (by_checkpoints("abc", values) for values in (trajectories, trajectories * unit))
    assert [row.task for row in plain] == [row.task for row in scaled]
    assert [row.ratio for row in plain] == pytest.approx([row.ratio for row in scaled])


@pytest.mark.parametrize(
    ("models", "expected"), [(2, 1.128), (3, 1.693), (5, 2.326), (10, 3.078), (25, 3.931)]
)
def test_the_range_of_noise_is_the_constant_of_control_charts(models: int, expected: float) -> None:
    """d2 of Shewhart's charts, as tabulated since 1931."""
    assert range_of_noise(models) == pytest.approx(expected, abs=6e-4)


def test_tasks_are_ranked_by_what_they_tell_and_those_that_tell_nothing_are_dropped() -> None:
    generator = np.random.default_rng(1)
    level = np.linspace(0, 1, 30)[:, None, None] * np.array([0.0, 0.05, 1.0])
    trajectories = 2 + level + 0.01 * generator.standard_normal((30, 4, 3))
    rows = by_checkpoints(("nothing", "little", "much"), trajectories)
    assert [(row.task, row.advice) for row in rows] == [
        ("much", "keep"),
        ("little", "warn"),
        ("nothing", "drop"),
    ]
    assert rows[0].ratio == pytest.approx(1 / 0.01, rel=0.3), "90 degrees of freedom: 4 standard errors"


def test_a_task_of_pure_noise_is_dropped_nearly_always() -> None:
    """Means of 5 checkpoints differ less than single ones, so the range of single ones is rarely reached."""
    generator = np.random.default_rng(2)
    rows = by_checkpoints(range(200), 1 + 0.01 * generator.standard_normal((20, 5, 200)))
    assert sum(row.advice == "drop" for row in rows) >= 198


def test_without_noise_or_signal_the_ratio_is_still_a_number() -> None:
    flat = np.ones((3, 2, 1))
    assert by_checkpoints(("flat",), flat)[0].ratio == 0
    assert by_checkpoints(("exact",), flat * np.array([1, 2, 3])[:, None, None])[0].ratio == np.inf


def test_runs_of_a_swarm_are_ranked_by_the_noise_they_state() -> None:
    """Ranges 0.2 and 0.6 of means 2 and 3, deviations 0.01 and 0.2: ratios 20 and 3, and d2 of 5 runs is 2.326."""
    metrics = np.array([[1.9, 2.7], [2.0, 2.8], [2.0, 3.0], [2.0, 3.2], [2.1, 3.3]])
    first, second = rank_tasks(("law", "qa"), metrics, np.array([0.01, 0.2]))
    assert (first.task, first.advice, second.task, second.advice) == ("law", "keep", "qa", "warn")
    assert (first.signal, first.noise, first.ratio) == pytest.approx((0.1, 0.005, 20))
    assert second.ratio == pytest.approx(3)
    assert rank_tasks(("qa",), metrics[:, 1:], np.array([0.3]))[0].advice == "drop"
    with pytest.raises(InvalidMetrics, match="qa"):
        rank_tasks(("law", "qa"), metrics, np.array([0.01, np.nan]))


def test_what_cannot_be_judged_is_named() -> None:
    sound = np.ones((3, 2, 2))
    with pytest.raises(InvalidMetrics, match="law") as caught:
        by_checkpoints(("law", "qa"), sound * np.array([np.nan, 1]))
    assert caught.value.names == ("law",)
    with pytest.raises(InvalidMetrics, match="qa"):
        by_checkpoints(("law", "qa"), sound * np.array([1, -1]))
    with pytest.raises(TooFewRuns):
        by_checkpoints(("law", "qa"), sound[:1])
