"""An accuracy asked for is the same question as its error rate asked for, told the other way round."""

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.errors import InvalidSetting
from mixing.methods import Recipe
from mixing.objective import ObjectiveSpec
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.terms import TaskGuard

DOMAINS = Domains.of({"books": 1e6, "code": 2e6, "web": 6e6})
USEFUL = {"quiz": [0.9, 0.2, 0.4], "sums": [0.1, 0.9, 0.3]}


def error_rates(weights: np.ndarray) -> dict[str, float]:
    return {task: 0.2 + 0.6 * float(np.exp(-np.array(useful) @ weights)) for task, useful in USEFUL.items()}


def question_of(*, accuracies: bool, guard: TaskGuard) -> tuple[Question, list[RunEvidence]]:
    generator = np.random.default_rng(1)
    runs = []
    for index, weights in enumerate(generator.dirichlet(np.ones(3), 14)):
        noisy = {
            task: value + 0.01 * generator.standard_normal() for task, value in error_rates(weights).items()
        }
        told = {task: 1 - value if accuracies else value for task, value in noisy.items()}
        runs.append(RunEvidence(f"run{index}", DOMAINS.mixture(weights), told))
    spec = ObjectiveSpec(
        dict.fromkeys(USEFUL, 1.0),
        directions=dict.fromkeys(USEFUL, "higher") if accuracies else {},
        turned=dict.fromkeys(USEFUL, "error rate") if accuracies else {},
    )
    question = Question(
        recipe=Recipe("d-optimal", "effective-power", "per task", "exact"),
        domains=DOMAINS,
        objective=spec,
        target_tokens=8e6,
        guard_rails=(guard,),
    )
    return question, runs


FITTED = 1e-4
"""Of a weight: where rounding ends two fits of the same runs, and the certified solves of them."""


@pytest.mark.parametrize("bound", [None, 0.44])
def test_an_accuracys_proposal_is_its_error_rates_told_the_other_way_round(bound: float | None) -> None:
    if bound is None:
        guards = [TaskGuard("sums", worse_than_natural=0.005)] * 2
    else:
        guards = [TaskGuard("sums", at_least=bound), TaskGuard("sums", at_most=1 - bound)]
    proposals = [propose(*question_of(accuracies=index == 0, guard=guards[index])) for index in (0, 1)]
    told, error = (proposal.to_dict() for proposal in proposals)
    assert told["weights"] == pytest.approx(error["weights"], abs=FITTED)
    for mine, other in zip(
        [told["objective"], *told["tasks"]], [error["objective"], *error["tasks"]], strict=True
    ):
        assert (mine["unit"], mine["direction"], other["direction"]) == ("accuracy", "higher", "lower")
        for end in ("natural", "proposed"):
            assert mine[end] == pytest.approx(1 - other[end])
        assert (
            mine["gain"] == pytest.approx(other["gain"]) == pytest.approx(mine["proposed"] - mine["natural"])
        )
        assert mine["gain_interval"] == pytest.approx(other["gain_interval"])
    for task, slopes in told["effects"].items():
        assert slopes == pytest.approx({name: -slope for name, slope in error["effects"][task].items()})
    rails = [
        [one for one in document["constraints"] if one["kind"] == "guard_rail"] for document in (told, error)
    ]
    assert len(rails[0]) == len(rails[1])
    for mine, other in zip(*rails, strict=True):
        assert mine["bound"] == pytest.approx(1 - other["bound"])
        assert "accuracy, its guard rail" in mine["statement"]
    assert not any("BPB" in one["message"] for one in told["warnings"])


def test_a_bound_on_the_wrong_side_is_refused_by_name() -> None:
    for accuracies, guard, field in (
        (True, TaskGuard("quiz", at_most=0.5), "at_most"),
        (False, TaskGuard("quiz", at_least=0.5), "at_least"),
    ):
        with pytest.raises(InvalidSetting) as caught:
            propose(*question_of(accuracies=accuracies, guard=guard))
        assert caught.value.field == field
