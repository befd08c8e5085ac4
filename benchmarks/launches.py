"""Does the planned run gain what was predicted? ``python -m benchmarks.launches --text DIR --json FILE``.

Ten launches on real text: four pools of domains (`benchmarks.swarms_made`, whose DIR is the text's), other tasks,
other seeds, models of 5 and 9 times the proxies' parameters on 2 to 8 times their tokens. Of each the default method
answers from 40 random runs of the pool's swarm, for that target; the natural and the proposed mixture are then
trained at its size and length with the same seed. Of each launch: the predicted gain of the objective with its
interval, the measured one, how many of its tasks lie within theirs, and the interval of what a proxy would gain.

Two larger models a launch: some hours on a quiet machine. Started again it goes on after the last launch in FILE;
``--launches N`` trains the first N.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.interval_coverage import objectives
from benchmarks.swarm_table import SwarmTable, read_swarms
from benchmarks.swarms_made import SIZE, SWARMS, Prepared, prepare
from mixing.answer.proposal import propose
from mixing.methods import METHODS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.terms import Target
from proxy_models.config import SIZES
from proxy_models.training.wave import train_wave

RUNS = 40
Document = dict[str, Any]


@dataclass(frozen=True)
class Launch:
    """One launch.

    Attributes:
        swarm: of `benchmarks/swarms`.
        objective: by its name in `benchmarks.interval_coverage.objectives`.
        size: of the model.
        longer: its tokens in units of a proxy's.
        seed: of the subset and of the training.
    """

    swarm: str
    objective: str
    size: str
    longer: int
    seed: int


LAUNCHES = (
    Launch("contrary-short", "mean of 4", "nano-0.5M", 2, 1),
    Launch("topics", "mean of 4", "nano-0.5M", 4, 2),
    Launch("repeated", "mean of 8", "nano-0.5M", 4, 3),
    Launch("contrary-long", "mean of 4", "nano-0.5M", 4, 4),
    Launch("topics", "mean of 8", "nano-1M", 4, 5),
    Launch("repeated", "mean of 4", "nano-1M", 4, 6),
    Launch("contrary-short", "mean of 8", "nano-1M", 8, 7),
    Launch("contrary-long", "mean of 8", "nano-1M", 8, 8),
    Launch("topics", "mean of 4", "nano-1M", 8, 9),
    Launch("repeated", "mean of 8", "nano-1M", 8, 10),
)


def measure(launch: Launch, table: SwarmTable, prepared: Prepared) -> Document:
    """The launch's answer and what came of it."""
    names = objectives(table)[launch.objective]
    columns = {name: table.table.names.index(name) for name in names}
    chosen = np.random.default_rng(launch.seed).permutation(len(table.table))[:RUNS]
    runs = [
        RunEvidence(
            f"run{run}",
            table.domains.mixture(table.table.weights[run]),
            {name: float(table.table.metrics[run, column]) for name, column in columns.items()},
        )
        for run in chosen
    ]
    proxy = SWARMS[launch.swarm].training
    tokens = float(launch.longer * proxy.tokens)
    question = Question(
        domains=table.domains,
        objective=dict.fromkeys(names, 1.0),
        target_tokens=tokens,
        target=Target(float(SIZES[launch.size].non_embedding_parameters), tokens),
        proxy_parameters=float(SIZES[SIZE].non_embedding_parameters),
        proxy_tokens=float(proxy.tokens),
        kl_weight=METHODS["mixwright"].kl_weight,
        seed=launch.seed,
    )
    document = propose(question, runs).to_dict()
    natural, proposed = _trained(launch, prepared, [document["natural"], document["weights"]])
    gains = {name: natural[name] - proposed[name] for name in names}
    at_target = document["at_target"]
    inside = [row["interval"][0] <= gains[row["name"]] <= row["interval"][1] for row in at_target["tasks"]]
    gain, (low, high) = float(np.mean(list(gains.values()))), at_target["objective"]["interval"]
    return {
        **asdict(launch),
        "predicted_gain": at_target["objective"]["gain"],
        "interval": [low, high],
        "proxies_interval": document["objective"]["gain_interval"],
        "measured_gain": gain,
        "inside": bool(low <= gain <= high),
        "tasks_inside": f"{sum(inside)} of {len(inside)}",
    }


def _trained(launch: Launch, prepared: Prepared, mixtures: Sequence[Document]) -> list[dict[str, float]]:
    """What each of the mixtures measures at the launch's size and length."""
    first, found = prepared.spec(0), []
    for number, mixture in enumerate(mixtures):
        training = replace(first.training, tokens=launch.longer * first.training.tokens, seed=launch.seed)
        directory = prepared.scratch / f"launch{number}"
        spec = replace(first, size=launch.size, mixture=mixture, training=training, directory=directory)
        (outcome,) = train_wave([spec])
        if isinstance(outcome, Exception):
            raise outcome
        found.append(outcome.final)
    shutil.rmtree(prepared.scratch)
    return found


def summary(rows: Sequence[Document]) -> Document:
    """In how many launches the gain lay within, and the median widths."""

    def width(name: str) -> float:
        return round(float(np.median([row[name][1] - row[name][0] for row in rows])), 4)

    return {
        "launches": len(rows),
        "inside": sum(row["inside"] for row in rows),
        "median_width": width("interval"),
        "median_width_of_the_proxies": width("proxies_interval"),
        "inside_that_of_the_proxies": sum(
            row["proxies_interval"][0] <= row["measured_gain"] <= row["proxies_interval"][1] for row in rows
        ),
    }


def main() -> None:
    """Train what FILE has not yet, and write it after each launch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True, help="where the text is kept")
    parser.add_argument("--json", type=Path, required=True, help="where to write the result")
    parser.add_argument("--launches", type=int, default=len(LAUNCHES), help="the first so many")
    arguments = parser.parse_args()
    rows = json.loads(arguments.json.read_text())["launches"] if arguments.json.exists() else []
    tables = {swarm.name: swarm for swarm in read_swarms()}
    for launch in LAUNCHES[len(rows) : arguments.launches]:
        (prepared,) = prepare([launch.swarm], arguments.text.resolve(), arguments.json.resolve().parent)
        rows.append(measure(launch, tables[launch.swarm], prepared))
        print(json.dumps(rows[-1]), flush=True)
        arguments.json.write_text(json.dumps({"launches": rows, "summary": summary(rows)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
