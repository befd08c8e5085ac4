from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from benchmarks.interval_coverage import MANY, SINGLE, measure, objectives
from benchmarks.swarm_table import ACCURACIES, SwarmTable, read_swarms
from mixing.domains import Domains
from mixing.runs.evidence import RunEvidence

DOMAINS = Domains.of({"books": 1e9, "code": 3e9, "web": 6e9})


@dataclass
class Known:
    """Runs of a known law; the gain is off what was predicted by so much."""

    off: float
    domains: Domains = DOMAINS

    def evidence(
        self, objective: Sequence[str], runs: int, generator: np.random.Generator
    ) -> tuple[RunEvidence, ...]:
        return tuple(
            RunEvidence(
                f"run{run}",
                self.domains.mixture(weights),
                {
                    name: 2 - float(weights[1]) ** 0.4 + 0.01 * generator.standard_normal()
                    for name in objective
                },
            )
            for run, weights in enumerate(generator.dirichlet([1, 3, 6], size=runs))
        )

    def gain(self, objective: Sequence[str], document: Mapping[str, Any]) -> float:
        return document["objective"]["gain"] + self.off


@pytest.mark.parametrize("swarm", read_swarms(), ids=lambda swarm: swarm.name)
def test_objectives_are_four_metrics_and_two_means_that_hold_them_none_an_accuracy(swarm: SwarmTable) -> None:
    asked = objectives(swarm)
    single = [names[0] for names in asked.values() if len(names) == 1]
    assert len(single) == len(set(single)) == SINGLE
    assert asked[f"mean of {SINGLE}"] == single
    many = asked[f"mean of {MANY}"]
    assert len(set(many)) == MANY
    assert set(single) < set(many)
    accuracies = {swarm.table.names[position] for position in swarm.of_group(ACCURACIES)}
    assert accuracies.isdisjoint(many)


@pytest.mark.parametrize(("off", "held"), [(0.0, 2), (10.0, 0)])
def test_a_cell_counts_the_subsets_whose_interval_held_the_gain(off: float, held: int) -> None:
    cell = measure(Known(off), ["reading"], 20, subsets=2)
    assert cell["held"] == held
    assert cell["true_gain"] == pytest.approx(cell["predicted_gain"] + off, abs=2e-4)
