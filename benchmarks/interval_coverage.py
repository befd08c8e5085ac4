"""How often the gain's 90% interval holds, where the law has another shape than the truth:
``python -m benchmarks.interval_coverage --json FILE [--data DIR] [--train TEXT]``.

For random subsets of K runs of a swarm the method `mixwright` proposes with its default settings, for a target of as
many tokens as the domains have. A cell is a swarm, an objective and K; objectives are four single metrics and the
means of these and of eight, BPB all of them. What the mixture gains over the natural distribution is judged by

- a Gaussian process fitted to all runs of the swarm (`benchmarks.recipes`), which measures the subsets anew with its
  own noise: swarms of `benchmarks/swarms`, and with ``--data`` the training runs of RegMix;
- with ``--train``, training: the subsets are the runs as they are, and the mixture and the natural distribution are
  trained as the runs were (TEXT is the ``--data`` of `benchmarks.swarms_made`), with `SEEDS`.

Of each cell: `held`, in how many of the subsets the interval held the true gain; `width`, `true_gain` and
`predicted_gain`, means over the subsets in BPB (nats per token for RegMix).
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.recipes import Oracle
from benchmarks.swarm_table import HELD_OUT, SWARMS, TASKS, SwarmTable, read_swarms, regmix_table
from benchmarks.swarms_made import Prepared, prepare
from mixing.answer.proposal import propose
from mixing.domains import Domains, Mixture
from mixing.methods import METHODS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from proxy_models.training.wave import train_wave

RUNS = (34, 64, 128, 512)
SUBSETS = 10
SINGLE, MANY = 4, 8
METHOD = "mixwright"
REGMIX_TRAINING_RUNS = 512
SEEDS = (0, 1)

Document = dict[str, Any]


class Judge(Protocol):
    """What says what runs measure, and what a mixture gains in truth."""

    @property
    def domains(self) -> Domains:
        """Of the swarm, with their tokens."""
        ...

    def evidence(
        self, objective: Sequence[str], runs: int, generator: np.random.Generator
    ) -> tuple[RunEvidence, ...]:
        """A random subset of the runs."""
        ...

    def gain(self, objective: Sequence[str], document: Mapping[str, Any]) -> float:
        """Of the mixture of an answer, over the natural distribution."""
        ...


@dataclass
class Training:
    """Judges by training.

    Attributes:
        swarm: with the runs that were trained.
        prepared: the same swarm's text.
        measured: what each mixture measured, a mapping a seed.
    """

    swarm: SwarmTable
    prepared: Prepared
    measured: dict[Mixture, list[Mapping[str, float]]] = field(default_factory=dict)

    @property
    def domains(self) -> Domains:
        """Of the swarm."""
        return self.swarm.domains

    def evidence(
        self, objective: Sequence[str], runs: int, generator: np.random.Generator
    ) -> tuple[RunEvidence, ...]:
        """A random subset of the runs, as they were measured."""
        table = self.swarm.table
        columns = {name: table.names.index(name) for name in objective}
        return tuple(
            RunEvidence(
                f"run{run}",
                self.domains.mixture(table.weights[run]),
                {name: float(table.metrics[run, column]) for name, column in columns.items()},
            )
            for run in generator.permutation(len(table))[:runs]
        )

    def gain(self, objective: Sequence[str], document: Mapping[str, Any]) -> float:
        """Both mixtures trained with the same seeds."""
        natural, proposed = (
            self._trained(self.domains.mixture(np.array([mixture[name] for name in self.domains.names])))
            for mixture in (document["natural"], document["weights"])
        )
        return float(
            np.mean(
                [
                    before[name] - after[name]
                    for before, after in zip(natural, proposed, strict=True)
                    for name in objective
                ]
            )
        )

    def _trained(self, mixture: Mixture) -> list[Mapping[str, float]]:
        if mixture not in self.measured:
            first = replace(self.prepared.spec(0), mixture=mixture)
            specs = [
                replace(
                    first,
                    directory=self.prepared.scratch / f"seed{seed}",
                    training=replace(first.training, seed=seed),
                )
                for seed in SEEDS
            ]
            found = []
            for outcome in train_wave(specs):
                if isinstance(outcome, Exception):
                    raise outcome
                found.append(outcome.final)
            shutil.rmtree(self.prepared.scratch)
            self.measured[mixture] = found
        return self.measured[mixture]


def objectives(swarm: SwarmTable) -> dict[str, list[str]]:
    """Each objective's metrics: single ones of both kinds, half of each, and two means."""
    tasks, slices = (
        [swarm.table.names[position] for position in swarm.of_group(group)] for group in (TASKS, HELD_OUT)
    )
    spread = np.linspace(0, len(slices) - 1, MANY - min(len(tasks), SINGLE // 2)).round().astype(int)
    many = [*tasks[: SINGLE // 2], *(slices[position] for position in spread)]
    single = many[:SINGLE]
    return {**{name: [name] for name in single}, f"mean of {SINGLE}": single, f"mean of {MANY}": many}


def process(swarm: SwarmTable) -> Oracle:
    """A Gaussian process of each metric that any objective has, fitted to all runs."""
    table = swarm.table.rows(np.arange(min(len(swarm.table), REGMIX_TRAINING_RUNS)))
    names = objectives(swarm)[f"mean of {MANY}"]
    metrics = {name: table.metrics[:, table.names.index(name)] for name in names}
    return Oracle.of(swarm.domains, table.weights, metrics)


def judges(arguments: argparse.Namespace) -> Iterator[tuple[SwarmTable, Judge]]:
    """Each swarm with its judge."""
    swarms = [swarm for swarm in read_swarms() if swarm.name in arguments.swarms]
    if arguments.train is not None:
        prepared = prepare([swarm.name for swarm in swarms], arguments.train.resolve(), SWARMS)
        yield from ((swarm, Training(swarm, text)) for swarm, text in zip(swarms, prepared, strict=True))
        return
    for swarm in [*swarms, *([regmix_table(arguments.data)] if arguments.data else [])]:
        yield swarm, process(swarm)


def measure(judge: Judge, objective: list[str], runs: int, subsets: int) -> Document:
    """One cell."""
    found = []
    for subset in range(subsets):
        question = Question(
            method=METHOD,
            domains=judge.domains,
            objective=dict.fromkeys(objective, 1.0),
            target_tokens=float(judge.domains.tokens.sum()),
            kl_weight=METHODS[METHOD].kl_weight,
            seed=subset,
        )
        generator = np.random.default_rng([runs, subset])
        document = propose(question, judge.evidence(objective, runs, generator)).to_dict()
        gain, (low, high) = judge.gain(objective, document), document["objective"]["gain_interval"]
        found.append((low <= gain <= high, high - low, gain, document["objective"]["gain"]))
    held, width, gain, predicted = np.mean(found, axis=0).tolist()
    return {
        "held": round(held * subsets),
        "width": round(width, 4),
        "true_gain": round(gain, 4),
        "predicted_gain": round(predicted, 4),
    }


def cells(swarm: SwarmTable, judge: Judge, counts: Sequence[int], subsets: int) -> list[Document]:
    """All cells of a swarm; a count above its runs is all of them."""
    most = min(len(swarm.table), REGMIX_TRAINING_RUNS)
    found = []
    for runs in sorted({min(count, most) for count in counts}):
        for name, objective in objectives(swarm).items():
            measured = measure(judge, objective, runs, subsets)
            found.append({"swarm": swarm.name, "objective": name, "runs": runs, **measured})
            print(*found[-1].values(), flush=True)
    return found


def main() -> None:
    """Print and write the cells and what they come to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [swarm.name for swarm in read_swarms()]
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--data", type=Path, help="the folder of the RegMix files")
    parser.add_argument("--train", type=Path, help="judge by training on the text in this folder")
    parser.add_argument("--swarms", nargs="+", choices=names, default=names)
    parser.add_argument("--runs", type=int, nargs="+", default=list(RUNS))
    parser.add_argument("--subsets", type=int, default=SUBSETS)
    arguments = parser.parse_args()
    found = [
        cell
        for swarm, judge in judges(arguments)
        for cell in cells(swarm, judge, arguments.runs, arguments.subsets)
    ]
    result = {
        "subsets": arguments.subsets,
        "coverage": round(sum(cell["held"] for cell in found) / (arguments.subsets * len(found)), 4),
        "fewest_held": min(cell["held"] for cell in found),
        "cells": found,
    }
    print(f"coverage {result['coverage']}, fewest {result['fewest_held']} of {arguments.subsets}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
