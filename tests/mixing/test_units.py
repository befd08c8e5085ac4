"""No answer hangs on the unit a metric is measured in, or on where its zero is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.errors import InvalidSetting, OppositeDirections
from mixing.methods import Recipe
from mixing.objective import ObjectiveSpec
from mixing.parts import REGRESSIONS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.runs.table import RunTable
from mixing.sense import Sense, sense_of, suggested_direction
from mixing.terms import TaskGuard

DOMAINS = Domains.of({"books": 3e9, "code": 2e9, "web": 8e9, "wiki": 5e8})
TASKS = ("prose", "programs")


def runs_of(factor: float = 1.0, shift: float = 0.0, count: int = 20) -> list[RunEvidence]:
    """Of two tasks that fall as powers of what they like, with a little noise."""
    generator = np.random.default_rng(3)
    weights = generator.dirichlet(4 * DOMAINS.natural_weights, count)
    likes = np.array([[0.5, 0.1, 0.2, 1.5], [0.1, 1.2, 0.1, 0.2]])
    values = 0.8 + (np.sqrt(weights) @ likes.T) ** -0.5 + 0.01 * generator.standard_normal((count, 2))
    return [
        RunEvidence(
            f"run{k}",
            dict(zip(DOMAINS.names, row.tolist(), strict=True)),
            dict(zip(TASKS, (shift + factor * metrics).tolist(), strict=True)),
        )
        for k, (row, metrics) in enumerate(zip(weights, values, strict=True))
    ]


def question_of(**terms: Any) -> Question:
    usual: Mapping[str, Any] = {
        "domains": DOMAINS,
        "objective": dict.fromkeys(TASKS, 1.0),
        "target_tokens": 4e9,
        "kl_weight": 0.01,
        "recipe": Recipe("d-optimal", "effective-power", "per task", "exact"),
    }
    return Question(**{**usual, **terms})


def same(first: Mapping[str, float], second: Mapping[str, float]) -> None:
    assert first == pytest.approx(second, abs=1e-4)


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("terms", [{}, {"kl_weight": 0.0}], ids=["kl", "no kl"])
def test_a_metric_of_any_size_gives_the_same_mixture_and_gains_of_its_size(
    factor: float, terms: Mapping[str, Any]
) -> None:
    plain, scaled = (propose(question_of(**terms), runs_of(each)).to_dict() for each in (1.0, factor))
    same(scaled["weights"], plain["weights"])
    assert scaled["objective"]["gain"] / factor == pytest.approx(plain["objective"]["gain"], rel=1e-4)
    assert scaled["optimality_gap"] / factor < 1e-9
    # What a lower cap or less room would cost is a price per unit of the objective, too.
    for mine, other in zip(scaled["domains"], plain["domains"], strict=True):
        assert mine["binding"] == other["binding"]
        assert mine["shadow_price"] / factor == pytest.approx(other["shadow_price"], rel=1e-2, abs=1e-14)
    assert [row["task"] for row in scaled["worse"]] == [row["task"] for row in plain["worse"]]
    assert [row["code"] for row in scaled["warnings"]] == [row["code"] for row in plain["warnings"]]


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("solver", ["exact", "search"])
def test_a_guard_rail_in_the_metrics_own_unit_binds_alike(factor: float, solver: str) -> None:
    """At a bound that holds the mixture back, for the exact solve and the search."""
    recipe = replace(question_of().parts, solver=solver)
    answers = []
    for each in (1.0, factor):
        runs = runs_of(each)
        free = propose(question_of(recipe=recipe), runs).to_dict()
        prose = next(row for row in free["tasks"] if row["name"] == "prose")
        bound = prose["proposed"] - 0.02 * each
        rails = (TaskGuard("prose", at_most=bound),)
        held = propose(question_of(recipe=recipe, guard_rails=rails), runs).to_dict()
        row = next(row for row in held["tasks"] if row["name"] == "prose")
        assert row["proposed"] <= bound + 1e-6 * each
        answers.append(held)
    tolerance = 1e-3 if solver == "exact" else 0.05
    assert answers[1]["weights"] == pytest.approx(answers[0]["weights"], abs=tolerance)
    if solver == "exact":
        rails = [[row for row in each["constraints"] if row["kind"] == "guard_rail"] for each in answers]
        assert rails[1][0]["shadow_price"] == pytest.approx(rails[0][0]["shadow_price"], rel=1e-3)
        assert rails[1][0]["bound"] / factor == pytest.approx(rails[0][0]["bound"])


def test_lambda_in_the_metrics_own_unit_dominates_a_metric_of_a_millionth() -> None:
    """What every optimization meant before there was a choice, and an older one still means."""
    document = propose(question_of(kl_unit="metric"), runs_of(1e-6)).to_dict()
    same(document["weights"], document["natural"])
    assert propose(question_of(), runs_of(1e-6)).to_dict()["weights"]["web"] < 0.5


def test_on_bpb_that_varies_by_a_fifth_both_units_are_the_same() -> None:
    spread = propose(question_of(), runs_of()).learned.evidence.spread
    runs = runs_of(0.2 / spread)
    same(
        propose(question_of(), runs).to_dict()["weights"],
        propose(question_of(kl_unit="metric"), runs).to_dict()["weights"],
    )


def test_a_number_is_said_in_its_own_unit_with_digits_that_tell_something() -> None:
    spec = ObjectiveSpec(dict.fromkeys(TASKS, 1.0), units=dict.fromkeys(TASKS, "nats"))
    document = propose(question_of(objective=spec), runs_of(1e-6)).to_dict()
    assert {row["unit"] for row in (document["objective"], *document["tasks"])} == {"nats"}
    unnamed = propose(question_of(), runs_of(2e6)).to_dict()
    assert {row["unit"] for row in (unnamed["objective"], *unnamed["tasks"])} == {None}
    assert Sense(None, "BPB").change(0.12345) == "0.1235 BPB"
    assert Sense(None, "ms").change(2_812_345.6, "+") == "+2.812e+06 ms"


def test_tasks_of_several_units_have_none_together() -> None:
    higher = dict.fromkeys(("a", "b"), "higher")
    spec = ObjectiveSpec(
        {"a": 1, "b": 1, "c": 1},
        directions=higher,  # pyright: ignore[reportArgumentType]
        turned={"a": "error rate", "b": "negated"},
        units={"b": "Elo", "c": "BPB"},
    )
    assert [sense_of(spec, [task]).unit for task in "abc"] == ["accuracy", "Elo", "BPB"]
    assert sense_of(spec, ["a", "b", "c"]) == sense_of(spec, ["b", "c"]) == Sense(None, None)
    assert sense_of(replace(spec, units={"a": "exact match"}), ["a"]).unit == "exact match"


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("arc_challenge/acc_norm", "higher"),
        ("humaneval:pass@10", "higher"),
        ("MMLU-Accuracy", "higher"),
        ("squad exact_match", "higher"),
        ("drop_f1", "higher"),
        ("gsm8k", None),
        ("access logs", None),
        ("pile-cc loss", "lower"),
        ("arc_acc/bpb", "lower"),
    ],
)
def test_what_a_name_says_of_a_direction(name: str, direction: str | None) -> None:
    assert suggested_direction(name) == direction


def renamed(runs: list[RunEvidence], name: str) -> list[RunEvidence]:
    return [
        replace(run, metrics={"prose": run.metrics["prose"], name: run.metrics["programs"]}) for run in runs
    ]


def test_an_accuracy_without_a_direction_is_asked_about() -> None:
    name = "arc_acc"
    runs = renamed(runs_of(0.2), name)
    objective = {"prose": 1.0, name: 1.0}
    with pytest.raises(OppositeDirections, match=r"'arc_acc' looks like an accuracy.*directions") as caught:
        propose(question_of(objective=objective), runs)
    assert caught.value.names == (name,)
    with pytest.raises(OppositeDirections, match="said to be better when lower"):
        propose(question_of(objective=ObjectiveSpec(objective, directions={name: "lower"})), runs)
    turned = ObjectiveSpec(objective, directions={name: "higher"}, turned={name: "error rate"})
    document = propose(question_of(objective=turned), runs).to_dict()
    row = next(row for row in document["tasks"] if row["name"] == name)
    assert (row["unit"], row["direction"]) == ("accuracy", "higher")
    # Its unit may say that it is none, and beyond shares of 100 it can be none.
    stated = ObjectiveSpec(objective, units={name: "bits"})
    assert propose(question_of(objective=stated), runs).to_dict()["tasks"][0]["unit"] == "bits"
    propose(question_of(objective=objective), renamed(runs_of(1e6), name))
    # One that is only watched is left out and says why.
    watched = propose(question_of(objective={"prose": 1.0}), runs).to_dict()
    assert "looks like an accuracy" in watched["left_out"][name]


def test_a_loss_said_to_be_better_when_higher_and_a_unit_against_its_direction_are_asked_about() -> None:
    objective = {"prose": 1.0, "code_loss": 1.0}
    higher = ObjectiveSpec(objective, directions={"code_loss": "higher"}, turned={"code_loss": "negated"})
    with pytest.raises(OppositeDirections, match="looks like a loss"):
        propose(question_of(objective=higher), renamed(runs_of(), "code_loss"))
    with pytest.raises(InvalidSetting, match=r"'prose' is measured in 'accuracy'"):
        ObjectiveSpec(objective, units={"prose": "accuracy"})


@pytest.mark.parametrize(
    "name",
    [
        # As published, AutoScale's terms have no factor of their own: they are of the metric's own unit.
        *(
            name
            for name, part in REGRESSIONS.items()
            if not (part.reads_own_domain or part.reads_tokens) and name != "autoscale"
        ),
        "sklearn:SVR",
    ],
)
def test_every_regression_predicts_a_metric_in_another_unit_alike(name: str) -> None:
    """Noise told in that unit included; what a published law states in BPB counts by what the metric varies by."""
    runs, part = runs_of(count=24), REGRESSIONS[name]
    weights = np.array([[run.mixture[domain] for domain in DOMAINS.names] for run in runs])
    metrics = np.array([[run.metrics[task] for task in TASKS] for run in runs])
    noise = 0.01 * np.random.default_rng(0).uniform(0.5, 2, metrics.shape)
    plain, scaled = (
        part.make(RunTable.of(DOMAINS.names, TASKS, weights, factor * metrics, noise=factor * noise))
        .fit(weights, factor * metrics, factor * noise)
        .predict(weights)[0]
        / factor
        for factor in (1.0, 1e-6)
    )
    np.testing.assert_allclose(scaled, plain, atol=1e-5 * metrics.std())
