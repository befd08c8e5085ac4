"""What a law is fitted to: the rows that a run trained, not the mixture it was asked for."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.errors import DuplicateRun
from mixing.methods import combine, method_named
from mixing.question import Question
from mixing.runs.evidence import Needs, RunEvidence, gather
from proxy_models.training.mixture_sampler import allocate_rows
from store.documents import OptimizationDocument, TrainingDocument
from store.question import _evidence

SLOPES = {"books": 1.0, "code": 3.0, "web": 2.0}
ROWS = 16


def stored(weights: dict[str, float], result: dict[str, Any]) -> RunEvidence:
    run: Any = SimpleNamespace(id="run", weights=weights, result=result, requested_tokens=2048, round=0)
    document = OptimizationDocument(target_tokens=1.0, proxy=TrainingDocument(tokens=2048))
    return _evidence(run, document)


def test_a_run_counts_as_what_it_trained_and_an_old_one_as_what_was_asked() -> None:
    asked = {"books": 0.3, "web": 0.7}
    run = stored(asked, {"final": {"t": 1.0}, "realised_tokens": {"books": 256, "web": 768}})
    assert run.mixture == {"books": 0.25, "web": 0.75}
    assert run.requested == asked
    assert run.rounding == pytest.approx(0.1)
    old = stored(asked, {"final": {"t": 1.0}})
    assert (old.mixture, old.rounding) == (asked, 0.0)


def test_a_law_of_short_runs_is_fitted_to_what_they_trained() -> None:
    generator = np.random.default_rng(0)
    runs = []
    for number, asked in enumerate(generator.dirichlet(np.ones(3) / 2, 12)):
        trained = allocate_rows(asked, ROWS, np.full(3, ROWS)) / ROWS
        runs.append(
            RunEvidence(
                f"run-{number}",
                dict(zip(SLOPES, trained.tolist(), strict=True)),
                {"t": float(trained @ list(SLOPES.values()))},
                requested=dict(zip(SLOPES, asked.tolist(), strict=True)),
            )
        )
    recipe = combine(method_named("mixwright"), regression="linear")
    domains = Domains.of(dict.fromkeys(SLOPES, 1e6))
    question = Question(domains=domains, target_tokens=1e6, objective={"t": 1.0}, rounds=(12,), recipe=recipe)
    evidence = propose(question, runs).to_dict()
    as_trained = propose(question, [replace(run, requested=None) for run in runs]).to_dict()
    as_asked = propose(question, [replace(run, mixture=run.requested or {}) for run in runs]).to_dict()
    assert evidence["objective"] == as_trained["objective"]
    assert evidence["objective"]["mae"] < as_asked["objective"]["mae"]
    assert evidence["rounding"] == max(run.rounding for run in runs)
    missed = {name: sum(run.mixture[name] == 0 for run in runs) for name in SLOPES}
    assert sum(missed.values()) > 0
    assert evidence["without_rows"] == {name: runs for name, runs in missed.items() if runs}
    (warning,) = [warning for warning in evidence["warnings"] if warning["code"] == "coarse_rows"]
    assert all(f"{name} in {runs} of 12" in warning["message"] for name, runs in missed.items() if runs)
    assert f"{evidence['rounding']:.3f}" in warning["message"]


def test_a_domain_whose_little_weight_often_came_to_no_row_is_named_in_one_sentence() -> None:
    generator = np.random.default_rng(1)
    names = (*SLOPES, "tiny")

    def run(number: int, lost: bool) -> RunEvidence:
        *large, tiny = generator.dirichlet([1, 1, 1, 0.3])
        trained = np.array([*np.array(large) / (sum(large) if lost else 1), 0.0 if lost else tiny])
        asked = trained * (1 - 1e-3) + 1e-3 * np.array([0, 0, 0, 1]) if lost else trained
        metric = float(trained @ [*SLOPES.values(), 2.0])
        requested, mixture = (dict(zip(names, w.tolist(), strict=True)) for w in (asked, trained))
        return RunEvidence(f"run-{number}", mixture, {"t": metric}, requested=requested)

    recipe = combine(method_named("mixwright"), regression="linear")
    domains = Domains.of(dict.fromkeys(names, 1e6))
    question = Question(domains=domains, target_tokens=1e6, objective={"t": 1.0}, rounds=(18,), recipe=recipe)
    evidence = propose(question, [run(number, lost=number % 3 == 0) for number in range(18)]).to_dict()
    (warning,) = [warning for warning in evidence["warnings"] if warning["code"] == "without_rows"]
    assert "tiny in 6 of 18 runs" in warning["message"]
    assert "coarse_rows" not in {one["code"] for one in evidence["warnings"]}
    evidence = propose(question, [run(number, lost=number == 0) for number in range(18)]).to_dict()
    assert evidence["without_rows"] == {"tiny": 1}
    assert "without_rows" not in {one["code"] for one in evidence["warnings"]}


def test_runs_that_came_to_the_same_rows_are_one_and_no_fault() -> None:
    rows = [(4, 8, 4), (8, 4, 4), (4, 4, 8), (2, 12, 2), (10, 4, 2), (4, 8, 4)]
    runs = [
        RunEvidence(
            f"run-{number}",
            dict(zip(SLOPES, (row / ROWS for row in trained), strict=True)),
            {"t": float(np.dot(trained, list(SLOPES.values())))},
            requested=dict(zip(SLOPES, [1 / 3 - number / 99, 1 / 3, 1 / 3 + number / 99], strict=True)),
        )
        for number, trained in enumerate(rows)
    ]
    domains = Domains.of(dict.fromkeys(SLOPES, 1e6))
    evidence = gather(domains, runs, {"t": 1.0}, Needs(5))
    assert len(evidence.table) == 5
    (dropped,) = evidence.dropped
    assert dropped.reason == "it trained the very rows of run 'run-0', and counts once"
    asked_for_twice = replace(runs[0], id="again")  # where caps leave little room two draws are one mixture
    assert gather(domains, [*runs[:5], asked_for_twice], {"t": 1.0}, Needs(5)).dropped[0].id == "again"
    theirs = [replace(run, requested=None) for run in (*runs[:5], asked_for_twice)]
    with pytest.raises(DuplicateRun):
        gather(domains, theirs, {"t": 1.0}, Needs(5))
