"""What runs predict of mixtures somebody has in mind, against a truth that is a formula and against a proposal."""

from dataclasses import replace

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.answer.whatif import Judge, quick
from mixing.domains import Domains
from mixing.errors import InvalidWeights, MissingDomain, UnknownDomain
from mixing.methods import combine, method_named
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.constraints import share_of
from mixing.terms import TaskGuard

TOKENS = {"books": 1e9, "code": 3e9, "web": 6e9}
NATURAL = {"books": 0.1, "code": 0.3, "web": 0.6}
FAR = {"books": 0.3, "code": 0.3, "web": 0.4}


def truth(weights: dict[str, float]) -> dict[str, float]:
    """Two tasks of the effective power law's own shape, so that hardly anything is missed."""
    return {
        "humaneval": 0.6 + (0.2 + weights["code"]) ** -0.3,
        "prose": 0.5 + (0.3 + weights["books"] + 0.2 * weights["web"]) ** -0.4,
    }


@pytest.fixture(scope="module")
def runs() -> tuple[RunEvidence, ...]:
    rows = np.random.default_rng(0).dirichlet([1, 3, 6], size=40)
    mixtures = [dict(zip(TOKENS, map(float, row), strict=True)) for row in rows]
    return tuple(RunEvidence(f"run-{k}", mixture, truth(mixture)) for k, mixture in enumerate(mixtures))


@pytest.fixture(scope="module")
def question() -> Question:
    domains = Domains.of(TOKENS)
    return Question(
        domains=domains,
        recipe=combine(method_named("mixwright"), regression="effective-power"),
        objective={"humaneval": 1.0, "prose": 1.0},
        target_tokens=1e10,
        repetition_cap=2,
        kl_weight=0.0,
        constraints=(share_of(["web"], domains.names, minimum=0.5),),
        guard_rails=(TaskGuard("humaneval", worse_than_natural=0.0),),
    )


def test_what_is_predicted_of_given_weights_is_near_the_truth_within_its_intervals(
    question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    said = Judge.of(question, runs).evaluate({"far": FAR})["mixtures"]["far"]
    real, natural = truth(FAR), truth(NATURAL)
    for task in said["tasks"]:
        assert task["proposed"] == pytest.approx(real[task["name"]], abs=0.02)
        low, high = task["gain_interval"]
        assert low <= natural[task["name"]] - real[task["name"]] <= high
        low, high = task["proposed_interval"]
        assert low <= real[task["name"]] <= high
    assert {row["name"]: round(row["epochs"], 9) for row in said["domains"]} == {
        "books": 3.0,
        "code": 1.0,
        "web": pytest.approx(2 / 3, abs=1e-9),
    }


def test_every_limit_the_weights_break_is_told_in_a_sentence(
    question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    broken = {"books": 0.3, "code": 0.25, "web": 0.45}
    said = Judge.of(question, runs).evaluate({"broken": broken, "natural": NATURAL})["mixtures"]
    assert [(row["kind"], row["name"]) for row in said["broken"]["violated"]] == [
        ("repetition_cap", "books"),
        ("share", "share of web"),
        ("guard_rail", "humaneval"),
    ]
    assert said["broken"]["violated"][0]["statement"] == "books would be read 3.00 times, over its cap of 2."
    assert said["natural"]["violated"] == []
    assert said["natural"]["objective"]["gain"] == pytest.approx(0.0, abs=1e-12)


def test_the_distance_to_the_runs_is_that_of_a_loop_over_them(
    question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    said = Judge.of(question, runs).evaluate({"far": FAR})["mixtures"]["far"]
    apart = sorted(sum(abs(run.mixture[name] - FAR[name]) for name in FAR) for run in runs)
    assert said["nearest_run_distance"] == pytest.approx(apart[0])
    assert said["run_distances"]["farthest"] == pytest.approx(apart[-1])


def test_a_proposal_s_own_mixture_is_predicted_as_the_proposal_says(
    question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    proposed = propose(question, runs).to_dict()
    said = Judge.of(question, runs).evaluate({"again": proposed["weights"]})["mixtures"]["again"]
    assert said["objective"]["proposed"] == pytest.approx(proposed["objective"]["proposed"], rel=1e-12)
    assert said["nearest_run_distance"] == pytest.approx(proposed["nearest_run_distance"], rel=1e-12)
    assert said["violated"] == []


@pytest.mark.parametrize(
    ("weights", "error", "named"),
    [
        ({"books": 0.5, "code": 0.5}, MissingDomain, "web"),
        ({**NATURAL, "cod": 0.0}, UnknownDomain, "cod"),
        ({**NATURAL, "web": 0.7}, InvalidWeights, "sum to 1.1"),
    ],
)
def test_weights_that_are_no_mixture_of_the_domains_are_refused_by_name(
    weights: dict[str, float],
    error: type[Exception],
    named: str,
    question: Question,
    runs: tuple[RunEvidence, ...],
) -> None:
    with pytest.raises(error, match=named):
        Judge.of(question, runs).evaluate({"mine": weights})


def test_an_ensemble_that_would_keep_somebody_waiting_gives_way_and_says_so() -> None:
    plain = Question(domains=Domains.of(TOKENS), objective={"t0": 1.0}, target_tokens=1e10)

    def measured(runs: int, tasks: int, without: int = 0) -> list[RunEvidence]:
        metrics = {f"t{t}": 1.0 for t in range(tasks)}
        whole = [RunEvidence("r", NATURAL, metrics)] * (runs - without)
        return [*whole, *[RunEvidence("r", NATURAL, {"t1": 1.0})] * without]

    assert quick(plain, measured(40, 2)) == (plain, None)
    guarded = replace(plain, guard_rails=(TaskGuard("t1", worse_than_natural=0.1),))
    for question, runs, tasks, without, law in (
        (plain, 20_000, 10, 0, "effective-power"),
        (plain, 20_000, 300, 0, "effective-power-of-objective"),
        (plain, 200, 4_000, 0, "ensemble-of-objective"),
        (plain, 200, 4_000, 40, "linear"),
        (guarded, 200, 4_000, 0, "linear"),
    ):
        lighter, note = quick(question, measured(runs, tasks, without))
        assert lighter.parts.regression == law
        assert note is not None
        assert f"{runs} runs of {tasks} metrics" in note


def test_the_gain_over_another_mixture_is_the_difference_of_both_and_over_natural_the_usual_one(
    question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    judge = Judge.of(question, runs)
    said = judge.evaluate({"far": FAR, "near": {"books": 0.15, "code": 0.3, "web": 0.55}}, against=NATURAL)
    for one in said["mixtures"].values():
        assert one["over"]["objective"]["gain"] == pytest.approx(one["objective"]["gain"])
        assert one["over"]["objective"]["gain_interval"] == pytest.approx(one["objective"]["gain_interval"])
    mixtures = said["mixtures"]
    over = judge.evaluate({"far": FAR}, against=mixtures["near"]["weights"])["mixtures"]["far"]["over"]
    apart = mixtures["far"]["objective"]["gain"] - mixtures["near"]["objective"]["gain"]
    assert over["objective"]["gain"] == pytest.approx(apart)
    real, other = truth(FAR), truth(mixtures["near"]["weights"])
    for task in over["tasks"]:
        low, high = task["gain_interval"]
        assert low - 1e-3 <= other[task["name"]] - real[task["name"]] <= high + 1e-3
    assert judge.evaluate({"far": FAR})["mixtures"]["far"]["over"] is None


def test_nothing_is_gained_over_oneself_and_that_is_certain(
    question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    said = Judge.of(question, runs).evaluate({"same": NATURAL, "far": FAR}, against=FAR)["mixtures"]
    for gains in (said["same"]["objective"], *said["same"]["tasks"], said["far"]["over"]["objective"]):
        assert (gains["gain"], gains["gain_interval"]) == (pytest.approx(0.0), pytest.approx([0.0, 0.0]))
