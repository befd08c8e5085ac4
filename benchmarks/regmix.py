"""The published RegMix swarm (arXiv 2407.01492, MIT): 1M proxies on 17 Pile domains, 13 validation losses.

`load(directory)` reads the four files of the authors' repository: 512 training runs and 256 test runs. Mixtures and
losses are joined by the run's index, and rows, rounded by their authors to sums of .996 to 1.003, are renormalised.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class RegMix:
    """Both parts of the swarm.

    Attributes:
        domains: names of the m domains, in the order of the columns.
        tasks: names of the T losses, in the order of the columns.
        train_weights: (512, m) rows summing to 1.
        train_metrics: (512, T) validation losses, nats per token.
        test_weights: (256, m).
        test_metrics: (256, T).
    """

    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    train_weights: np.ndarray
    train_metrics: np.ndarray
    test_weights: np.ndarray
    test_metrics: np.ndarray

    def subset(self, runs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights and metrics of the first `runs` training runs in the random order of `seed`.

        For one seed a smaller subset is part of every larger one.
        """
        chosen = np.random.default_rng(seed).permutation(len(self.train_weights))[:runs]
        return self.train_weights[chosen], self.train_metrics[chosen]


def load(directory: Path) -> RegMix:
    """Read `{train,test}_mixture_1m.csv` and `{train,test}_pile_loss_1m.csv`.

    Raises:
        ValueError: the two files of a part do not hold the same runs, or the parts not the same columns.
    """
    names, tasks, train_weights, train_metrics = _part(directory, "train")
    test_names, test_tasks, test_weights, test_metrics = _part(directory, "test")
    if (names, tasks) != (test_names, test_tasks):
        raise ValueError(f"the training and the test files in {directory} have different columns")
    return RegMix(
        tuple(name.removeprefix("train_the_pile_") for name in names),
        tuple(name.removeprefix("metric/the_pile_").removesuffix("_val_loss") for name in tasks),
        train_weights,
        train_metrics,
        test_weights,
        test_metrics,
    )


def _part(directory: Path, part: str) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    names, mixtures = _read_table(directory / f"{part}_mixture_1m.csv")
    tasks, losses = _read_table(directory / f"{part}_pile_loss_1m.csv")
    if mixtures.keys() != losses.keys():
        raise ValueError(f"the {part} mixtures and losses in {directory} are not of the same runs")
    weights = np.array(list(mixtures.values()))
    metrics = np.array([losses[run] for run in mixtures])
    return names, tasks, weights / weights.sum(1, keepdims=True), metrics


def _read_table(path: Path) -> tuple[list[str], dict[str, list[float]]]:
    """Names of the columns after the first, and each run's values by its index."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header[1:], {row[0]: [float(cell) for cell in row[1:]] for row in rows}
