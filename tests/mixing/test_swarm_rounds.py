"""Every sampler through `sample_round`, and rounds that learn from those before."""

from dataclasses import replace

import numpy as np
import pytest

from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting, UnknownDomain
from mixing.methods import METHODS, combine
from mixing.objective import ObjectiveSpec
from mixing.parts import SAMPLERS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.constraints import LinearConstraint, share_of
from mixing.swarm.sample import SampledRun, sample_round
from mixing.swarm.samplers import FIDELITIES

DOMAINS = Domains.of({"books": 5e5, "code": 1e6, "web:forums": 2e6, "web:news": 5e6})
TARGET = 1e6
OBJECTIVE = ObjectiveSpec({"facts": 1.0, "prose": 1.0})
ENTROPIES = {name: (8.0 + j, 13.0 - j, 6.0 + j % 2, 7.0 + j % 3) for j, name in enumerate(DOMAINS.names)}


def truth(weights: np.ndarray, tokens: float = 1.0) -> dict[str, float]:
    """Both tasks want books and code."""
    useful = {"facts": [2.0, 0.5, 0.1, 0.1], "prose": [1.0, 1.0, 0.2, 0.1]}
    return {task: 1 + float(np.array(u) @ (tokens * weights + 0.01)) ** -0.3 for task, u in useful.items()}


def question_of(sampler: str, rounds: tuple[int, ...], **changes: object) -> Question:
    method = next(name for name in ("olmix", "admire") if compatible(name, sampler))
    recipe = combine(METHODS[method], sampler=sampler)
    question = Question(
        method=method,
        recipe=recipe,
        domains=DOMAINS,
        objective=OBJECTIVE,
        target_tokens=TARGET,
        seed=3,
        rounds=rounds,
    )
    return replace(question, **changes)  # pyright: ignore[reportArgumentType]


def compatible(method: str, sampler: str) -> bool:
    try:
        combine(METHODS[method], sampler=sampler)
    except InvalidSetting:
        return False
    return True


def rows(swarm: tuple[SampledRun, ...]) -> np.ndarray:
    return np.array([run.mixture.align(DOMAINS.names) for run in swarm])


def trained(swarm: tuple[SampledRun, ...], number: int) -> tuple[RunEvidence, ...]:
    return tuple(
        RunEvidence(
            f"{number}.{index}",
            run.mixture,
            truth(run.mixture.align(DOMAINS.names), run.tokens),
            tokens=run.tokens,
            round=number,
        )
        for index, run in enumerate(swarm)
    )


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_first_round_is_on_the_simplex_under_its_caps_distinct_and_repeatable(sampler: str) -> None:
    runs = 9 if sampler == "perturbation" else 14
    question = question_of(sampler, (runs, 5))
    swarm = sample_round(question, entropies=ENTROPIES)
    weights = rows(swarm)
    assert weights.shape == (runs, 4)
    assert (weights >= 0).all()
    assert (weights <= question.limits.caps + 1e-9).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-9)
    assert len({(row.tobytes(), run.tokens) for row, run in zip(weights, swarm, strict=True)}) == runs
    assert sample_round(question, entropies=ENTROPIES) == swarm
    assert all(run.tokens == 1 for run in swarm) != SAMPLERS[sampler].absolute_tokens


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"perturbation"}))
def test_pins_are_exact_and_ranges_hold_for_every_sampler(sampler: str) -> None:
    constraints = (
        share_of(["books"], DOMAINS.names, 0.15, 0.15),
        share_of(["code"], DOMAINS.names, 0.1, 0.4),
    )
    weights = rows(sample_round(question_of(sampler, (14,), constraints=constraints), entropies=ENTROPIES))
    assert (weights[:, 0] == 0.15).all()
    assert (weights[:, 1] >= 0.1 - 1e-9).all()
    assert (weights[:, 1] <= 0.4 + 1e-9).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-9)


def test_a_constraint_on_a_multiple_of_a_weight_is_one_on_the_weight() -> None:
    constraints = (LinearConstraint("half", {"code": 2.0}, 0.5, 0.5),)
    weights = rows(sample_round(question_of("two-level-dirichlet", (14,), constraints=constraints)))
    assert (weights[:, 1] == 0.25).all()


def test_constraints_in_conflict_are_named_before_anything_is_trained() -> None:
    conflict = (
        share_of(["code"], DOMAINS.names, 0.6),
        share_of(["books", "web"], DOMAINS.names, 0.5, name="the rest"),
    )
    with pytest.raises(Infeasible) as caught:
        sample_round(question_of("two-level-dirichlet", (14,), constraints=conflict))
    assert set(caught.value.names) == {conflict[0].name, "the rest"}
    unknown = (LinearConstraint("no such", {"wiki": 1.0}, 0.1, 0.2),)
    with pytest.raises(UnknownDomain, match="wiki"):
        sample_round(question_of("two-level-dirichlet", (14,), constraints=unknown))


def test_perturbation_trains_three_times_and_a_third_of_each_domain_at_two_budgets() -> None:
    question = replace(question_of("perturbation", (9, 9)), repetition_cap=None)
    for number, budget in enumerate((0.5, 1.0)):
        swarm = sample_round(question, number)
        amounts = rows(swarm) * np.array([run.tokens for run in swarm])[:, None]
        base = DOMAINS.natural_weights * budget
        np.testing.assert_allclose(amounts[0], base)
        factors = (amounts / base)[1:]
        expected = np.ones((8, 4))
        for column in range(4):
            expected[2 * column, column], expected[2 * column + 1, column] = 3, 1 / 3
        np.testing.assert_allclose(factors, expected, rtol=1e-9)


def test_perturbation_that_caps_leave_no_room_for_is_refused() -> None:
    """At 4 epochs of everything the natural distribution is all there is."""
    with pytest.raises(Infeasible, match="books"):
        sample_round(question_of("perturbation", (9, 9), target_tokens=3.9 * float(DOMAINS.tokens.sum())))


def test_later_rounds_of_climb_lie_where_the_first_was_best() -> None:
    question = replace(question_of("predicted-best", (24, 8, 4)), recipe=combine(METHODS["climb"]))
    evidence: tuple[RunEvidence, ...] = ()
    means = []
    for number in range(3):
        swarm = sample_round(question, number, evidence)
        assert len(swarm) == question.rounds[number]
        evidence += trained(swarm, number)
        means.append(
            np.mean([np.mean(list(run.metrics.values())) for run in evidence if run.round == number])
        )
    assert means[1] < means[0]
    assert means[2] < means[0]
    weights = np.array([run.mixture.align(DOMAINS.names) for run in evidence])  # pyright: ignore[reportAttributeAccessIssue]
    apart = np.abs(weights[:, None] - weights[None]).sum(2)
    assert apart[np.triu_indices(len(weights), 1)].min() > 1e-5, "no mixture is trained twice"


def test_admire_starts_short_and_spends_full_runs_where_they_tell() -> None:
    question = replace(question_of("acquisition", (12, 4, 4)), recipe=combine(METHODS["admire"]))
    first = sample_round(question)
    assert {run.tokens for run in first} == set(FIDELITIES)
    assert sum(run.tokens < 1 for run in first) == 8
    evidence = trained(first, 0)
    for number in (1, 2):
        swarm = sample_round(question, number, evidence)
        assert len(swarm) == 4
        assert {run.tokens for run in swarm} <= set(FIDELITIES)
        assert sample_round(question, number, tuple(reversed(evidence))) == swarm, (
            "the order of runs plays no part"
        )
        evidence += trained(swarm, number)
    losses = [np.mean(list(truth(run.mixture.align(DOMAINS.names)).values())) for run in evidence]  # pyright: ignore[reportAttributeAccessIssue]
    assert np.mean(losses[12:]) < np.mean(losses[:12])


def test_a_round_that_learns_needs_an_objective_and_another_seed_gives_another_swarm() -> None:
    question = replace(question_of("predicted-best", (16, 4)), recipe=combine(METHODS["climb"]))
    evidence = trained(sample_round(question), 0)
    with pytest.raises(InvalidSetting, match="objective"):
        sample_round(replace(question, objective={}), 1, evidence)
    assert sample_round(question) != sample_round(replace(question, seed=4))
    plain = question_of("two-level-dirichlet", (14, 14))
    assert sample_round(plain, 0) != sample_round(plain, 1)


def test_entropies_are_needed_by_the_sampler_that_reads_them() -> None:
    with pytest.raises(InvalidSetting, match="entropies"):
        sample_round(question_of("entropy", (14,)))
