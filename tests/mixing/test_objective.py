import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.errors import InvalidMetrics, InvalidSetting, InvalidWeights, OppositeDirections
from mixing.objective import ObjectiveSpec, groups

TASKS = ("code", "law", "math", "prose", "qa")
METRICS = np.random.default_rng(0).uniform(0.5, 2, (12, len(TASKS)))
FAMILIES = {"exact": ("code", "math"), "text": ("law", "prose")}


def test_all_ones_are_none_given() -> None:
    """The published tool multiplied lambda's share by the number of tasks here."""
    given_ones = groups(ObjectiveSpec(dict.fromkeys(TASKS, 1.0)), TASKS)
    assert given_ones.value(METRICS) == pytest.approx(METRICS.mean(1))


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=5), st.floats(1e-3, 1e3), st.booleans())
def test_weights_have_no_scale(weights: list[float], factor: float, standardize: bool) -> None:
    """So lambda beside the objective keeps its strength, whatever the weights sum to."""
    plain = ObjectiveSpec(dict(zip(TASKS, weights, strict=True)), standardize=standardize)
    scaled = ObjectiveSpec(
        {task: weight * factor for task, weight in plain.tasks.items()}, standardize=standardize
    )
    share = groups(plain, TASKS, METRICS).column_weights
    assert share.sum() == pytest.approx(1)
    np.testing.assert_allclose(groups(scaled, TASKS, METRICS).column_weights, share, rtol=1e-9)


def test_a_family_counts_as_the_mean_of_its_tasks_and_a_task_alone_as_itself() -> None:
    spec = ObjectiveSpec(
        {"code": 3, "math": 1, "law": 1, "prose": 1, "qa": 2}, FAMILIES, family_weights={"exact": 5}
    )
    code, law, math, prose, qa = METRICS.T
    expected = (5 * (3 * code + math) / 4 + (law + prose) / 2 + 2 * qa) / 8
    np.testing.assert_allclose(groups(spec, TASKS).value(METRICS), expected)


@pytest.mark.parametrize("standardize", [False, True])
def test_every_granularity_reads_the_same_objective(standardize: bool) -> None:
    weights = {"code": 3.0, "math": 1.0, "law": 1.0, "prose": 0.5}
    values = {}
    for granularity in ("per task", "per family", "aggregated"):
        spec = ObjectiveSpec(
            weights,
            FAMILIES,
            {"text": 2},
            granularity=granularity,
            standardize=standardize,
        )
        columns = groups(spec, TASKS, METRICS)
        values[granularity] = columns.value(METRICS @ columns.matrix.T)
        assert "qa" in columns.names, "a watched task keeps its column"
        assert columns.column_weights[columns.names.index("qa")] == 0
    np.testing.assert_allclose(values["per family"], values["per task"])
    np.testing.assert_allclose(values["aggregated"], values["per task"])


def test_columns_are_families_and_tasks_outside_them() -> None:
    spec = ObjectiveSpec(
        {"code": 1, "math": 1, "prose": 1}, {"exact": ("code", "math")}, granularity="per family"
    )
    columns = groups(spec, TASKS)
    assert columns.names == ("exact", "prose", "law", "qa")
    np.testing.assert_allclose(columns.matrix[0], [0.5, 0, 0.5, 0, 0])
    assert groups(ObjectiveSpec({"code": 1}, granularity="aggregated"), TASKS[:1]).names == ("objective",)


@pytest.mark.parametrize("granularity", ["per task", "per family"])
def test_the_worst_family_is_the_highest_not_the_lowest(granularity: str) -> None:
    """A published tool returned the best."""
    spec = ObjectiveSpec(
        dict.fromkeys(TASKS[:4], 1.0),
        FAMILIES,
        aggregation="worst family",
        granularity=granularity,
    )
    columns = groups(spec, TASKS)
    exact, text = METRICS[:, [0, 2]].mean(1), METRICS[:, [1, 3]].mean(1)
    np.testing.assert_allclose(columns.value(METRICS @ columns.matrix.T), np.maximum(exact, text))


def test_standardised_tasks_count_by_what_mixtures_change_in_them() -> None:
    """Divided by its deviation a task no longer counts by its unit: bits or nats rank the mixtures alike."""
    spec = ObjectiveSpec(dict.fromkeys(TASKS, 1.0), standardize=True)
    other_unit = METRICS.copy()
    other_unit[:, 1] *= 100
    first, second = (
        groups(spec, TASKS, metrics).value(metrics).argsort().tolist() for metrics in (METRICS, other_unit)
    )
    assert first == second
    z = (METRICS - METRICS.mean(0)) / METRICS.std(0)
    worst = ObjectiveSpec(dict.fromkeys(TASKS, 1.0), aggregation="worst family", standardize=True)
    ours = groups(worst, TASKS, METRICS).value(METRICS)
    np.testing.assert_allclose(ours / ours[0], z.max(1) / z.max(1)[0])


def test_a_task_better_when_higher_is_turned_as_stated_or_refused() -> None:
    weights, directions = {"bpb": 1.0, "arc": 1.0}, {"arc": "higher"}
    with pytest.raises(OppositeDirections, match="arc") as caught:
        ObjectiveSpec(weights, directions=directions)
    assert caught.value.names == ("arc",)
    for turn, expected in (("error rate", 0.25), ("negated", -0.75)):
        spec = ObjectiveSpec(weights, directions=directions, turned={"arc": turn})
        assert spec.lower_is_better("arc", 0.75) == expected
        assert spec.lower_is_better("bpb", 0.75) == 0.75
    with pytest.raises(InvalidSetting, match="bpb"):
        ObjectiveSpec(weights, turned={"bpb": "negated"})


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"tasks": {"a": -1, "b": 1}}, InvalidWeights, "'a'"),
        ({"tasks": {"a": float("nan"), "b": 1}}, InvalidWeights, "'a'"),
        ({"tasks": {"a": 0, "b": 0}}, InvalidWeights, "above 0"),
        ({"tasks": {}}, InvalidWeights, "above 0"),
        ({"families": {"f": ("a", "c")}}, InvalidSetting, "'c'"),
        ({"families": {"f": ("a",), "g": ("a", "b")}}, InvalidSetting, "'a'"),
        ({"families": {"f": ()}}, InvalidSetting, "'f'"),
        ({"families": {"b": ("a",)}}, InvalidSetting, "b"),
        ({"families": {"f": ("a",)}, "tasks": {"a": 0, "b": 1}}, InvalidWeights, "'f'"),
        ({"family_weights": {"f": 1}}, InvalidSetting, "f"),
        ({"aggregation": "best family"}, InvalidSetting, "worst family"),
        ({"aggregation": "worst family", "granularity": "aggregated"}, InvalidSetting, "aggregated"),
        ({"aggregation": "worst family", "tasks": {"a": 1, "b": 2}}, InvalidSetting, "equal weights"),
    ],
)
def test_what_contradicts_itself_is_named(changes: dict, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        ObjectiveSpec(**({"tasks": {"a": 1.0, "b": 1.0}} | changes))


def test_an_objective_over_tasks_nobody_measured_is_refused() -> None:
    with pytest.raises(InvalidMetrics, match="chess"):
        groups(ObjectiveSpec({"chess": 1, "code": 1}), TASKS)
    with pytest.raises(InvalidSetting, match="law"):
        groups(ObjectiveSpec({"code": 1}, {"law": ("code",)}, granularity="per family"), TASKS)
