"""A decision and not a point: of the mixtures that cannot be told from the best, the one nearest to another."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixing.answer.proposal import Proposal, propose
from mixing.answer.uncertainty import gain_intervals
from mixing.domains import Domains
from mixing.errors import InvalidSetting, MissingDomain, NotHeeded
from mixing.methods import combine, method_named
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.constraints import share_of

DOMAINS = Domains.of({"web": 6e9, "code": 3e9, "books": 1e9})
QUESTION = Question(
    domains=DOMAINS,
    objective={"reading": 1.0, "coding": 1.0},
    target_tokens=4e9,
    recipe=combine(method_named("mixwright"), regression="log-linear"),
    seed=3,
)
MINE = {"books": 0.2, "code": 0.5, "web": 0.3}


def runs(noise: float) -> list[RunEvidence]:
    generator, found = np.random.default_rng(1), []
    for k, mixture in enumerate(generator.dirichlet([1.5, 3, 5], 30)):
        _, code, web = mixture
        reading, coding = (
            np.array([1.2 - 0.4 * (web + 0.02) ** 0.4, 1.0 - 0.4 * (code + 0.02) ** 0.4])
            + noise * generator.standard_normal(2)
        ).tolist()
        named = dict(zip(DOMAINS.names, mixture.tolist(), strict=True))
        found.append(RunEvidence(f"run{k}", named, {"reading": reading, "coding": coding}))
    return found


def decided(question: Question, noise: float) -> tuple[Proposal, dict[str, Any]]:
    proposal = propose(question, runs(noise))
    return proposal, proposal.to_dict()


def divergence(mixture: np.ndarray, other: np.ndarray) -> np.ndarray:
    inside = np.maximum(mixture, 1e-300)
    return (mixture * np.log(inside / other)).sum(axis=-1)


def lowest_gain_of_best(proposal: Proposal, best: np.ndarray, mixtures: np.ndarray) -> np.ndarray:
    """(n,) lower ends of the intervals of the best's gain over each, with the best in the place of every refit's."""
    learned = proposal.learned
    assert learned.refits is not None
    optima = np.repeat(best[None], len(learned.refits.laws), axis=0)
    return np.array(
        [
            gain_intervals(learned.law, learned.refits, learned.evidence, optima, one, best).bounds[-1, 0]
            for one in mixtures
        ]
    )


def test_the_nearest_of_those_that_cannot_be_told_from_the_best_is_what_a_grid_finds() -> None:
    proposal, document = decided(replace(QUESTION, prefer=MINE), 0.02)
    decision = proposal.decision
    assert decision is not None
    assert document["decision"]["gain_of_best_interval"][0] <= 0 < document["decision"]["gain_of_best"]
    grid = np.array([(a, b, 1 - a - b) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1, 41)])
    grid = grid[(grid[:, 2] >= 0) & (grid <= proposal.problem.caps + 1e-9).all(axis=1)]
    mine = np.array([MINE[name] for name in DOMAINS.names])
    law, value = proposal.learned.law, proposal.learned.evidence.groups.value
    predicted = value(law.mean(grid))
    (taken,) = value(law.mean(proposal.solution.weights[None]))
    no_worse = grid[predicted <= taken]
    assert len(no_worse) > 20
    own = float(divergence(proposal.solution.weights, mine))
    assert own <= divergence(no_worse, mine).min() + 1e-3  # a preferred mixture has a floor of 1e-4
    # A twentieth of the way further it can be told, and what was taken cannot.
    further = proposal.solution.weights + 0.05 * (mine - proposal.solution.weights)
    there, beyond = lowest_gain_of_best(
        proposal, decision.best, np.stack([proposal.solution.weights, further])
    )
    assert beyond > there


def test_with_much_noise_natural_itself_is_taken_and_with_none_nearly_the_best() -> None:
    natural = {"books": 0.1, "code": 0.3, "web": 0.6}
    _, noisy = decided(replace(QUESTION, prefer="natural"), 0.2)
    assert noisy["weights"] == pytest.approx(natural)
    assert noisy["decision"]["is_preferred"]
    assert noisy["objective"]["gain"] == pytest.approx(0, abs=1e-12)
    _, exact = decided(replace(QUESTION, prefer="natural"), 0.002)
    decision = exact["decision"]
    assert not decision["is_preferred"]
    assert 0 < decision["distance"] < decision["distance_of_best"]
    assert decision["gain_of_best"] < decision["gain_over_preferred"] / 3
    assert 0.5 < decision["probability_best_better"] < 0.96
    for name, (low, high) in decision["region"].items():
        assert 0 <= low <= decision["best"][name] <= high <= 1
    widths = [sum(high - low for low, high in one["decision"]["region"].values()) for one in (noisy, exact)]
    assert widths[0] > widths[1]


def test_no_constraint_is_broken_for_a_preference() -> None:
    pinned = replace(
        QUESTION,
        prefer=MINE,
        constraints=(share_of(["books"], DOMAINS.names, maximum=0.05, name="few books"),),
    )
    _, document = decided(pinned, 0.1)
    assert document["weights"]["books"] <= 0.05 + 1e-9
    assert document["decision"]["region"]["books"][1] <= 0.05 + 1e-9
    assert document["decision"]["distance"] < document["decision"]["distance_of_best"]


def test_nothing_is_decided_unless_asked() -> None:
    assert decided(QUESTION, 0.02)[1]["decision"] is None


def test_a_preference_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="prefer is 'uniform'"):
        replace(QUESTION, prefer="uniform")
    with pytest.raises(MissingDomain, match="web") as refused:
        replace(QUESTION, prefer={"books": 0.5, "code": 0.5})
    assert refused.value.field == "prefer"
    with pytest.raises(NotHeeded, match="prefer"):
        replace(QUESTION, method="autoscale", recipe=None, prefer="natural")


def test_a_question_with_a_preference_is_read_as_it_was_written() -> None:
    for prefer in (None, "natural", MINE):
        question = replace(QUESTION, prefer=prefer)
        assert Question.from_dict(question.to_dict()).prefer == prefer
