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
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
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
    "mixwright, effective power": ("mixwright", combine(METHODS["mixwright"], regression="effective-power")),
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
TARGET_TOKENS = 1e12


@dataclass(frozen=True)
class Oracle:
    """A truth over m domains: smooth functions of sqrt(p), one a task, and the noise of measuring them.

    Attributes:
        domains: with their tokens.
        weights: (n, m) the mixtures that runs are drawn from.
        models: each task's function, fitted to what all of these measured.
    """

    domains: Domains
    weights: np.ndarray
    models: dict[str, GaussianProcessRegressor]

    @classmethod
    def of(cls, domains: Domains, weights: np.ndarray, metrics: Mapping[str, np.ndarray]) -> Self:
        """One Gaussian process a task, fitted to (n,) metrics."""
        scales: Any = np.ones(len(domains))  # one length scale a domain
        kernel = ConstantKernel(1.0) * RBF(scales) + WhiteKernel(0.01, (1e-6, 1.0))
        models = {}
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # a length at its bound
            for task, column in metrics.items():
                model = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=0)
                models[task] = model.fit(np.sqrt(weights), column)
        return cls(domains, weights, models)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each task's true value at (n, m) mixtures."""
        return {task: np.asarray(model.predict(np.sqrt(weights))) for task, model in self.models.items()}

    def noise(self, task: str) -> float:
        """Standard deviation of one measurement."""
        model: Any = self.models[task]  # scikit-learn gives fitted kernels no types
        return float(np.asarray(model._y_train_std).item() * np.sqrt(model.kernel_.k2.noise_level))

    def evidence(
        self, objective: Sequence[str], runs: int, generator: np.random.Generator
    ) -> tuple[RunEvidence, ...]:
        """A random subset of the mixtures, measured anew."""
        chosen = generator.permutation(len(self.weights))[:runs]
        truth, noise = self.metrics(self.weights), {task: self.noise(task) for task in objective}
        return tuple(
            RunEvidence(
                f"run{index}",
                self.domains.mixture(self.weights[index]),
                {
                    task: float(truth[task][index] + noise[task] * generator.standard_normal())
                    for task in objective
                },
            )
            for index in chosen
        )

    def gain(self, objective: Sequence[str], document: Mapping[str, Any]) -> float:
        """What the mixture of an answer gains over the natural distribution in truth."""
        points = np.array([list(document["natural"].values()), list(document["weights"].values())])
        values = self.metrics(points)
        return float(np.mean([values[task][0] - values[task][1] for task in objective]))


def fit_oracle(directory: Path) -> Oracle:
    """On all 512 training runs."""
    swarm = load(directory)
    # The swarm was drawn around the pool's own sizes, which are not in the files: its mean stands for them.
    tokens = dict(zip(swarm.domains, swarm.train_weights.mean(0) * TARGET_TOKENS, strict=True))
    domains = Domains.of(tokens)
    weights = swarm.train_weights[:, [swarm.domains.index(name) for name in domains.names]]
    return Oracle.of(
        domains, weights, dict(list(zip(swarm.tasks, swarm.train_metrics.T, strict=True))[:TASKS])
    )


def measure(oracle: Oracle, name: str, objective: list[str], runs: int) -> dict[str, float]:
    """One recipe over the subsets; see the module for what is measured."""
    found = []
    for subset in range(SUBSETS):
        evidence = oracle.evidence(objective, runs, np.random.default_rng([runs, subset]))
        method, recipe = RECIPES[name]
        question = Question(
            method=method,
            domains=oracle.domains,
            objective=dict.fromkeys(objective, 1.0),
            target_tokens=TARGET_TOKENS,
            kl_weight=METHODS[method].kl_weight,
            seed=subset,
            recipe=recipe,
        )
        began = time.process_time()
        document = propose(question, evidence).to_dict()
        seconds = time.process_time() - began
        gain = oracle.gain(objective, document)
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
