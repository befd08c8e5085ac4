import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixing.domains import Domains, Mixture
from mixing.errors import (
    DuplicateRun,
    InvalidMetrics,
    InvalidTokens,
    InvalidWeights,
    MissingDomain,
    OppositeDirections,
    TooFewRuns,
    UnknownDomain,
)
from mixing.objective import ObjectiveSpec
from mixing.runs.evidence import Evidence, Needs, RunEvidence, gather

DOMAINS = Domains.of({"books": 3.0, "code": 2.0, "web": 5.0})
OBJECTIVE = {"law": 1.0, "math": 1.0}


def runs_of(count: int = 8) -> list[RunEvidence]:
    generator = np.random.default_rng(0)
    rows = generator.dirichlet(np.ones(3), count)
    return [
        RunEvidence(
            f"run{index}",
            Mixture.of(dict(zip(DOMAINS.names, row.tolist(), strict=True))),
            dict(zip(OBJECTIVE, generator.uniform(1, 2, 2).tolist(), strict=True)),
        )
        for index, row in enumerate(rows)
    ]


def backwards(mapping: Mapping[str, float]) -> dict[str, float]:
    return {name: mapping[name] for name in sorted(mapping, reverse=True)}


def with_metric(run: RunEvidence, task: str, value: float) -> RunEvidence:
    return replace(run, metrics={**run.metrics, task: value})


def collect(given: list[RunEvidence], **changes: object) -> Evidence:
    """Joined; `changes` are arguments of `gather`, or what the regression needs."""
    needs = {
        name: changes.pop(name) for name in ("runs", "alternatives", "positive", "guarded") if name in changes
    }
    return gather(
        DOMAINS, given, changes.pop("objective", OBJECTIVE), Needs(**{"runs": 5} | needs), **changes
    )


def test_runs_are_joined_by_name_whatever_order_anything_is_in() -> None:
    runs = runs_of()
    shuffled = [
        RunEvidence(f"other {run.id}", backwards(run.mixture), backwards(run.metrics))
        for run in reversed(runs)
    ]
    first, second = collect(runs), collect(shuffled)
    assert first.tasks == ("law", "math")
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.metrics, second.metrics)
    for row, metrics in zip(first.weights, first.metrics, strict=True):
        (run,) = [run for run in runs if run.metrics["law"] == metrics[0]]
        assert row.tolist() == [run.mixture[name] for name in ("books", "code", "web")]


def test_noise_stays_with_its_run_and_is_known_only_where_every_run_states_it() -> None:
    runs = [replace(run, noise={"law": run.metrics["law"] / 100}) for run in runs_of()]
    evidence = collect(runs)
    np.testing.assert_allclose(evidence.table.noise[:, 0], evidence.metrics[:, 0] / 100)
    np.testing.assert_allclose(evidence.noise[0], np.median(evidence.metrics[:, 0]) / 100)
    assert np.isnan(evidence.noise[1])
    assert (evidence.table.noise[:, 1] == 0).all()
    assert np.isnan(collect([replace(runs[0], noise={}), *runs[1:]]).noise).all()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_bad_metric_names_its_run_and_task_and_is_dropped_only_when_asked(value: float) -> None:
    runs = runs_of()
    runs[3] = with_metric(runs[3], "math", value)
    with pytest.raises(InvalidMetrics, match=r"run3.*math") as caught:
        collect(runs)
    assert caught.value.names == ("run3", "math")
    evidence = collect(runs, drop_faulty=True)
    assert [run.id for run in evidence.dropped] == ["run3"]
    assert len(evidence.metrics) == 7
    assert any("1 of 8 runs" in note and "run3" in note for note in evidence.notes)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_run_without_a_number_for_a_task_counts_for_the_others_and_is_named(value: float | None) -> None:
    runs = runs_of()
    metrics = {"law": 1.5} if value is None else {"law": 1.5, "math": value}
    runs[2] = replace(runs[2], metrics=metrics)
    evidence = collect(runs)
    assert evidence.table.measured.sum(axis=0).tolist() == [8, 7]
    said = "run2" if value is None else f"run2: {value}"
    assert evidence.notes == (f"math: no number for 1 of 8 runs ({said}); fitted to the other 7.",)
    runs[5] = replace(runs[5], metrics={})
    evidence = collect(runs)
    assert [run.id for run in evidence.dropped] == ["run5"]
    assert len(evidence.table) == 7
    assert any("1 of 8 runs were left out: run5" in note for note in evidence.notes)


def test_an_empty_column_is_refused_even_where_runs_may_be_dropped() -> None:
    with pytest.raises(InvalidMetrics, match="chess"):
        collect(runs_of(), objective={**OBJECTIVE, "chess": 1.0}, drop_faulty=True)


def test_a_constant_column_is_refused_in_the_objective_and_left_out_beside_it() -> None:
    runs = [with_metric(run, "flat", 1.0) for run in runs_of()]
    assert "flat" in collect(runs).left_out
    with pytest.raises(InvalidMetrics, match="flat"):
        collect(runs, objective={**OBJECTIVE, "flat": 1.0})


def test_a_watched_task_that_older_runs_did_not_measure_is_left_out_and_the_objective_keeps_every_run() -> (
    None
):
    older = [replace(run, older=True) for run in runs_of()[:5]]
    new = [with_metric(run, "held-out/added", 1.0 + index) for index, run in enumerate(runs_of()[5:])]
    evidence = collect([*older, *new])
    assert evidence.tasks == ("law", "math")
    assert len(evidence.metrics) == 8
    assert evidence.notes[-1].endswith("not measured on all older runs, so not fitted: held-out/added.")
    guarded = collect([*older, *new], guarded=["held-out/added"])
    assert guarded.tasks == ("held-out/added", "law", "math")
    assert np.isnan(guarded.metrics[:, 0]).sum() == 5


@pytest.mark.parametrize("total", [0.99, 0.996, 1.003, 1.01])
def test_weights_rounded_in_a_table_are_divided_by_their_sum_and_noted(total: float) -> None:
    runs = runs_of()
    runs[4] = replace(runs[4], mixture={name: w * total for name, w in runs[4].mixture.items()})
    evidence = collect(runs)
    np.testing.assert_allclose(evidence.weights.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(evidence.weights, collect(runs_of()).weights, atol=1e-12)
    (note,) = evidence.notes
    assert "1 of 8 runs" in note
    assert f"{total:.4f}" in note
    assert collect(runs_of()).notes == ()


@pytest.mark.parametrize("total", [0.0, 0.98, 1.02, 100.0])
def test_weights_that_are_wrong_name_their_run(total: float) -> None:
    runs = runs_of()
    runs[4] = replace(runs[4], mixture={name: w * total for name, w in runs[4].mixture.items()})
    with pytest.raises(InvalidWeights, match="run4") as caught:
        collect(runs)
    assert caught.value.names[0] == "run4"


@pytest.mark.parametrize(
    ("mixture", "error"),
    [
        ({"books": 0.5, "code": 0.5}, MissingDomain),
        ({"books": 0.5, "code": 0.3, "web": 0.1, "wiki": 0.1}, UnknownDomain),
        ({"books": 1.2, "code": -0.2, "web": 0.0}, InvalidWeights),
        ({"books": math.nan, "code": 0.5, "web": 0.5}, InvalidWeights),
    ],
)
def test_a_mixture_over_other_domains_names_its_run(
    mixture: dict[str, float], error: type[Exception]
) -> None:
    runs = runs_of()
    runs[5] = replace(runs[5], mixture=mixture)
    with pytest.raises(error, match="run5"):
        collect(runs)


def test_a_run_given_twice_is_refused_under_one_id_and_under_two() -> None:
    runs = runs_of()
    with pytest.raises(DuplicateRun, match="run1"):
        collect([*runs, with_metric(runs[1], "law", 1.9)])
    again = replace(runs[1], id="resubmitted")
    with pytest.raises(DuplicateRun, match=r"run1.*resubmitted") as caught:
        collect([*runs, again])
    assert caught.value.names == ("run1", "resubmitted")
    evidence = collect([*runs, again], drop_faulty=True)
    assert [run.id for run in evidence.dropped] == ["resubmitted"]
    np.testing.assert_array_equal(evidence.metrics, collect(runs).metrics)


def test_replicates_are_kept() -> None:
    """Another seed measures something else; and where it happens not to, the stated seeds tell."""
    runs = runs_of()
    assert len(collect([*runs, with_metric(replace(runs[1], id="seed2"), "law", 1.9)]).metrics) == 9
    runs[1] = replace(runs[1], seed=1)
    assert len(collect([*runs, replace(runs[1], id="seed2", seed=2)]).metrics) == 9
    with pytest.raises(DuplicateRun):
        collect([*runs, replace(runs[1], id="seed1", seed=1)])


def test_too_few_runs_say_what_they_still_do_for() -> None:
    with pytest.raises(TooFewRuns, match=r"20.*gaussian process, ridge") as caught:
        collect(runs_of(), runs=20, alternatives={"ridge": 5, "gaussian process": 8, "trees": 34})
    assert (caught.value.needed, caught.value.given) == (20, 8)
    assert caught.value.names == ("gaussian process", "ridge")


def test_replicates_of_few_mixtures_are_few_runs() -> None:
    """Twenty runs of four mixtures determine four numbers, not twenty."""
    few = runs_of(4)
    generator = np.random.default_rng(1)
    many = [
        with_metric(replace(run, id=f"{run.id}.{seed}"), "law", generator.uniform(1, 2))
        for run in few
        for seed in range(5)
    ]
    with pytest.raises(
        TooFewRuns, match=r"^20 runs of 4 different mixtures are too few: .* needs 5 different ones"
    ):
        collect(many)
    with pytest.raises(TooFewRuns, match=r"^5 runs of 1 different mixture are too few"):
        collect(many[:5])


def test_runs_dropped_no_longer_count() -> None:
    runs = [with_metric(run, "law", -1.0) if index < 4 else run for index, run in enumerate(runs_of())]
    with pytest.raises(
        TooFewRuns, match=r"^8 runs, 4 of them sound, are too few: .* needs 5; of the others, run"
    ) as caught:
        collect(runs, drop_faulty=True)
    assert caught.value.given == 4
    assert "has -1.0 for task 'law'" in str(caught.value), "why, of one"


def test_a_task_better_when_higher_is_turned_and_noted_or_refused() -> None:
    runs = [with_metric(run, "arc", 0.1 * (index + 1)) for index, run in enumerate(runs_of())]
    weights = {**OBJECTIVE, "arc": 1.0}
    with pytest.raises(OppositeDirections, match="arc"):
        collect(runs, objective=ObjectiveSpec(weights, directions={"arc": "higher"}))
    spec = ObjectiveSpec(weights, directions={"arc": "higher"}, turned={"arc": "error rate"})
    evidence = collect(runs, objective=spec)
    errors = evidence.metrics[:, evidence.tasks.index("arc")]
    np.testing.assert_allclose(np.sort(errors), 1 - 0.1 * np.arange(8, 0, -1))
    assert any("arc" in note and "1 - value" in note for note in evidence.notes)
    percent = [with_metric(run, "arc", run.metrics["arc"] * 100) for run in runs]
    with pytest.raises(InvalidMetrics, match=r"run0.*arc.*share of 1"):
        collect(percent, objective=spec)
    negated = replace(spec, turned={"arc": "negated"})
    with pytest.raises(InvalidMetrics, match=r"run0.*arc"):
        collect(runs, objective=negated)
    assert (collect(runs, objective=negated, positive=False).metrics[:, 0] < 0).all()


def test_a_watched_task_better_when_higher_never_passes_for_the_opposite() -> None:
    runs = [with_metric(run, "arc", 0.1 * (index + 1)) for index, run in enumerate(runs_of())]
    evidence = collect(runs, objective=ObjectiveSpec(OBJECTIVE, directions={"arc": "higher"}))
    assert evidence.tasks == ("law", "math")
    assert "turned" in evidence.left_out["arc"]


def test_behind_the_tasks_stand_the_families_that_a_coarser_law_is_fitted_to() -> None:
    runs = [
        replace(with_metric(run, "qa", 1.0 + 0.1 * index), noise={"law": 0.03, "math": 0.04})
        for index, run in enumerate(runs_of())
    ]
    spec = ObjectiveSpec(OBJECTIVE, {"hard": ("law", "math")}, granularity="per family")
    evidence = collect(runs, objective=spec)
    assert evidence.tasks == ("law", "math", "qa")
    assert evidence.table.names == ("law", "math", "qa", "hard")
    np.testing.assert_allclose(evidence.table.metrics[:, 3], evidence.metrics[:, :2].mean(1))
    np.testing.assert_allclose(evidence.table.noise[:, 3], 0.025)
    np.testing.assert_allclose(
        evidence.groups.value(evidence.table.metrics), evidence.metrics @ evidence.objective
    )
    assert evidence.groups.column_weights.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("value", ["1.2", "", True, [1.0]])
def test_what_is_no_number_is_refused_by_its_run_and_task_and_never_read_as_one(value: Any) -> None:
    runs = runs_of()
    runs[3] = replace(runs[3], metrics={**runs[3].metrics, "math": value})
    with pytest.raises(InvalidMetrics, match=r"run3.*math.*must be a number") as caught:
        collect(runs)
    assert caught.value.names == ("run3", "math")
    runs[3] = replace(runs_of()[3], mixture={**runs_of()[3].mixture, "code": value})
    with pytest.raises(InvalidWeights, match=r"run3.*'code'.*a number of at least 0"):
        collect(runs)


@pytest.mark.parametrize("noise", ["0.1", -0.1, None])
def test_a_noise_that_cannot_be_one_is_refused_and_one_that_is_not_known_is_none(noise: Any) -> None:
    runs = runs_of()
    runs[2] = replace(runs[2], noise={"law": noise})
    with pytest.raises(InvalidMetrics, match=r"run2.*noise.*law"):
        collect(runs)
    runs[2] = replace(runs[2], noise={"law": math.nan})
    assert np.isnan(collect(runs).noise).all()


def test_numbers_of_any_kind_are_numbers() -> None:
    runs = [
        replace(run, metrics={name: np.float32(value) for name, value in run.metrics.items()})
        for run in runs_of()
    ]
    np.testing.assert_allclose(collect(runs).metrics, collect(runs_of()).metrics, rtol=1e-6)
    whole = [with_metric(run, "law", index + 1) for index, run in enumerate(runs_of())]
    assert sorted(collect(whole).metrics[:, 0]) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("tokens", ["5e9", True, [1], None, math.inf])
def test_tokens_that_are_no_number_are_named(tokens: Any) -> None:
    with pytest.raises(InvalidTokens, match="'code'"):
        Domains.of({"web": 1e9, "code": tokens})


def test_a_weight_of_a_task_that_is_no_number_is_named() -> None:
    with pytest.raises(InvalidWeights, match="'math' is '1'"):
        ObjectiveSpec({"law": 1.0, "math": "1"})  # pyright: ignore[reportArgumentType] - what a table may hold
