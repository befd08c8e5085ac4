from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.answer.proposal import Proposal, propose
from mixing.change.lineage import EvidenceSpace
from mixing.domains import Domains
from mixing.errors import InvalidSetting, MissingDomain, TooFewRuns, UnknownDomain
from mixing.methods import METHODS, Recipe, combine, method_named
from mixing.question import Question
from mixing.reuse.choice import newest_domains
from mixing.reuse.plan import plan_reuse
from mixing.reuse.reuse import Reuse, least_new_runs, older_run
from mixing.runs.evidence import RunEvidence
from mixing.swarm.sample import sample_round
from tests.mixing.reuse_world import (
    FIRST,
    TARGET,
    TASKS,
    continuation_of,
    metrics_of,
    past_of,
    runs_of_first,
    second,
    updated_space,
)
from tests.mixing.solve.problems import share_between

OBJECTIVE: dict[str, float] = dict.fromkeys(TASKS, 1.0)


def carried(runs: Sequence[RunEvidence], space: EvidenceSpace) -> tuple[RunEvidence, ...]:
    return tuple(older_run(run, "1", space, seed=0) for run in runs)


EXACT = combine(method_named("mixwright"), regression="effective-power")
"""One law, whose answer is certified: what must be the same is the same to its gap."""


def asked(space: EvidenceSpace, reuse: Reuse) -> Question:
    return Question(
        domains=newest_domains(space), objective=OBJECTIVE, target_tokens=TARGET, kl_weight=0.01, reuse=reuse
    )


def trained(space: EvidenceSpace, swarm: Question, seed: int = 1) -> list[RunEvidence]:
    """The swarm's runs over the newest revision's domains, measured in the world's truth with a little noise."""
    generator = np.random.default_rng(seed)
    return [
        RunEvidence(
            f"new{number}",
            dict(run.mixture),
            metrics_of(space.carry("2", run.mixture), 1e-3, generator),
            seed=0,
        )
        for number, run in enumerate(sample_round(swarm))
    ]


def swarm_of(space: EvidenceSpace, runs: int, reuse: Reuse) -> Question:
    question = asked(space, reuse)
    least = least_new_runs(question.parts, reuse, question.domains)
    rounds = method_named(question.method).split(question.parts, runs, len(question.domains), least)
    return replace(question, rounds=rounds)


def update(
    changes: str, kind: str, old: int = 30, recipe: Recipe | None = None
) -> tuple[EvidenceSpace, Reuse, Proposal]:
    """One update, from its plan to its mixture."""
    space = updated_space(*second(changes))
    runs = runs_of_first(space, old)
    plan = plan_reuse(continuation_of(space, past_of(runs), kind=kind))
    reuse = Reuse(plan.groups, space, carried(runs, space))
    new = trained(space, swarm_of(space, plan.new_runs, reuse)) if plan.new_runs else []
    return space, reuse, propose(replace(asked(space, reuse), recipe=recipe), new)


def true_value(space: EvidenceSpace, weights: dict[str, float]) -> float:
    return float(np.mean(list(metrics_of(space.carry("2", weights)).values())))


@pytest.mark.parametrize("changes", ["added", "revised", "split", "merged", "removed", "renamed"])
@pytest.mark.parametrize("kind", ["full", "none"])
def test_after_every_kind_of_change_the_mixture_gains_what_was_predicted(changes: str, kind: str) -> None:
    space, reuse, proposal = update(changes, kind)
    document = proposal.to_dict()
    natural = true_value(space, document["natural"])
    gain = natural - true_value(space, document["weights"])
    assert gain == pytest.approx(document["objective"]["gain"], abs=5e-3)
    if kind == "full":
        ((_, ratios),) = reuse.groups.items()
        weights = np.array([document["weights"][name] for name in ratios])
        np.testing.assert_allclose(weights / weights.sum(), list(ratios.values()), atol=1e-9)
    else:
        assert gain > 0


def test_runs_of_a_renamed_tree_count_as_if_it_had_never_been_renamed() -> None:
    space = updated_space(*second("renamed"))
    runs = runs_of_first(space, 24)
    first = {name: leaf.tokens for name, leaf in FIRST.items()}
    plain = Question(
        domains=Domains.of(first), objective=OBJECTIVE, target_tokens=TARGET, kl_weight=0.01, recipe=EXACT
    )
    own = propose(plain, runs).to_dict()
    reused = replace(asked(space, Reuse({}, space, carried(runs, space))), recipe=EXACT)
    again = propose(reused, ()).to_dict()
    there = {"d3": "other"}
    # The folds are drawn by the order of the runs' weights, so what is cross-validated is not the same to the bit.
    assert again["weights"] == pytest.approx(
        {there.get(name, name): weight for name, weight in own["weights"].items()}, abs=1e-6
    )
    assert again["objective"]["gain"] == pytest.approx(own["objective"]["gain"], abs=1e-9)
    assert again["reuse"]["older_runs"] == 24


def test_older_runs_make_up_for_new_ones() -> None:
    space = updated_space(*second("added"))
    runs, plan = runs_of_first(space, 30), None
    plan = plan_reuse(continuation_of(space, past_of(runs), kind="none"))
    reuse = Reuse({}, space, carried(runs, space))
    swarm = swarm_of(space, 12, reuse)  # the fewest the law can be fitted to
    new = trained(space, swarm)
    assert plan.new_runs <= 12
    with_older = propose(asked(space, reuse), new)
    alone = propose(asked(space, Reuse()), new)
    errors = []
    for proposal in (with_older, alone):
        points = np.random.default_rng(3).dirichlet(np.full(8, 2.0), 200)
        names = proposal.question.domains.names
        truth = [true_value(space, dict(zip(names, row.tolist(), strict=True))) for row in points]
        predicted = proposal.learned.evidence.groups.value(proposal.learned.law.predict(points)[0])
        errors.append(np.abs(predicted - truth).mean())
    assert errors[0] < errors[1] / 2


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["added", "split", "merged", "revised"]))
def test_no_leaf_constraint_is_ever_violated_by_what_is_found_over_virtual_domains(
    seed: int, changes: str
) -> None:
    generator = np.random.default_rng(seed)
    space = updated_space(*second(changes))
    runs = runs_of_first(space, 20, seed)
    domains = newest_domains(space)
    frozen = [name for name in domains.names if name in FIRST and name != "d3"][:4]
    groups = {"kept": dict(zip(frozen, generator.dirichlet(np.ones(len(frozen))) + 0.05, strict=True))}
    reuse = Reuse(groups, space, carried(runs, space))
    inside = np.array(domains.natural_weights)
    share = float(inside[: len(inside) // 2].sum())
    wide = share_between("half", domains.names[: len(inside) // 2], share / 2, min(2 * share, 1.0))
    target = float(domains.tokens.sum())
    swarm = replace(swarm_of(space, 8, reuse), constraints=(wide,), target_tokens=target, recipe=EXACT)
    caps = 4 * domains.tokens / target
    total = sum(groups["kept"].values())
    ratios = np.array([groups["kept"][name] / total for name in frozen])
    at = [domains.names.index(name) for name in frozen]
    new = trained(space, swarm)
    for run in new:
        weights = np.array([run.mixture[name] for name in domains.names])
        assert (weights <= caps + 1e-9).all()
        np.testing.assert_allclose(weights[at], weights[at].sum() * ratios, atol=1e-9)
    weights = propose(swarm, new).solution.weights
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert (weights <= caps + 1e-9).all()
    assert share / 2 - 1e-7 <= weights[: len(inside) // 2].sum() <= 2 * share + 1e-7
    np.testing.assert_allclose(weights[at], weights[at].sum() * ratios, atol=1e-9)


def test_the_law_is_fitted_where_it_predicts_better_and_both_ways_are_reported() -> None:
    space, few, alone = update("added", "full", recipe=EXACT)
    assert alone.to_dict()["reuse"]["not_compared"] is not None  # with so few runs that keep the ratios
    new = trained(space, swarm_of(space, 12, few))
    proposal = propose(asked(space, few), new)
    section = proposal.to_dict()["reuse"]
    contents, virtual = section["candidates"]
    assert (contents["where"], virtual["where"]) == ("contents", "virtual domains")
    assert (contents["weights"], virtual["weights"]) == (len(space.contents), 3)
    assert contents["judged"] == virtual["judged"]
    better = min((contents, virtual), key=lambda candidate: candidate["mae"])
    assert section["fitted_over"] == better["where"]
    # Older runs that disagree with the new ones by far: those that keep the ratios know better.
    swarm = swarm_of(space, 12, Reuse(proposal.question.reuse.groups, space))
    runs = [
        replace(run, metrics={task: value + 0.4 * number % 0.7 for task, value in run.metrics.items()})
        for number, run in enumerate(runs_of_first(space, 30))
    ]
    reuse = Reuse(proposal.question.reuse.groups, space, carried(runs, space))
    misled = propose(asked(space, reuse), trained(space, swarm)).to_dict()
    assert misled["reuse"]["fitted_over"] == "virtual domains"


def test_ratios_alone_are_fitted_over_virtual_domains_to_runs_too_few_for_a_law_of_all() -> None:
    leaves, changes = second("added")
    space = updated_space(leaves, changes)
    groups = plan_reuse(continuation_of(space)).groups
    reuse = Reuse(groups)
    domains = newest_domains(space)
    least = least_new_runs(combine(method_named("mixwright")), reuse, domains)
    assert least < combine(method_named("mixwright")).minimum_runs(len(domains))
    new = trained(space, swarm_of(space, least, reuse))
    document = propose(asked(space, reuse), new).to_dict()
    assert document["reuse"]["fitted_over"] == "virtual domains"
    assert "too few for a law over 8 texts" in document["reuse"]["not_compared"]
    with pytest.raises(TooFewRuns):
        swarm_of(space, least - 1, reuse)


def test_an_older_run_counts_for_the_tasks_it_was_measured_on() -> None:
    space = updated_space(*second("added"))
    reuse = Reuse({}, space, carried(runs_of_first(space, 30), space))
    new = [
        replace(run, metrics={**run.metrics, "held-out/e0": 1 + run.mixture["d0"] - 0.5 * run.mixture["e0"]})
        for run in trained(space, swarm_of(space, 12, reuse))
    ]
    question = replace(asked(space, reuse), objective={**OBJECTIVE, "held-out/e0": 1.0})
    proposal = propose(question, new)
    assert proposal.learned.evidence.table.measured.sum(axis=0).tolist() == [12, 42, 42, 42]
    task = proposal.to_dict()["tasks"][0]
    assert task["name"] == "held-out/e0"
    assert task["gain"] > 0
    with pytest.raises(TooFewRuns, match="only 4 of 34 runs measured task 'held-out/e0'"):
        propose(question, new[:4])


def test_an_older_run_that_a_new_one_repeats_counts_once() -> None:
    space = updated_space(*second("added"))
    old = runs_of_first(space, 30)
    alone = {**dict.fromkeys(FIRST, 0.0), "d0": 1.0}
    metrics = metrics_of(space.carry("1", alone))
    older = carried([*old, RunEvidence("old alone", alone, metrics, seed=0)], space)
    reuse = Reuse({}, space, older)
    new = trained(space, swarm_of(space, 6, reuse))
    again = {**dict.fromkeys(space.newest.free, 0.0), "d0": 1.0}
    proposal = propose(asked(space, reuse), [*new, RunEvidence("new alone", again, metrics, seed=0)])
    assert len(proposal.learned.evidence.weights) == 30 + 6 + 1


def test_new_runs_are_not_the_older_ones_drawn_again() -> None:
    space = updated_space(*second("renamed"))
    olmix = replace(asked(space, Reuse()), method="olmix", rounds=(30,))
    first = {tuple(run.mixture.values()) for run in sample_round(olmix)}
    older = carried(runs_of_first(space, 30), space)
    again = {
        tuple(run.mixture.values()) for run in sample_round(replace(olmix, reuse=Reuse({}, space, older)))
    }
    spread_out = {row for row in first if max(row) < 0.95}
    assert spread_out
    assert not spread_out & again


def test_doubted_runs_weigh_less() -> None:
    space = updated_space(*second("added"))
    new = trained(space, swarm_of(space, 20, Reuse({}, space)))
    off = [
        replace(run, metrics={task: value + 0.1 for task, value in run.metrics.items()})
        for run in runs_of_first(space, 30)
    ]
    points = np.random.default_rng(3).dirichlet(np.ones(8), 100)

    def error(doubt: float) -> float:
        older = tuple(replace(run, doubt=doubt) for run in carried(off, space))
        proposal = propose(asked(space, Reuse({}, space, older)), new)
        names = proposal.question.domains.names
        truth = [true_value(space, dict(zip(names, row.tolist(), strict=True))) for row in points]
        return float(
            np.abs(
                proposal.learned.evidence.groups.value(proposal.learned.law.predict(points)[0]) - truth
            ).mean()
        )

    assert error(2.0) < error(0.0)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trains_runs])
def test_every_method_reuses_or_says_why_not(name: str) -> None:
    space = updated_space(*second("added"))
    method, runs = method_named(name), runs_of_first(space, 40)
    recipe = combine(method)
    plan = plan_reuse(continuation_of(space, past_of(runs), kind="auto", method=name))
    if plan.set_aside:
        assert all("design of its own" in why or "own weight" in why for why in plan.set_aside.values())
        without = replace(asked(space, Reuse({}, space)), method=name, kl_weight=0.0, proxy_tokens=1e6)
        with pytest.raises(InvalidSetting, match=r"design of its own|own weight"):
            replace(without, reuse=Reuse({}, space, carried(runs, space)))
        return
    reuse = Reuse(plan.groups, space, carried(runs, space))
    rounds = method.split(recipe, plan.new_runs, len(space.newest.free), plan.least_new_runs)
    question = replace(
        asked(space, reuse), method=name, kl_weight=method.kl_weight, proxy_tokens=1e6, rounds=rounds
    )
    new: list[RunEvidence] = []
    for number in range(len(rounds)):
        for run in sample_round(question, number, tuple(new)):
            metrics = metrics_of(space.carry("2", run.mixture))
            new.append(
                RunEvidence(f"new{len(new)}", dict(run.mixture), metrics, tokens=run.tokens, round=number)
            )
    document = propose(question, new).to_dict()
    assert sum(document["weights"].values()) == pytest.approx(1)
    for ratios in plan.groups.values():
        weights = np.array([document["weights"][domain] for domain in ratios])
        np.testing.assert_allclose(weights / weights.sum(), list(ratios.values()), atol=1e-6)


def test_a_reuse_of_another_tree_is_refused_by_name() -> None:
    space = updated_space(*second("added"))
    runs = carried(runs_of_first(space, 12), space)
    other = Domains.of({"d0": 1e9, "zebra": 2e9})
    question = asked(space, Reuse({}, space, runs))
    with pytest.raises((UnknownDomain, MissingDomain), match="zebra"):
        propose(replace(question, domains=other), ())
    with pytest.raises(UnknownDomain, match="d9"):
        propose(replace(question, reuse=Reuse({"kept": {"d9": 1.0}}, space, runs)), ())
    with pytest.raises(InvalidSetting, match="need the lineage"):
        Reuse({}, None, runs)
