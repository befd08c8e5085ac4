"""What no answer hangs on: units, zeros, directions, the order and the names of anything, and patience.

The law is the effective power law, which is fast; what holds of any law and of the default is asked once at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.methods import Recipe
from mixing.objective import ObjectiveSpec
from mixing.question import Question
from mixing.runs.evidence import RunEvidence

FAST = Recipe("d-optimal", "effective-power", "per task", "exact")
SAME = 2e-4
"""Of a weight: the objective is flat at its minimum, and a fit ends within 1e-8 nats of its own."""


@dataclass(frozen=True)
class World:
    """A swarm over some domains with T tasks, (K, m) weights and (K, T) metrics."""

    tokens: np.ndarray
    weights: np.ndarray
    metrics: np.ndarray

    @property
    def names(self) -> list[str]:
        return [f"d{j}" for j in range(len(self.tokens))]

    def answer(
        self,
        metrics: np.ndarray | None = None,
        *,
        domains: Sequence[str] = (),
        tasks: Sequence[str] = (),
        order: Sequence[int] = (),
        **terms: Any,
    ) -> dict[str, Any]:
        """The proposal's document, with other metrics, names or order of runs where these are given."""
        metrics = self.metrics if metrics is None else metrics
        domains, tasks = domains or self.names, tasks or [f"t{t}" for t in range(metrics.shape[1])]
        runs = [
            RunEvidence(
                f"run{k}",
                dict(zip(domains, self.weights[k].tolist(), strict=True)),
                dict(zip(tasks, metrics[k].tolist(), strict=True)),
            )
            for k in order or range(len(metrics))
        ]
        usual: Mapping[str, Any] = {
            "domains": Domains.of(dict(zip(domains, self.tokens.tolist(), strict=True))),
            "objective": dict.fromkeys(tasks, 1.0),
            "target_tokens": self.tokens.sum() / 3,
            "kl_weight": 0.01,
            "recipe": FAST,
        }
        return propose(Question(**{**usual, **terms}), runs).to_dict()


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Tasks that fall as powers of what they like, and a little noise."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    domains, tasks, runs = draw(st.integers(3, 5)), draw(st.integers(1, 3)), draw(st.integers(14, 22))
    weights = generator.dirichlet(np.ones(domains), runs)
    likes = generator.uniform(0.05, 1.5, (domains, tasks))
    metrics = 0.8 + (np.sqrt(weights) @ likes + 0.1) ** -0.5 + 0.01 * generator.standard_normal((runs, tasks))
    return World(1e9 * generator.dirichlet(3 * np.ones(domains)), weights, metrics)


def alike(one: Mapping[str, Any], other: Mapping[str, Any], factor: float = 1.0) -> None:
    """The same mixture, and gains that are `factor` times the other's."""
    assert one["weights"] == pytest.approx(other["weights"], abs=SAME)
    size = abs(other["objective"]["gain"]) + other["objective"]["mae"]
    for name in ("gain", "mae", "gain_interval"):
        mine, its = np.array(one["objective"][name]) / factor, np.array(other["objective"][name])
        np.testing.assert_allclose(mine, its, atol=1e-3 * size)


few = settings(max_examples=4, deadline=None)


@few
@given(worlds(), st.floats(-12, 12))
def test_a_metric_times_any_positive_number(world: World, power: float) -> None:
    factor = 10.0**power
    alike(world.answer(factor * world.metrics), world.answer(), factor)


@few
@given(worlds(), st.floats(-1e3, 1e3))
def test_a_metric_and_a_constant(world: World, constant: float) -> None:
    alike(world.answer(world.metrics + constant), world.answer())


@few
@given(worlds())
def test_a_metric_turned_together_with_its_direction(world: World) -> None:
    tasks = [f"t{t}" for t in range(world.metrics.shape[1])]
    higher = ObjectiveSpec(
        dict.fromkeys(tasks, 1.0),
        directions=dict.fromkeys(tasks, "higher"),
        turned=dict.fromkeys(tasks, "negated"),
    )
    turned, plain = world.answer(-world.metrics, objective=higher), world.answer()
    alike(turned, plain)
    assert turned["objective"]["direction"] == "higher"
    assert turned["objective"]["proposed"] == pytest.approx(-plain["objective"]["proposed"], abs=1e-6)
    rates = replace(higher, turned=dict.fromkeys(tasks, "error rate"))
    alike(world.answer(1 - world.metrics / 10, objective=rates), plain, 0.1)


@few
@given(worlds(), st.data())
def test_the_order_of_runs_and_the_names_and_order_of_domains_and_tasks(
    world: World, data: st.DataObject
) -> None:
    plain = world.answer()
    order = data.draw(st.permutations(range(len(world.weights))))
    assert world.answer(order=order) == plain
    domains = data.draw(st.permutations(world.names))
    renamed = world.answer(domains=domains)
    back = dict(zip(domains, world.names, strict=True))
    alike({**renamed, "weights": {back[name]: w for name, w in renamed["weights"].items()}}, plain)
    # Other names of tasks put the runs into another order, and so into other folds.
    tasks = data.draw(st.permutations([f"t{t}" for t in range(world.metrics.shape[1])]))
    shuffled = world.answer(tasks=tasks)
    assert shuffled["weights"] == pytest.approx(plain["weights"], abs=SAME)
    assert shuffled["objective"]["gain"] == pytest.approx(plain["objective"]["gain"], rel=1e-4, abs=1e-6)


@few
@given(worlds())
def test_a_fit_with_more_iterations_is_the_same_within_its_tolerance(world: World) -> None:
    usual, patient = (
        EffectivePowerLaw(),
        replace(EffectivePowerLaw(), iterations=5 * EffectivePowerLaw().iterations),
    )
    first, second = (law.fit(world.weights, world.metrics) for law in (usual, patient))
    assert first.converged.all()
    np.testing.assert_allclose(
        second.predict(world.weights)[0], first.predict(world.weights)[0], atol=1e-6 * world.metrics.std()
    )


def test_the_default_method_reads_a_metric_of_any_size_alike() -> None:
    """Where it searches, mixtures predicted nearly alike may take each other's place; the gain is what counts."""
    generator = np.random.default_rng(5)
    weights = generator.dirichlet(np.ones(4), 18)
    metrics = 0.8 + (np.sqrt(weights) @ generator.uniform(0.1, 1.5, (4, 1)) + 0.1) ** -0.5
    world = World(np.full(4, 1e9), weights, metrics + 0.01 * generator.standard_normal(metrics.shape))
    recipe = Question(domains=Domains.of({"a": 1.0}), target_tokens=1.0).parts
    plain, *others = (world.answer(factor * metrics, recipe=recipe) for factor in (1.0, 1e-6, 1e6))
    for factor, other in zip((1e-6, 1e6), others, strict=True):
        assert other["objective"]["gain"] / factor == pytest.approx(plain["objective"]["gain"], rel=0.02)
