"""The swarms of `benchmarks/swarms` as tables: `read_swarms(directory)`. `benchmarks.swarms_made` writes them."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.regmix import load
from mixing.domains import HELD_OUT_PREFIX, Domains
from mixing.runs.table import RunTable

SWARMS = Path(__file__).parent / "swarms"
WEIGHT = "weight "
"""What the name of a column of weights begins with."""
HELD_OUT, TASKS, ACCURACIES = "held-out BPB", "task BPB", "accuracies"


@dataclass(frozen=True)
class SwarmTable:
    """A swarm that is done.

    Attributes:
        name: of the swarm.
        domains: m of them, with their tokens.
        table: all its runs, every metric better when lower: an accuracy is an error rate.
        groups: (T,) what kind each metric is.
    """

    name: str
    domains: Domains
    table: RunTable
    groups: tuple[str, ...]

    def of_group(self, group: str) -> np.ndarray:
        """Positions of the group's metrics."""
        return np.flatnonzero([own == group for own in self.groups])


def read_swarms(directory: Path = SWARMS) -> list[SwarmTable]:
    """All swarms of a folder, by name."""
    return [_read(path) for path in sorted(directory.glob("*.csv"))]


def regmix_table(directory: Path) -> SwarmTable:
    """The published RegMix swarm, both parts; the mean of its training mixtures stands for the natural one."""
    data = load(directory)
    names = data.domains
    domains = Domains.of(dict(zip(names, data.train_weights.mean(0) * 1e12, strict=True)))
    columns = [names.index(name) for name in domains.names]
    weights = np.concatenate([data.train_weights, data.test_weights])[:, columns]
    metrics = np.concatenate([data.train_metrics, data.test_metrics])
    table = RunTable.of(domains.names, data.tasks, weights, metrics)
    return SwarmTable("regmix", domains, table, (HELD_OUT,) * len(data.tasks))


def _read(path: Path) -> SwarmTable:
    description = json.loads(path.with_suffix(".json").read_text())
    domains = Domains.of(description["domains"])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    weights = np.array([[float(row[WEIGHT + name]) for name in domains.names] for row in rows])
    metrics: Mapping[str, Mapping[str, Any]] = description["metrics"]
    names = tuple(sorted(metrics))
    values = np.array([[float(row[name]) for name in names] for row in rows])
    turned = np.array([metrics[name]["direction"] == "higher" for name in names])
    table = RunTable.of(
        domains.names, names, weights / weights.sum(1, keepdims=True), np.where(turned, 1 - values, values)
    )
    return SwarmTable(
        path.stem, domains, table, tuple(_group(name, metrics[name]["metric"]) for name in names)
    )


def _group(name: str, metric: str) -> str:
    if name.startswith(HELD_OUT_PREFIX):
        return HELD_OUT
    return ACCURACIES if metric == "accuracy" else TASKS
