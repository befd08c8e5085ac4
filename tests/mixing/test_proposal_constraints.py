"""Families, guard rails and shares in a proposal, against brute force on a grid of mixtures."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mixing.answer.proposal import Proposal, propose
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidMetrics, InvalidSetting
from mixing.limits import Limits
from mixing.methods import METHODS, combine
from mixing.objective import ObjectiveSpec
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.constraints import share_of
from mixing.terms import TaskGuard
from tests.mixing.objectives import objective_of_tasks

DOMAINS = Domains.of({"books": 1e6, "code": 2e6, "web": 6e6})
TARGET, CAP = 8e6, 4.0  # books may weigh half
USEFUL = {"code": [0.2, 2.0, 0.3], "facts": [1.6, 0.1, 0.7], "prose": [1.2, 0.1, 0.9]}
"""A task is called like a domain, as happens."""


def truth(weights: np.ndarray) -> dict[str, float]:
    return {
        task: 1 + float(np.array(useful) @ (weights + 0.01) ** 0.5) ** -0.5 for task, useful in USEFUL.items()
    }


def runs_of(count: int = 30) -> tuple[RunEvidence, ...]:
    generator = np.random.default_rng(0)
    found = []
    for index, weights in enumerate(generator.dirichlet(np.full(3, 0.8), count)):
        metrics = {
            task: value + 0.001 * generator.standard_normal() for task, value in truth(weights).items()
        }
        found.append(RunEvidence(f"run{index}", DOMAINS.mixture(weights), metrics))
    return tuple(found)


RUNS = runs_of()
EXACT = replace(METHODS["mixwright"], recipe=combine(METHODS["mixwright"], regression="effective-power"))
"""The default method with a law that is convex whatever the runs say, so that its answer is the best there is."""


def proposed(runs: tuple[RunEvidence, ...] = RUNS, **changes: object) -> Proposal:
    question = Question(
        domains=DOMAINS,
        objective=dict.fromkeys(USEFUL, 1.0),
        target_tokens=TARGET,
        repetition_cap=CAP,
        proxy_tokens=1e6,
        recipe=EXACT.recipe,
    )
    return propose(replace(question, **changes), runs)  # pyright: ignore[reportArgumentType]


def grid(step: float = 0.01) -> np.ndarray:
    """(n, 3) every mixture of hundredths under the caps."""
    shares = np.arange(0, 1 + step / 2, step)
    first, second = np.meshgrid(shares, shares)
    points = np.stack([first.ravel(), second.ravel(), 1 - first.ravel() - second.ravel()], axis=1)
    points = np.maximum(points[points[:, 2] > -1e-9], 0)
    return points[(points <= Limits(DOMAINS, TARGET, CAP).caps + 1e-9).all(1)]


def tasks_at(proposal: Proposal, weights: np.ndarray) -> np.ndarray:
    """(n, 3) predictions of code, facts and prose."""
    return proposal.learned.law.predict(weights)[0][:, :3]


def test_the_mean_is_minimal_on_the_grid() -> None:
    proposal = proposed()
    values = tasks_at(proposal, grid()).mean(1)
    found = tasks_at(proposal, proposal.solution.weights[None]).mean(1)[0]
    assert values.min() - 1e-3 < found <= values.min() + 1e-9


@pytest.mark.parametrize("granularity", ["per task", "per family"])
def test_the_worst_family_is_minimal_on_the_grid(granularity: str) -> None:
    spec = objective_of_tasks(
        dict.fromkeys(USEFUL, 1.0), {"facts": "reading", "prose": "reading"}, worst_family=True
    )
    recipe = combine(EXACT, granularity=granularity)
    proposal = proposed(objective=spec, recipe=recipe)
    law = proposed().learned.law if granularity == "per task" else None

    def worst(weights: np.ndarray) -> np.ndarray:
        return proposal.learned.evidence.groups.value(proposal.learned.law.predict(weights)[0])

    document = proposal.to_dict()
    assert document["objective"]["aggregate"] == "worst_family"
    values, found = worst(grid()), float(worst(proposal.solution.weights[None])[0])
    assert values.min() - 2e-3 < found <= values.min() + 1e-6
    assert document["objective"]["proposed"] == pytest.approx(found)
    if law is not None:
        at = tasks_at(proposal, proposal.solution.weights[None])[0]
        assert found == pytest.approx(max(at[0], at[1:].mean()))
        assert at[0] == pytest.approx(at[1:].mean(), abs=1e-6), (
            "at the optimum the two are as bad as each other"
        )


def test_two_families_that_are_the_same_share_the_worst() -> None:
    runs = tuple(replace(run, metrics={**run.metrics, "copy": run.metrics["code"]}) for run in RUNS)
    spec = ObjectiveSpec({"code": 1.0, "copy": 1.0}, aggregation="worst family")
    tied = proposed(runs=runs, objective=spec)
    alone = proposed(objective={"code": 1.0})
    np.testing.assert_allclose(tied.solution.weights, alone.solution.weights, atol=1e-4)
    json.dumps(tied.to_dict(), allow_nan=False)


def test_families_with_weights_keep_the_mean_of_the_tasks() -> None:
    weights = {"code": 1.0, "facts": 2.0, "prose": 3.0}
    plain = proposed(objective=weights).solution.weights
    families = objective_of_tasks(weights, {"facts": "reading", "prose": "reading"}, per_family=True)
    np.testing.assert_allclose(proposed(objective=families).solution.weights, plain, atol=1e-6)


@pytest.mark.parametrize("solver", ["exact", "search", "mean-of-best", "predicted-best", "posterior-mean"])
def test_a_guard_rail_holds_by_the_law_for_every_solver(solver: str) -> None:
    free = proposed(objective={"facts": 1.0, "code": 0.0})
    natural, reached = (
        tasks_at(free, weights[None])[0, 0] for weights in (DOMAINS.natural_weights, free.solution.weights)
    )
    assert reached > natural + 0.05, "facts alone would cost code much"
    guard = TaskGuard("code", worse_than_natural=0.01)
    recipe = combine(EXACT, solver=solver)
    guarded = proposed(objective={"facts": 1.0, "code": 0.0}, guard_rails=(guard,), recipe=recipe)
    assert tasks_at(guarded, guarded.solution.weights[None])[0, 0] <= natural + 0.01 + 1e-6
    document = guarded.to_dict()
    json.dumps(document, allow_nan=False)
    if solver == "exact":
        points = grid()
        predicted = tasks_at(guarded, points)
        within = predicted[:, 0] <= natural + 0.01
        best = float(predicted[within, 1].min())
        found = float(tasks_at(guarded, guarded.solution.weights[None])[0, 1])
        assert best - 3e-3 < found <= best + 1e-9
        (rail,) = [row for row in document["constraints"] if row["kind"] == "guard_rail"]
        assert rail["task"] == "code"
        assert rail["bound"] == pytest.approx(natural + 0.01)
        assert rail["shadow_price"] > 0


def test_two_guard_rails_of_one_task_both_hold() -> None:
    guards = (TaskGuard("code", at_most=10.0), TaskGuard("code", worse_than_natural=0.02))
    proposal = proposed(objective={"facts": 1.0}, guard_rails=guards)
    natural = tasks_at(proposal, DOMAINS.natural_weights[None])[0, 0]
    assert tasks_at(proposal, proposal.solution.weights[None])[0, 0] <= natural + 0.02 + 1e-6


def test_a_guard_rail_nothing_keeps_names_itself() -> None:
    for solver in ("exact", "search", "mean-of-best"):
        recipe = combine(EXACT, solver=solver)
        with pytest.raises(Infeasible, match=r"guard rail|prose") as caught:
            proposed(guard_rails=(TaskGuard("prose", at_most=0.5),), recipe=recipe)
        assert any("prose" in name for name in caught.value.names)


def test_guard_rails_that_say_nothing_or_name_nothing_are_refused() -> None:
    for bounds in ({}, {"at_most": 1.0, "worse_than_natural": 0.1}, {"at_most": float("nan")}):
        with pytest.raises(InvalidSetting, match="prose"):
            TaskGuard("prose", **bounds)
    with pytest.raises(InvalidMetrics, match="poetry") as caught:
        proposed(guard_rails=(TaskGuard("poetry", at_most=1.0),))
    assert caught.value.names == ("poetry",)


def test_a_pin_is_exact_and_a_share_holds_and_is_reported() -> None:
    shares = (
        share_of(["code"], DOMAINS.names, 0.3, 0.3),
        share_of(["books", "web"], DOMAINS.names, None, 0.8),
        share_of(["books"], DOMAINS.names, 0.05, 0.1),
    )
    for solver in ("exact", "search", "mean-of-best", "predicted-best", "posterior-mean"):
        recipe = combine(EXACT, solver=solver)
        document = proposed(constraints=shares, recipe=recipe).to_dict()
        json.dumps(document, allow_nan=False)
        assert document["weights"]["code"] == pytest.approx(0.3, abs=1e-9)
        assert 0.05 - 1e-9 <= document["weights"]["books"] <= 0.1 + 1e-9
        named = {row["name"]: row["bound"] for row in document["constraints"] if row["kind"] == "share"}
        assert named[shares[0].name] == 0.3
    assert proposed(constraints=shares).to_dict()["weights"]["books"] == pytest.approx(0.1)


def test_no_constraint_improves_what_is_predicted() -> None:
    def predicted(**changes: object) -> float:
        return proposed(**changes).to_dict()["objective"]["proposed"]

    free = predicted()
    for changes in (
        {"constraints": (share_of(["code"], DOMAINS.names, 0.5),)},
        {"constraints": (share_of(["books", "code"], DOMAINS.names, None, 0.3),)},
        {"guard_rails": (TaskGuard("code", worse_than_natural=-0.05),)},
        {"repetition_cap": 1.5},
    ):
        assert predicted(**changes) >= free - 1e-9
    assert predicted(repetition_cap=None) <= free + 1e-9


def test_shares_in_conflict_are_named() -> None:
    shares = (
        share_of(["code"], DOMAINS.names, 0.6),
        share_of(["books", "web"], DOMAINS.names, 0.5, name="the rest"),
    )
    for solver in ("exact", "search", "mean-of-best"):
        recipe = combine(EXACT, solver=solver)
        with pytest.raises(Infeasible) as caught:
            proposed(constraints=shares, recipe=recipe)
        assert set(caught.value.names) == {shares[0].name, "the rest"}


def test_a_price_of_repetition_reads_scarce_domains_less_often() -> None:
    """Instead of a cap: the dearer repetition is, the fewer times the domain most repeated is read."""

    def most_epochs(price: float) -> float:
        found = proposed(repetition_cap=None, repetition_price=price).solution
        return float((found.weights * TARGET / DOMAINS.tokens).max())

    free, dear, dearest = (most_epochs(price) for price in (0.0, 1.0, 100.0))
    assert free > dear > dearest
    assert dearest < 1.5, "at such a price hardly anything is read twice"


def test_the_tasks_predicted_worse_are_listed_the_worst_first() -> None:
    """By the law itself: what facts alone would cost the others, against the natural distribution."""
    proposal = proposed(objective={"facts": 1.0, "code": 0.0, "prose": 0.0})
    at = [
        tasks_at(proposal, weights[None])[0]
        for weights in (proposal.solution.weights, DOMAINS.natural_weights)
    ]
    lost = {
        task: float(loss) for task, loss in zip(sorted(USEFUL), at[0] - at[1], strict=True) if loss > 1e-9
    }
    document = proposal.to_dict()
    worse = document["worse"]
    assert [row["task"] for row in worse] == sorted(lost, key=lambda task: -lost[task])
    assert {row["task"]: row["change"] for row in worse} == pytest.approx(lost)
    assert worse[0]["task"] == "code"
    gains = {row["name"]: row["gain_interval"] for row in document["tasks"]}
    for row in worse:
        low, high = gains[row["task"]]
        assert row["interval"] == [-high, -low]
        assert row["is_certain"] == (high < 0)
    assert worse[0]["is_certain"], "a loss of many times the noise"
