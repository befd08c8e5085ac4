"""How often the 90% interval of the gain holds the truth: ``python -m benchmarks.interval_coverage --data DIR``.

The truth is a Gaussian process fitted to the published RegMix swarm (``train_mixture_1m.csv`` and
``train_pile_loss_1m.csv`` in DIR), so its shape is not the law's. From it come random subsets of K runs with the
process's own noise; for each the whole proposal is made, and its interval held against the gain the process says the
proposed mixture has. Printed beside the interval without its widening for misfit.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from mixing import uncertainty
from mixing.domains import Domains
from mixing.evidence import RunEvidence
from mixing.proposal import ProposalRequest, propose

RUNS = (34, 54, 108)
SUBSETS = 10
TASKS = 4
"""Losses in the objective: the first ones of the file."""


@dataclass(frozen=True)
class Oracle:
    """A truth over 17 domains: smooth functions of sqrt(p), one a task, and the noise of measuring them."""

    domains: Domains
    weights: np.ndarray
    models: dict[str, GaussianProcessRegressor]

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each task's true value at (n, m) mixtures."""
        return {task: np.asarray(model.predict(np.sqrt(weights))) for task, model in self.models.items()}

    def noise(self, task: str) -> float:
        """Standard deviation of one measurement."""
        model: Any = self.models[task]  # scikit-learn gives fitted kernels no types
        return float(np.asarray(model._y_train_std).item() * np.sqrt(model.kernel_.k2.noise_level))


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Column names and values of a CSV, its first column (the run) left out."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    return rows[0][1:], np.array([[float(cell) for cell in row[1:]] for row in rows[1:]])


def fit_oracle(directory: Path) -> Oracle:
    """One Gaussian process a task on all 512 runs."""
    names, weights = read_table(directory / "train_mixture_1m.csv")
    tasks, losses = read_table(directory / "train_pile_loss_1m.csv")
    weights = weights / weights.sum(1, keepdims=True)
    short = [name.removeprefix("train_").replace("the_pile_", "") for name in names]
    # The swarm was drawn around the pool's own sizes, which are not in the files: its mean stands for them.
    tokens = dict(zip(short, weights.mean(0) * 1e12, strict=True))
    domains = Domains.of(tokens)
    order = [short.index(name) for name in domains.names]
    scales: Any = np.ones(len(short))  # one length scale a domain
    kernel = ConstantKernel(1.0) * RBF(scales) + WhiteKernel(0.01, (1e-6, 1.0))
    models = {}
    for task, column in list(zip(tasks, losses.T, strict=True))[:TASKS]:
        model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=0)
        models[task.rpartition("/")[2]] = model.fit(np.sqrt(weights[:, order]), column)
    return Oracle(domains, weights[:, order], models)


def coverage(oracle: Oracle, objective: list[str], runs: int) -> float:
    """Share of subsets whose interval holds the truth."""
    truth = oracle.metrics(oracle.weights)
    hits = []
    for subset in range(SUBSETS):
        generator = np.random.default_rng([runs, subset])
        chosen = generator.permutation(len(oracle.weights))[:runs]
        evidence = tuple(
            RunEvidence(
                f"run{index}",
                oracle.domains.mixture(oracle.weights[index]),
                {
                    task: float(truth[task][index] + oracle.noise(task) * generator.standard_normal())
                    for task in objective
                },
            )
            for index in chosen
        )
        request = ProposalRequest(
            "olmix", oracle.domains, evidence, dict.fromkeys(objective, 1.0), 1e12, 4.0, 0.05, subset
        )
        document = propose(request).to_dict()
        points = np.array([list(document["natural"].values()), list(document["weights"].values())])
        values = oracle.metrics(points)
        gain = np.mean([values[task][0] - values[task][1] for task in objective])
        low, high = document["objective"]["gain_interval"]
        hits.append(low <= gain <= high)
    return float(np.mean(hits))


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the RegMix files")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    oracle = fit_oracle(arguments.data)
    tasks = list(oracle.models)
    share = uncertainty.MISFIT_SHARE
    result: dict[str, dict[str, dict[str, float]]] = {}
    for label, widening in (("widened", share), ("not widened", 0.0)):
        uncertainty.MISFIT_SHARE = widening
        for name, objective in (("one task", tasks[:1]), ("all tasks", tasks)):
            row = {str(runs): coverage(oracle, objective, runs) for runs in RUNS}
            result.setdefault(label, {})[name] = row
            print(label, name, row, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"subsets": SUBSETS, "coverage": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
