"""What recipes choose, and how sure they are, against a known truth: ``python -m benchmarks.recipes --data DIR``.

The truth is a Gaussian process fitted to the published RegMix swarm (the files of which are in DIR), so its shape is
that of no law. From it come random subsets of K runs with the process's own noise; for each every recipe fits, solves
and says what it expects. Means over the subsets:

- `true_gain`: what the process says the mixture gains over the natural distribution, nats per token;
- `predicted_gain`: what the recipe said;
- `coverage` and `width`: how often its 90% interval held the true gain, and how wide it was;
- `nearest_run`: L1 distance of the mixture to the nearest run;
- `cpu_seconds`: of the whole proposal, cross-validation and intervals included.

The two recipes of trees differ in the solver alone, and what they predict hardly differs; what their mixtures are
worth in truth does.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from benchmarks.regmix import load
from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.methods import METHODS, Recipe, combine
from mixing.question import Question
from mixing.runs.evidence import RunEvidence

RUNS = (34, 54, 108)
SUBSETS = 10
RECIPES: dict[str, tuple[str, Recipe]] = {
    "olmix": ("olmix", combine(METHODS["olmix"])),
    "mixwright": ("mixwright", combine(METHODS["mixwright"])),
    "mixwright, ensemble and search": ("mixwright", combine(METHODS["mixwright"], regression="ensemble")),
    "regmix": ("regmix", combine(METHODS["regmix"])),
    "regmix, search": ("regmix", combine(METHODS["regmix"], solver="search")),
    "climb": ("climb", combine(METHODS["climb"])),
    "gaussian process, posterior mean": (
        "mixwright",
        combine(METHODS["mixwright"], regression="gaussian-process", solver="posterior-mean"),
    ),
}
"""Name of the method whose defaults hold, and the parts; all see the same runs, whatever their own sampler."""
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


def fit_oracle(directory: Path) -> Oracle:
    """One Gaussian process a task on all 512 runs."""
    swarm = load(directory)
    # The swarm was drawn around the pool's own sizes, which are not in the files: its mean stands for them.
    tokens = dict(zip(swarm.domains, swarm.train_weights.mean(0) * 1e12, strict=True))
    domains = Domains.of(tokens)
    weights = swarm.train_weights[:, [swarm.domains.index(name) for name in domains.names]]
    scales: Any = np.ones(len(swarm.domains))  # one length scale a domain
    kernel = ConstantKernel(1.0) * RBF(scales) + WhiteKernel(0.01, (1e-6, 1.0))
    models = {}
    for task, column in list(zip(swarm.tasks, swarm.train_metrics.T, strict=True))[:TASKS]:
        model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=0)
        models[task] = model.fit(np.sqrt(weights), column)
    return Oracle(domains, weights, models)


def measure(oracle: Oracle, name: str, objective: list[str], runs: int) -> dict[str, float]:
    """One recipe over the subsets; see the module for what is measured."""
    truth = oracle.metrics(oracle.weights)
    found = []
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
        method, recipe = RECIPES[name]
        question = Question(
            method=method,
            domains=oracle.domains,
            objective=dict.fromkeys(objective, 1.0),
            target_tokens=1e12,
            kl_weight=METHODS[method].kl_weight,
            seed=subset,
            recipe=recipe,
        )
        began = time.process_time()
        document = propose(question, evidence).to_dict()
        seconds = time.process_time() - began
        points = np.array([list(document["natural"].values()), list(document["weights"].values())])
        values = oracle.metrics(points)
        gain = np.mean([values[task][0] - values[task][1] for task in objective])
        low, high = document["objective"]["gain_interval"]
        predicted, distance = document["objective"]["gain"], document["nearest_run_distance"]
        found.append((gain, predicted, low <= gain <= high, high - low, distance, seconds))
    names = ("true_gain", "predicted_gain", "coverage", "width", "nearest_run", "cpu_seconds")
    return {name: round(float(value), 4) for name, value in zip(names, np.mean(found, axis=0), strict=True)}


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the RegMix files")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    arguments = parser.parse_args()
    oracle = fit_oracle(arguments.data)
    tasks = list(oracle.models)
    result: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for recipe in arguments.recipes:
        for name, objective in (("one task", tasks[:1]), ("all tasks", tasks)):
            for runs in RUNS:
                row = measure(oracle, recipe, objective, runs)
                result.setdefault(recipe, {}).setdefault(name, {})[str(runs)] = row
                print(f"{recipe:34} {name:10} {runs:4} {row}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"subsets": SUBSETS, "recipes": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
