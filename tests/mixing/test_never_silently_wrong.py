"""One test for each way in which a published tool was seen to answer wrongly without saying so."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.answer.proposal import propose
from mixing.domains import Domains, Mixture
from mixing.errors import InvalidTokens, MissingDomain, OppositeDirections, TooFewRuns
from mixing.laws.exponential.log_linear import LogLinearLaw
from mixing.limits import Limits
from mixing.objective import ObjectiveSpec, groups
from mixing.question import Question
from mixing.runs.evidence import Needs, RunEvidence, gather
from mixing.simplex_map import SimplexMap
from mixing.solve.constraints import LinearConstraint
from mixing.swarm.sample import sample_round

POOL = {"web:news": 6e6, "web:forums": 2e6, "web:shops": 1e6, "books": 5e5, "wiki": 5e4}
DOMAINS = Domains.of(POOL)
TARGET, CAP = 2e6, 4.0
LIMITS = Limits(DOMAINS, TARGET, CAP)
EFFECTS = {
    "facts": [-1.0, 0.3, 0.2, 0.1, -4.0],
    "prose": [-2.0, 0.5, -0.4, 0.3, 0.0],
    "chat": [0.3, -1.5, 0.2, 0.0, 0.1],
}


def sampled(domains: Domains, runs: int, seed: int = 0) -> list[Mixture]:
    """Olmix's swarm."""
    question = Question(method="olmix", domains=domains, target_tokens=TARGET, seed=seed, rounds=(runs,))
    return [run.mixture for run in sample_round(question)]


def swarm_runs(count: int = 24) -> tuple[RunEvidence, ...]:
    """Runs of a known law over the domains in sorted order: books, forums, news, shops, wiki."""
    swarm = sampled(DOMAINS, count)
    generator = np.random.default_rng(0)
    runs = []
    for index, mixture in enumerate(swarm):
        weights = mixture.align(DOMAINS.names)
        metrics = {
            task: 1 + float(np.exp(np.array(effect) @ weights)) + 0.003 * generator.standard_normal()
            for task, effect in EFFECTS.items()
        }
        runs.append(RunEvidence(f"run{index}", mixture, metrics))
    return tuple(runs)


RUNS = swarm_runs()


def proposed(objective: dict[str, float], runs: tuple[RunEvidence, ...] = RUNS) -> dict[str, float]:
    question = Question(
        method="olmix", domains=DOMAINS, objective=objective, target_tokens=TARGET, kl_weight=0.05
    )
    return propose(question, runs).to_dict()["weights"]


def test_weights_are_labelled_as_they_were_sampled() -> None:
    """Named in another order, the small domains would exceed their caps, and the law would be found nowhere."""
    caps = dict(zip(DOMAINS.names, LIMITS.caps, strict=True))
    assert caps["wiki"] == pytest.approx(0.1)
    backwards = Domains.of({name: POOL[name] for name in sorted(POOL, reverse=True)})
    for domains in (DOMAINS, backwards):
        swarm = sampled(domains, 24)
        assert all(mixture[name] <= caps[name] for mixture in swarm for name in mixture)
        assert [mixture.as_dict() for mixture in swarm] == [Mixture(run.mixture).as_dict() for run in RUNS]
    best = proposed({"facts": 1.0})
    assert best["wiki"] == pytest.approx(caps["wiki"]), "facts want wiki above all, up to its cap"


def test_metrics_are_joined_by_run_and_not_by_position() -> None:
    shuffled = tuple(RUNS[index] for index in np.random.default_rng(1).permutation(len(RUNS)))
    assert proposed({"facts": 1, "chat": 1}, shuffled) == proposed({"facts": 1, "chat": 1})
    evidence = gather(DOMAINS, shuffled, {"facts": 1}, Needs(7))
    by_metric = {run.metrics["facts"]: run.mixture for run in RUNS}
    column = evidence.tasks.index("facts")
    for weights, metric in zip(evidence.weights, evidence.metrics[:, column], strict=True):
        assert dict(zip(DOMAINS.names, weights, strict=True)) == dict(by_metric[metric])


def test_a_fit_is_not_reused_when_a_family_changes() -> None:
    """Fitted in turn in one process to two families of one name, each fit is that of its own members."""
    first = ObjectiveSpec(
        {"facts": 1, "prose": 1, "chat": 1}, {"f": ("facts", "prose")}, granularity="per family"
    )
    second = replace(first, families={"f": ("facts", "chat")})
    predictions = []
    for spec in (first, second, first):
        evidence = gather(DOMAINS, RUNS, spec, Needs(7))
        table, column = evidence.table, evidence.table.names.index("f")
        members = [evidence.tasks.index(task) for task in spec.families["f"]]
        plain = evidence.metrics[:, members].mean(1)
        predicted, _ = LogLinearLaw().fit(table.weights, table.metrics).predict(table.weights)
        assert np.abs(predicted[:, column] - plain).mean() < 0.02
        predictions.append(predicted[:, column])
    assert np.abs(predictions[0] - predictions[1]).max() > 0.05
    np.testing.assert_array_equal(predictions[0], predictions[2])
    assert proposed({"facts": 1, "prose": 1}) != proposed({"facts": 1, "chat": 1})


@given(st.integers(0, 2**32 - 1))
def test_pinned_ratios_survive_rounding_and_minimum_weights(seed: int) -> None:
    """Ratios far below a sampler's minimum weight of 0.002: mixtures are sampled first and expanded after."""
    ratios = {"web:news": 0.9899, "web:forums": 0.01, "web:shops": 0.0001}
    frozen = SimplexMap.freeze(DOMAINS.names, {"web": ratios})
    shared = Domains.of({"web": 9e6, "books": POOL["books"], "wiki": POOL["wiki"]})
    for mixture in sampled(shared, 6, seed):
        leaves = dict(zip(DOMAINS.names, frozen.expand(mixture.align(frozen.free)), strict=True))
        assert sum(leaves.values()) == pytest.approx(1, abs=1e-12)
        for name, ratio in ratios.items():
            assert leaves[name] == pytest.approx(ratio * mixture["web"], rel=1e-12)


def test_all_ones_are_none_and_no_scale_changes_the_strength_of_lambda() -> None:
    """A published tool summed the tasks, so that 110 of them made lambda 110 times weaker."""
    mean = proposed(dict.fromkeys(EFFECTS, 1.0))
    assert proposed(dict.fromkeys(EFFECTS, 110.0)) == pytest.approx(mean, abs=1e-9)
    copied = tuple(replace(run, metrics={f"copy{i}": run.metrics["facts"] for i in range(4)}) for run in RUNS)
    alone = tuple(replace(run, metrics={"facts": run.metrics["facts"]}) for run in RUNS)
    copies = {f"copy{i}": 1.0 for i in range(4)}
    assert proposed(copies, copied) == pytest.approx(proposed({"facts": 1.0}, alone), abs=1e-6)


def test_the_worst_is_the_worst() -> None:
    spec = ObjectiveSpec(dict.fromkeys(EFFECTS, 1.0), aggregation="worst family")
    evidence = gather(DOMAINS, RUNS, spec, Needs(7))
    np.testing.assert_array_equal(evidence.groups.value(evidence.metrics), evidence.metrics.max(1))
    assert (evidence.metrics.max(1) > evidence.metrics.min(1)).all()


@pytest.mark.parametrize("pinned", sorted(POOL))
def test_a_pin_holds_on_any_topic(pinned: str) -> None:
    """The published tool read pins from the first topic of a source only."""
    frozen = SimplexMap.freeze(DOMAINS.names, {"rest": {"books": 0.9, "wiki": 0.1}})
    row = LinearConstraint("pin", {pinned: 1.0}, 0.2, 0.2).row(DOMAINS.names)
    for space in (SimplexMap.identity(DOMAINS.names), frozen):
        free = np.random.default_rng(0).dirichlet(np.ones(len(space.free)))
        held = float(space.pull_back_rows(row[None])[0] @ free)
        assert held == pytest.approx(space.expand(free)[DOMAINS.names.index(pinned)])


def test_a_virtual_domain_is_capped_by_the_first_member_that_runs_out() -> None:
    """Half books (5e5), half wiki (5e4), 4 epochs, 2e6 tokens: wiki runs out at a weight of 0.1, so 0.2 in all.

    By the sum of the members' tokens it would be 1.1, which reads wiki 22 times.
    """
    frozen = SimplexMap.freeze(DOMAINS.names, {"rest": {"books": 0.5, "wiki": 0.5}})
    caps, _ = frozen.pull_back_caps(LIMITS.caps)
    column = frozen.free.index("rest")
    assert caps[column] == pytest.approx(0.2)
    at_cap = np.zeros(len(frozen.free))
    at_cap[column] = caps[column]
    assert LIMITS.epochs(frozen.expand(at_cap)).max() == pytest.approx(CAP)


@pytest.mark.parametrize("missing", [0, None, float("nan")])
def test_missing_tokens_are_never_zero_tokens(missing: float | None) -> None:
    with pytest.raises(InvalidTokens, match="wiki"):
        Domains.of(POOL | {"wiki": missing})
    partial = {name: weight for name, weight in RUNS[0].mixture.items() if name != "wiki"}
    with pytest.raises(MissingDomain, match=r"run0.*wiki"):
        gather(DOMAINS, [replace(RUNS[0], mixture=partial), *RUNS[1:]], {"facts": 1}, Needs(7))


def test_fewer_runs_than_parameters_are_refused_everywhere() -> None:
    """Five domains, so six parameters a task."""
    few = RUNS[:6]
    with pytest.raises(TooFewRuns):
        proposed({"facts": 1}, few)
    with pytest.raises(TooFewRuns):
        sampled(DOMAINS, 6)
    evidence = gather(DOMAINS, few, {"facts": 1}, Needs(6))
    with pytest.raises(TooFewRuns):
        LogLinearLaw().fit(evidence.weights, evidence.metrics)
    replicates = [
        replace(run, id=f"{run.id}.{seed}", seed=seed, metrics={"facts": run.metrics["facts"] + 0.01 * seed})
        for run in few
        for seed in range(4)
    ]
    with pytest.raises(TooFewRuns, match="different"):
        gather(DOMAINS, replicates, {"facts": 1}, Needs(7))


def test_tasks_of_opposite_sign_are_not_averaged() -> None:
    """An accuracy that is facts' mirror image: averaged as it stands, the two would cancel and hide what helps."""
    runs = tuple(
        replace(run, metrics=dict(run.metrics) | {"exam": 2.2 - run.metrics["facts"]}) for run in RUNS
    )
    weights = {"facts": 1.0, "exam": 1.0}
    with pytest.raises(OppositeDirections, match="exam"):
        gather(DOMAINS, runs, ObjectiveSpec(weights, directions={"exam": "higher"}), Needs(7))
    spec = ObjectiveSpec(weights, directions={"exam": "higher"}, turned={"exam": "negated"})
    evidence = gather(DOMAINS, runs, spec, Needs(7, positive=False))
    value = groups(spec, evidence.tasks).value(evidence.metrics)
    facts = evidence.metrics[:, evidence.tasks.index("facts")]
    np.testing.assert_array_equal(np.argsort(value), np.argsort(facts))
