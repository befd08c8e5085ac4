"""Shares and guard rails around a proposal: how they are called, and what is refused before anything is trained."""

from dataclasses import replace

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting
from mixing.limits import Limits
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.constraints import share_of
from mixing.terms import TaskGuard
from tests.mixing.objectives import objective_of_tasks

DOMAINS = Domains.of({"books": 2e6, "code": 1e6, "wiki": 2e5})
EFFECTS = {"code": [0.2, -2.0, -0.5], "prose": [-1.5, 0.1, -4.0], "sums": [0.3, -1.0, 0.2]}


QUESTION = Question(
    method="olmix", domains=DOMAINS, objective=dict.fromkeys(EFFECTS, 1.0), target_tokens=1e6, kl_weight=0.01
)


def runs() -> list[RunEvidence]:
    """Three tasks of a known law, one of them called like a domain."""
    generator = np.random.default_rng(0)
    found = []
    for index, row in enumerate(generator.dirichlet([2.0, 1.0, 0.5], size=20)):
        metrics = {task: 1.0 + float(np.exp(np.array(effect) @ row)) for task, effect in EFFECTS.items()}
        found.append(RunEvidence(f"r{index}", dict(zip(DOMAINS.names, row.tolist(), strict=True)), metrics))
    return found


def test_a_share_and_a_guard_rail_may_concern_what_is_called_like_a_domain() -> None:
    guard = TaskGuard("code", worse_than_natural=0.0)
    share = share_of(["books"], DOMAINS.names, minimum=0.5)
    document = propose(replace(QUESTION, constraints=(share,), guard_rails=(guard,)), runs()).to_dict()
    assert document["weights"]["books"] == pytest.approx(0.5, abs=1e-6)
    tasks = {task["name"]: task for task in document["tasks"]}
    assert tasks["code"]["gain"] >= -1e-6
    assert {one["kind"] for one in document["constraints"]} >= {"share"}


def test_shares_in_conflict_are_named() -> None:
    names = DOMAINS.names
    shares = [share_of(["books"], names, 0.6), share_of(["code"], names, 0.5, name="plenty of code")]
    with pytest.raises(Infeasible) as conflict:
        Limits(DOMAINS, 1e6, None, tuple(shares)).check()
    assert set(conflict.value.names) == {"share of books", "plenty of code"}
    Limits(DOMAINS, 1e6, None, tuple(shares[:1])).check()


def test_a_share_beyond_its_domains_cap_is_named_with_the_cap() -> None:
    share = share_of(["wiki"], DOMAINS.names, minimum=0.9)  # 4 epochs of 200,000 are .8 of 1,000,000
    with pytest.raises(Infeasible) as conflict:
        Limits(DOMAINS, 1e6, 4.0, (share,)).check()
    assert set(conflict.value.names) == {"wiki", "share of wiki"}


def test_two_constraints_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="wiki"):
        share_of(["books", "code"], DOMAINS.names, maximum=0.9, name="wiki")
    twice = [share_of(["books", "code"], DOMAINS.names, maximum=0.9, name="most")] * 2
    with pytest.raises(InvalidSetting) as taken:
        Limits(DOMAINS, 1e6, None, tuple(twice)).check()
    assert taken.value.names == ("most",)


def test_the_document_of_a_worst_family_says_what_each_is_the_mean_of() -> None:
    objective = objective_of_tasks(
        {"code": 1.0, "sums": 3.0, "prose": 1.0}, {"code": "tech", "sums": "tech"}, worst_family=True
    )
    document = propose(replace(QUESTION, objective=objective), runs()).to_dict()
    families = {one["name"]: one for one in document["objective"]["families"]}
    assert families["tech"]["tasks"] == pytest.approx({"code": 0.25, "sums": 0.75})
    assert families["prose"]["tasks"] == {"prose": 1.0}
    for end in ("natural", "proposed"):
        assert max(one[end] for one in families.values()) == pytest.approx(document["objective"][end])
    assert propose(QUESTION, runs()).to_dict()["objective"]["families"] == []
