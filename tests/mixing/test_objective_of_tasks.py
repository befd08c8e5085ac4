"""The objective as a request states it: tasks with weights that name their family."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.errors import InvalidSetting, InvalidWeights
from mixing.objective import groups
from tests.mixing.objectives import objective_of_tasks

TASKS = ("code", "law", "math", "prose", "qa")
METRICS = np.random.default_rng(0).uniform(0.5, 2, (12, len(TASKS)))


@given(
    st.lists(st.floats(0, 10), min_size=5, max_size=5).filter(lambda weights: sum(weights) > 0.1),
    st.lists(st.sampled_from(["a", "b", None]), min_size=5, max_size=5),
)
def test_families_do_not_change_the_weighted_mean_of_the_tasks(
    weights: list[float], families: list[str | None]
) -> None:
    asked = dict(zip(TASKS, weights, strict=True))
    family_of = {task: name for task, name in zip(TASKS, families, strict=True) if name is not None}
    expected = METRICS @ np.array(weights) / sum(weights)
    for per_family in (False, True):
        spec = objective_of_tasks(asked, family_of, per_family=per_family)
        np.testing.assert_allclose(groups(spec, TASKS, METRICS).value(METRICS), expected, rtol=1e-9)


def test_the_worst_family_is_the_worst_mean_whatever_the_families_weigh_together() -> None:
    """Math counts three times code within its family; the lone qa counts as a family; prose is only watched."""
    weights = {"code": 1.0, "math": 3.0, "law": 0.5, "qa": 7.0, "prose": 0.0}
    spec = objective_of_tasks(
        weights, {"code": "exact", "math": "exact", "law": "text", "prose": "text"}, worst_family=True
    )
    code, law, math, _, qa = METRICS.T
    expected = np.max([(code + 3 * math) / 4, law, qa], axis=0)
    np.testing.assert_allclose(groups(spec, TASKS, METRICS).value(METRICS), expected)


def test_a_family_of_weight_zero_is_only_watched() -> None:
    weights = {"code": 0.0, "math": 0.0, "law": 1.0, "qa": 1.0}
    spec = objective_of_tasks(weights, {"code": "exact", "math": "exact"}, worst_family=True)
    found = groups(spec, TASKS, METRICS)
    assert found.families == ("law", "qa")
    np.testing.assert_allclose(found.value(METRICS), METRICS[:, [1, 4]].max(1))


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("worst_family", [False, True])
def test_a_weight_that_is_none_is_refused_also_of_a_task_without_a_family(
    wrong: float, worst_family: bool
) -> None:
    with pytest.raises(InvalidWeights, match="law") as caught:
        objective_of_tasks({"code": 1.0, "law": wrong}, {"code": "exact"}, worst_family=worst_family)
    assert caught.value.names == ("law",)


def test_a_family_is_not_called_like_a_task_and_something_counts() -> None:
    with pytest.raises(InvalidSetting, match="code"):
        objective_of_tasks({"code": 1.0, "law": 1.0}, {"law": "code"}, worst_family=True)
    with pytest.raises(InvalidWeights):
        objective_of_tasks({"code": 0.0, "law": 0.0}, {"law": "text"}, worst_family=True)
