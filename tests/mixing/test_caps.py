"""What other repetition caps would give: as the same question with that cap, and held against what the runs read."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.methods import combine, method_named
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.terms import TaskGuard

DOMAINS = Domains.of({"web": 9e9, "code": 4e8, "books": 1e8}, {"books": 0.5})
"""Half of the books are copies: 5e7 tokens are different text."""
QUESTION = Question(
    domains=DOMAINS,
    objective={"reading": 1.0, "coding": 1.0},
    target_tokens=4e9,
    kl_weight=0.0,
    recipe=combine(method_named("mixwright"), regression="log-linear"),
    proxy_tokens=1e9,
    seed=3,
)


def runs() -> list[RunEvidence]:
    """Tasks that want the scarce domains; the first run trains half of what the others do."""
    generator, found = np.random.default_rng(1), []
    for k, mixture in enumerate(generator.dirichlet([1, 2, 4], 24)):
        books, code, _ = mixture
        metrics = {
            "reading": 1 + float(np.exp(-2 * books - 0.3 * code)) + 0.002 * generator.standard_normal(),
            "coding": 1 + float(np.exp(-1.5 * code)) + 0.002 * generator.standard_normal(),
        }
        named = dict(zip(DOMAINS.names, mixture.tolist(), strict=True))
        found.append(RunEvidence(f"run{k}", named, metrics, tokens=1.0 if k else 0.5))
    return found


RUNS = runs()


def answered(question: Question) -> dict[str, Any]:
    return propose(question, RUNS).to_dict()


def rows_of(question: Question) -> dict[float | None, dict[str, Any]]:
    return {row["repetition_cap"]: row for row in answered(question)["caps"]}


def test_each_cap_gives_what_the_question_asked_with_it_gives() -> None:
    rows = rows_of(replace(QUESTION, repetition_cap=6.0, kl_weight=0.05))
    assert list(rows) == [4.0, 6.0, 8.0, 16.0, None]
    assert [row["is_own"] for row in rows.values()] == [False, True, False, False, False]
    for cap, row in rows.items():
        fresh = answered(replace(QUESTION, repetition_cap=cap, kl_weight=0.05))
        most = max(fresh["domains"], key=lambda domain: domain["epochs"])
        assert row["gain"] == pytest.approx(fresh["objective"]["gain"], abs=1e-6)
        assert (row["most_read"], row["epochs"]) == (most["name"], pytest.approx(most["epochs"], rel=1e-3))


def test_a_higher_cap_gains_no_less_and_is_kept() -> None:
    rows = list(rows_of(QUESTION).values())
    assert all(after["gain"] >= before["gain"] - 1e-9 for before, after in pairwise(rows))
    assert rows[-1]["gain"] > rows[0]["gain"] + 0.01, "the scarce domains are wanted"
    for row in rows[:-1]:
        assert row["epochs"] == pytest.approx(row["repetition_cap"], rel=1e-6)
    assert rows[-1]["epochs"] > 16


def test_a_cap_is_supported_where_a_run_read_what_it_repeats_about_as_often() -> None:
    unique = {"web": 9e9, "code": 4e8, "books": 5e7}
    epochs = {
        cap: {
            domain["name"]: domain["epochs"]
            for domain in answered(replace(QUESTION, repetition_cap=cap))["domains"]
        }
        for cap in (4.0, 8.0, 16.0, None)
    }
    for proxy_tokens, answers in ((1e6, {False}), (3e9, {True, False}), (1e12, {True})):
        read = {
            name: max(run.mixture[name] * run.tokens * proxy_tokens / text for run in RUNS)
            for name, text in unique.items()
        }
        rows = rows_of(replace(QUESTION, proxy_tokens=proxy_tokens))
        for cap, row in rows.items():
            repeated = {name: times for name, times in epochs[cap].items() if times > 1.001}
            beyond = {name for name, times in repeated.items() if read[name] < 0.9 * times}
            assert set(row["beyond"]) == beyond
            assert row["supported"] is (not beyond)
            assert row["run_epochs"] == pytest.approx(read[row["most_read"]])
        assert {row["supported"] for row in rows.values()} == answers


def test_what_a_run_trains_has_to_be_known() -> None:
    for row in rows_of(replace(QUESTION, proxy_tokens=None)).values():
        assert (row["run_epochs"], row["beyond"], row["supported"]) == (None, None, None)
    short = replace(QUESTION, proxy_tokens=None, target_tokens=1e7)
    assert all(row["supported"] for row in rows_of(short).values()), "nothing is repeated"


def test_a_cap_that_no_mixture_keeps_says_so() -> None:
    rows = rows_of(replace(QUESTION, target_tokens=6e10, repetition_cap=20.0))
    assert [cap for cap, row in rows.items() if row["gain"] is None] == [4.0]
    assert rows[4.0]["supported"] is None
    _, reading = answered(replace(QUESTION, repetition_cap=12.0))["tasks"]
    rail = TaskGuard("reading", at_most=reading["proposed"])
    railed = rows_of(replace(QUESTION, repetition_cap=16.0, guard_rails=(rail,)))
    assert [cap for cap, row in railed.items() if row["gain"] is None] == [4.0, 8.0]


def test_with_a_preference_the_rows_are_the_best_as_predicted() -> None:
    plain = rows_of(QUESTION)
    document = answered(replace(QUESTION, prefer="natural"))
    assert document["objective"]["gain"] < plain[4.0]["gain"]
    for row in document["caps"]:
        assert row["gain"] == pytest.approx(plain[row["repetition_cap"]]["gain"], abs=1e-9)


def test_where_mixtures_are_searched_for_and_where_no_cap_was_asked_for_nothing_is_said() -> None:
    searched = combine(method_named("mixwright"), regression="log-linear", solver="search")
    assert answered(replace(QUESTION, recipe=searched))["caps"] is None
    assert answered(replace(QUESTION, repetition_cap=None))["caps"] is None
