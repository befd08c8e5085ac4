"""Caps where text is held twice: what counts is how often a document is read, whichever domain it is read from."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.answer.proposal import propose
from mixing.answer.untrained import baseline
from mixing.domains import Domains
from mixing.limits import Limits
from mixing.methods import METHODS, Method
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.constraints import share_of
from mixing.swarm.sample import sample_round

CAP = 4.0


def test_half_and_half_of_two_copies_is_over_the_cap_of_their_text() -> None:
    domains = Domains.of({"code": 1e6, "web": 1e6}, shared=(("code", "web"),))
    limits = Limits(domains, target_tokens=7.2e6, repetition_cap=CAP)
    assert limits.epochs(np.array([0.5, 0.5])).tolist() == [3.6, 3.6]  # which are 7.2 of the text
    assert limits.exceeded(np.array([0.5, 0.5])).all()
    assert not replace(limits, domains=replace(domains, shared=())).exceeded(np.array([0.5, 0.5])).any()
    assert not limits.is_feasible()
    assert replace(limits, target_tokens=4e6).is_feasible()


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=2, max_size=6),
    st.integers(0, 2**16),
    st.floats(1.0, 60.0),
)
@settings(max_examples=100, deadline=None)
def test_a_mixture_is_over_a_cap_where_some_document_is_read_more_often(
    drawn: list[tuple[int, int]], seed: int, target: float
) -> None:
    """Each domain holds one of three texts of 5, 6 or 7 documents, so and so many times over."""
    names = [f"d{number}" for number in range(len(drawn))]
    tokens = {name: float((5 + text) * copies) for name, (text, copies) in zip(names, drawn, strict=True)}
    unique = {name: 1 / copies for name, (_, copies) in zip(names, drawn, strict=True)}
    holders = [tuple(n for n, (text, _) in zip(names, drawn, strict=True) if text == one) for one in range(3)]
    shared = tuple(one for one in holders if len(one) > 1)
    limits = Limits(Domains.of(tokens, unique, shared), target, CAP)
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(names)))
    reads = np.zeros(3)
    for name, (text, copies), weight in zip(names, drawn, weights, strict=True):
        reads[text] += weight * target / tokens[name] * copies
    over = {text for text in range(3) if reads[text] > CAP * (1 + 1e-5)}
    under = {text for text in range(3) if reads[text] < CAP * (1 - 1e-5)}
    for (text, _), exceeded in zip(drawn, limits.exceeded(weights), strict=True):
        assert not (text in over and not exceeded)
        assert not (text in under and exceeded)
    apart = np.minimum(limits.separate_caps, 1)
    if apart.sum() > 0:
        assert not limits.exceeded(np.minimum(weights, apart)).any()


def question(**asked: object) -> Question:
    domains = Domains.of({"books": 3e6, "code": 1e6, "web": 1e6}, shared=(("code", "web"),))
    return Question(domains=domains, target_tokens=6e6, repetition_cap=CAP, rounds=(16,), **asked)  # type: ignore[arg-type]


def test_the_best_mixture_reads_shared_text_no_more_than_the_cap_and_says_so() -> None:
    runs = [
        RunEvidence(
            f"run-{number}",
            dict(zip(("books", "code", "web"), row.tolist(), strict=True)),
            {"t": 2 - float(row[1] + row[2]) ** 0.5 / 2},
        )
        for number, row in enumerate(np.random.default_rng(1).dirichlet(np.ones(3), 16))
    ]
    evidence = propose(question(objective={"t": 1.0}), runs).to_dict()
    weights = evidence["weights"]
    assert (weights["code"] + weights["web"]) * 6e6 / 1e6 == pytest.approx(CAP, rel=1e-4)
    (row,) = [row for row in evidence["constraints"] if row["kind"] == "shared_cap"]
    assert row["domains"] == ["code", "web"]
    assert row["statement"] == "The text that code and web share is read 4 times, its cap."


TRAINED = [method for method in METHODS.values() if method.recipe is not None]


@pytest.mark.parametrize("method", TRAINED, ids=lambda method: method.name)
def test_every_swarm_reads_shared_text_no_more_than_its_cap(method: Method) -> None:
    assert method.recipe is not None
    runs = method.default_runs(3, method.recipe)
    asked = replace(
        question(method=method.name), rounds=method.split(method.recipe, runs, 3), target_tokens=8e6
    )
    entropies = {"books": (1.0, 2.0, 3.0, 4.0), "code": (4.0, 1.0, 3.0, 2.0), "web": (2.0, 4.0, 1.0, 3.0)}
    sampled = sample_round(asked, 0, (), entropies)
    weights = np.array([[*run.mixture.as_dict().values()] for run in sampled])
    assert ((weights[:, 1] + weights[:, 2]) * 8e6 / 1e6 <= CAP * (1 + 1e-9)).all()
    assert len(np.unique(weights.round(9), axis=0)) == len(weights)
    assert np.ptp(weights, axis=0).min() > 0.05, "every domain is varied"


def test_a_run_over_the_cap_of_shared_text_is_moved_and_the_others_stay_as_drawn() -> None:
    names = ("books", "code", "news", "web")
    domains = Domains.of({"books": 1e6, "code": 1e6, "news": 1e6, "web": 1e6}, shared=(("code", "web"),))
    asked = Question(
        domains=domains,
        method="olmix",
        target_tokens=8e6,
        repetition_cap=CAP,
        rounds=(40,),
        constraints=(share_of(["books"], names, 0.2, 0.2), share_of(["news"], names, 0.05, 1.0)),
    )
    moved = np.array([[*run.mixture.as_dict().values()] for run in sample_round(asked)])
    alone = replace(asked, domains=replace(domains, shared=()))
    drawn = np.array([[*run.mixture.as_dict().values()] for run in sample_round(alone)])
    over = drawn[:, 1] + drawn[:, 3] > 0.5
    assert 0 < over.sum() < 40
    np.testing.assert_array_equal(moved[~over], drawn[~over])
    np.testing.assert_allclose(moved[over, 1] + moved[over, 3], 0.5, rtol=1e-9)
    assert (moved[:, 0] == 0.2).all(), "a pin is exact"
    assert (moved[:, 2] >= 0.05 - 1e-12).all()


@pytest.mark.parametrize("method", ["natural", "uniform", "temperature", "unimax"])
def test_mixtures_that_nothing_is_trained_for_keep_to_it_too(method: str) -> None:
    asked = question(method=method)
    weights = baseline(asked)["weights"]
    assert not asked.limits.exceeded(np.array([weights[name] for name in asked.domains.names])).any()
