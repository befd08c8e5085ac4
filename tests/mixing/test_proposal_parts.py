"""Every method and every part of one, from synthetic truth to a mixture."""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.domains import HELD_OUT_PREFIX, Domains
from mixing.errors import InvalidMetrics, InvalidSetting
from mixing.limits import Limits
from mixing.methods import METHODS, combine
from mixing.objective import ObjectiveSpec
from mixing.parts import SOLVERS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.swarm.sample import sample_round
from tests.mixing.objectives import objective_of_tasks

DOMAINS = Domains.of({"books": 5e5, "code": 1e6, "forums": 2e6, "web": 5e6})
USEFUL = {"code": [0.2, 2.0, 0.3, 0.5], "facts": [1.0, 0.1, 0.1, 0.8], "prose": [1.5, 0.1, 0.8, 0.2]}
TARGET, PROXY = 1e6, 2e5


def truth(weights: np.ndarray, tokens: float = 1.0) -> dict[str, float]:
    """A law of every task that no regression has for its own: effective data to the power 0.6, seen through log."""
    return {
        task: 2 - 0.3 * float(np.log(0.05 + np.array(useful) @ (tokens * weights + 1e-3) ** 0.6))
        for task, useful in USEFUL.items()
    }


def own(weights: np.ndarray) -> dict[str, float]:
    """BiMix's world: each domain's loss falls with its own share."""
    scales, exponents = np.array([2.0, 1.0, 3.0, 1.5]), np.array([0.05, 0.2, 0.1, 0.15])
    losses = scales * (weights + 1e-4) ** -exponents
    return {f"{HELD_OUT_PREFIX}{name}": float(loss) for name, loss in zip(DOMAINS.names, losses, strict=True)}


def question_of(
    method: str, runs: int | None = None, cap: float | None = 4.0, noise: float = 0.002, **parts: str
) -> tuple[Question, tuple[RunEvidence, ...]]:
    """A question whose runs were sampled round by round by the method itself."""
    record = METHODS[method]
    recipe = combine(record, **parts)
    is_own = recipe.regression == "bimix-own-share"
    names = tuple(f"{HELD_OUT_PREFIX}{name}" for name in DOMAINS.names) if is_own else tuple(USEFUL)
    objective = ObjectiveSpec(dict.fromkeys(names, 1.0))
    count = record.default_runs(len(DOMAINS), recipe) if runs is None else runs
    entropies = {name: (8.0 + j, 13.0 - j, 6.0 + j % 2, 7.0 + j % 3) for j, name in enumerate(DOMAINS.names)}
    rounds = record.split(recipe, count, len(DOMAINS))
    question = Question(
        method=method,
        recipe=recipe,
        domains=DOMAINS,
        objective=objective,
        target_tokens=TARGET,
        repetition_cap=cap,
        kl_weight=record.kl_weight,
        rounds=rounds,
        proxy_tokens=PROXY,
    )
    generator = np.random.default_rng(0)
    evidence: list[RunEvidence] = []
    for number in range(len(rounds)):
        for run in sample_round(replace(question, seed=1), number, tuple(evidence), entropies):
            weights = run.mixture.align(DOMAINS.names)
            measured = own(weights) if is_own else truth(weights, run.tokens)
            metrics = {task: value + noise * generator.standard_normal() for task, value in measured.items()}
            evidence.append(
                RunEvidence(f"run{len(evidence)}", run.mixture, metrics, tokens=run.tokens, round=number)
            )
    return question, tuple(evidence)


def true_gain(weights: Mapping[str, float]) -> float:
    chosen = np.array([weights[name] for name in DOMAINS.names])
    means = [np.mean(list(truth(mixture).values())) for mixture in (DOMAINS.natural_weights, chosen)]
    return float(means[0] - means[1])


def assert_sound(document: dict, cap: float | None) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    weights = np.array([document["weights"][name] for name in DOMAINS.names])
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    assert (weights >= 0).all()
    assert (weights <= Limits(DOMAINS, TARGET, cap).caps + 1e-9).all()


@pytest.mark.parametrize(
    ("method", "runs"),
    [("mixwright", None), ("olmix", 24), ("regmix", 20), ("admire", None), ("autoscale", None)],
)
def test_a_method_finds_a_better_mixture_than_the_natural_one(
    method: str, runs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trees take seconds to predict as many candidates as are published, and fewer go the same way.
    monkeypatch.setattr("mixing.solve.solvers.REGMIX_DRAWS", 5_000)
    monkeypatch.setattr("mixing.solve.solvers.CANDIDATES", 2_000)
    document = propose(*question_of(method, runs, METHODS[method].repetition_cap)).to_dict()
    assert_sound(document, METHODS[method].repetition_cap)
    assert true_gain(document["weights"]) > 0
    assert document["recipe"]["sampler"] == combine(METHODS[method]).sampler


def test_bimix_finds_the_optimum_of_its_own_world_from_four_runs() -> None:
    question, runs = question_of("bimix", cap=None, noise=0.0)
    assert len(runs) == 4
    document = propose(question, runs).to_dict()
    assert_sound(document, None)
    scales, exponents = np.array([2.0, 1.0, 3.0, 1.5]), np.array([0.05, 0.2, 0.1, 0.15])
    # All slopes are alike at the optimum: r_i = (A_i alpha_i / mu)^(1 / (alpha_i + 1)), here shifted by 1e-4.
    weights = np.array([document["weights"][name] for name in DOMAINS.names])
    slopes = scales * exponents * (weights + 1e-4) ** (-exponents - 1)
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-4)


@pytest.mark.parametrize("solver", sorted(set(SOLVERS) - {"extrapolated-closed-form"}))
def test_every_solver_comes_near_the_exact_one_on_a_convex_law(solver: str) -> None:
    question, runs = question_of("mixwright", 24, regression="effective-power")
    exact = propose(question, runs)
    recipe = combine(METHODS["mixwright"], regression="effective-power", solver=solver)
    other = propose(replace(question, recipe=recipe), runs)
    assert_sound(other.to_dict(), 4.0)
    best, found = (
        float(one.problem.objective.predicted(one.solution.weights[None])[0]) for one in (exact, other)
    )
    natural = float(exact.problem.objective.predicted(DOMAINS.natural_weights[None])[0])
    assert best - 1e-9 <= found
    # The mean of the best of draws around the natural distribution is published, and not meant to be the optimum.
    assert found < natural if solver == "mean-of-best" else found <= best + 0.2 * (natural - best)


def test_every_granularity_is_fitted_and_reports_every_task() -> None:
    families = {"code": "work", "facts": "reading", "prose": "reading"}
    spec = objective_of_tasks(dict.fromkeys(USEFUL, 1.0), families, per_family=True)
    question, runs = question_of("mixwright", 30)
    question = replace(question, objective=spec)
    documents = {}
    for granularity in ("per task", "per family", "aggregated"):
        recipe = combine(METHODS["mixwright"], granularity=granularity)
        document = propose(replace(question, recipe=recipe), runs).to_dict()
        assert_sound(document, 4.0)
        assert [row["name"] for row in document["tasks"]] == sorted(USEFUL)
        assert [row["weight"] for row in document["tasks"]] == pytest.approx([1 / 3] * 3)
        documents[granularity] = document
    natural = sum(truth(DOMAINS.natural_weights).values())
    reached = {
        granularity: natural - sum(truth(np.array(list(document["weights"].values()))).values())
        for granularity, document in documents.items()
    }
    assert min(reached.values()) > 0.8 * max(reached.values()) > 0
    evidence = propose(
        replace(question, recipe=combine(METHODS["mixwright"], granularity="per family")), runs
    ).learned.evidence
    assert evidence.table.names == (*sorted(USEFUL), "reading", "work")
    measured = evidence.metrics
    np.testing.assert_allclose(evidence.table.metrics[:, 3], measured[:, 1:].mean(1))
    np.testing.assert_allclose(evidence.groups.value(evidence.table.metrics), measured.mean(1))


@pytest.mark.parametrize("granularity", ["per task", "per family", "aggregated"])
def test_standardised_tasks_count_alike_at_every_granularity(granularity: str) -> None:
    """The objective is that of tasks divided by their deviation, whatever one law is fitted to."""
    spec = ObjectiveSpec(dict.fromkeys(USEFUL, 1.0), standardize=True)
    question, runs = question_of("mixwright", 20)
    recipe = combine(METHODS["mixwright"], granularity=granularity)
    evidence = propose(replace(question, objective=spec, recipe=recipe), runs).learned.evidence
    metrics = evidence.metrics
    shares = 1 / metrics.std(0)
    np.testing.assert_allclose(
        evidence.groups.value(evidence.table.metrics), metrics @ shares / shares.sum(), rtol=1e-12
    )


def test_with_no_run_to_spare_nothing_is_held_out_and_that_is_said() -> None:
    autoscale = propose(*question_of("autoscale", cap=None)).to_dict()
    assert autoscale["objective"]["rank_correlation"] is None
    assert autoscale["objective"]["gain_interval"] is None
    assert autoscale["weight_spread"] is None
    assert "not_cross_validated" in {warning["code"] for warning in autoscale["warnings"]}


def test_a_law_over_tokens_is_judged_by_full_runs() -> None:
    """Short runs measure more by a constant; predictions are of full ones, so against them they would look wrong."""
    proposal = propose(*question_of("admire", cap=None))
    assert proposal.learned.held_out is not None
    full = proposal.learned.evidence.table.tokens == 1
    assert 4 <= full.sum() < len(full)
    assert proposal.learned.held_out.predictions.shape[1] == full.sum()
    short_by = (
        proposal.learned.evidence.metrics[~full].mean() - proposal.learned.evidence.metrics[full].mean()
    )
    assert proposal.learned.held_out.mae[-1] < 0.5 * abs(short_by)


def test_replicates_do_not_pin_a_searched_mixture_to_the_runs() -> None:
    """Each run twice, so the nearest run is the same mixture: the distance that counts is that to another."""
    question, runs = question_of("olmix", 18, regression="gaussian-process")
    generator = np.random.default_rng(4)
    again = tuple(
        replace(
            run,
            id=f"{run.id}-again",
            seed=2,
            metrics={
                task: value + 0.002 * generator.standard_normal() for task, value in run.metrics.items()
            },
        )
        for run in runs
    )
    proposal = propose(question, runs + again)
    assert proposal.to_dict()["nearest_run_distance"] > 0.01


def test_a_task_that_few_runs_tell_from_a_constant_does_not_end_the_proposal() -> None:
    """An accuracy that one run alone got right: without that run it is constant, and predicted as that."""
    question, plain = question_of("olmix", 20)
    runs = tuple(
        replace(run, metrics={**run.metrics, "exam": 0.5 if index == 3 else 0.25})
        for index, run in enumerate(plain)
    )
    for regression in ("linear", "exponentials", "effective-power", "log-linear"):
        recipe = combine(METHODS["olmix"], regression=regression)
        document = propose(replace(question, recipe=recipe), runs).to_dict()
        assert_sound(document, 4.0)
        assert "exam" in {row["name"] for row in document["tasks"]}


def test_a_law_that_predicts_no_numbers_is_refused_by_the_tasks_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mixing.laws.powers.effective_power.FittedEffectivePower.mean",
        lambda law, weights: np.array([0.0, np.nan, 0.0]) * np.ones((len(weights), 3)),
    )
    with pytest.raises(InvalidMetrics, match="facts") as caught:
        propose(*question_of("mixwright", 14))
    assert caught.value.names == ("facts",)


def test_the_same_request_gives_the_same_answer() -> None:
    question, runs = question_of("olmix", 20, regression="gaussian-process")
    first = propose(question, runs).to_dict()
    assert propose(question, runs).to_dict() == first
    backwards = Domains.of(dict(zip(DOMAINS.names[::-1], DOMAINS.tokens[::-1].tolist(), strict=True)))
    assert propose(replace(question, domains=backwards), runs[::-1]).to_dict() == first


def test_two_domains_and_one_task_are_enough() -> None:
    """The amount 3 sqrt(a) + 2 sqrt(b) is largest at a = 9 / 13."""
    pair = Domains.of({"a": 1e6, "b": 3e6})
    generator = np.random.default_rng(0)
    runs = tuple(
        RunEvidence(
            f"run{i}",
            {"a": share, "b": 1 - share},
            {"loss": (3 * share**0.5 + 2 * (1 - share) ** 0.5) ** -0.5 + 5e-4 * generator.standard_normal()},
        )
        for i, share in enumerate(np.linspace(0, 1, 14).tolist())
    )
    for method, off in (
        ("mixwright", 0.1),
        ("olmix", 0.4),
    ):  # the log-linear law falls all along a line, or nowhere
        question = Question(method=method, domains=pair, objective={"loss": 1}, target_tokens=1e6)
        document = propose(question, runs).to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["weights"]["a"] == pytest.approx(9 / 13, abs=off)


def test_what_the_closed_form_would_pass_over_is_refused() -> None:
    question, runs = question_of("autoscale", cap=None)
    with pytest.raises(InvalidSetting, match="caps only") as caught:
        replace(question, kl_weight=0.1)
    assert caught.value.field == "kl_weight"
    with pytest.raises(InvalidSetting) as caught:
        propose(replace(question, proxy_tokens=None), runs)
    assert caught.value.field == "proxy_tokens"
    with pytest.raises(InvalidSetting) as caught:
        replace(question, seed=-1)
    assert caught.value.field == "seed"


def test_processes_that_would_take_too_long_are_named_and_the_answer_is_certified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "mixing.laws.processes.gaussian_process.GaussianProcess.work",
        lambda process, runs, domains, tasks: np.inf,
    )
    document = propose(*question_of("mixwright", 24)).to_dict()
    told, solved = document["notes"][-2:]
    assert "24 runs" in told
    assert "Gaussian process around the effective power law" in told
    assert "certified best" in solved
    assert document["optimality_gap"] < 1e-8
