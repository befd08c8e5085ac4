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
from store.question import _evidence, unread_warnings

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


def test_a_domain_with_a_weight_that_came_to_no_row_is_named() -> None:
    def run(tiny: float, rows: int) -> RunEvidence:
        return stored(
            {"tiny": tiny, "web": 1 - tiny},
            {"final": {"t": 1.0}, "realised_tokens": {"tiny": rows * 128, "web": (16 - rows) * 128}},
        )

    (said,) = unread_warnings([run(0.02, 0), run(0.01, 0), run(0.1, 2), run(0.0, 0)])
    assert said.startswith(
        "Domain tiny: in 2 of 4 runs it had a weight, of 0.02 at most, which came to no row"
    )
    assert not [*unread_warnings([run(0.1, 2), run(0.0, 0)])]


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
