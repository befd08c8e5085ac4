"""How well regressions predict runs they have not seen: ``python -m benchmarks.regression --data DIR --json FILE``.

DIR holds the published RegMix swarm. Each family is fitted to random subsets of its 512 training runs, which for one
seed are nested (seeds 0, 1, ...: `RegMix.subset`), and held against the 256 test runs, means over the subsets:

- `mean_rank_correlation`: Spearman of predicted and measured loss, mean over the 13 losses; `pile_cc`: of that one;
- `mae`: mean absolute error over all losses, nats per token;
- `regret`: measured loss of the test run that is predicted best, less that of the best, mean over the losses;
- `fit_cpu_seconds`: of one fit to all 13 losses;
- `interval_coverage`: share of test runs inside their 90% cross-conformal interval, and `lowest_task_coverage` the
  same of the task that has the lowest; only with ``--intervals``, for it fits every family to ten folds more.

Held against: LightGBM .813 at 51 runs, .969 at 128, .990 at 512; the log-linear law .844 at 34, .973 at 512; the
goals of the default, .980 at 34, .990 at 64, .993 at 128 and .995 at 512. Set OMP_NUM_THREADS=1 to compare seconds.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.regmix import RegMix, load
from mixing.laws.conformal import Conformal
from mixing.laws.diagnostics import rank_correlation
from mixing.laws.ensemble import Ensemble
from mixing.laws.exponential.exponentials import (
    ExponentialPowerLaw,
    ExponentialsLaw,
    LinearInteractionsLaw,
    LogLinearInteractionsLaw,
)
from mixing.laws.exponential.log_linear import LogLinearLaw
from mixing.laws.linear import LinearLaw
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.powers.power_laws import AutoScaleLaw, BiMixLaw
from mixing.laws.processes.fitted_process import FeatureMap
from mixing.laws.processes.gaussian_process import GaussianProcess
from mixing.laws.regression import Regression
from mixing.laws.trees import ClimbTrees, Trees

RUNS = (34, 54, 64, 96, 128, 256, 512)
SUBSETS = 5
DEFAULT = "default"

FAMILIES: dict[str, Regression] = {
    "linear": LinearLaw(),
    "linear-interactions": LinearInteractionsLaw(),
    "log-linear": LogLinearLaw(),
    "log-linear-interactions": LogLinearInteractionsLaw(),
    "exponentials": ExponentialsLaw(),
    "exponential-power": ExponentialPowerLaw(),
    "bimix": BiMixLaw(),
    "autoscale": AutoScaleLaw(),
    "lightgbm": Trees(),
    "lightgbm-climb": ClimbTrees(),
    "gaussian-process on weights": GaussianProcess(FeatureMap("raw")),
    "gaussian-process on roots": GaussianProcess(FeatureMap("sqrt")),
    "gaussian-process on logarithms": GaussianProcess(FeatureMap("log")),
    "gaussian-process": GaussianProcess(),
    "gaussian-process around effective-power": GaussianProcess(mean=EffectivePowerLaw()),
    "effective-power": EffectivePowerLaw(),
    DEFAULT: Ensemble(),
}
"""By the names of `mixing.parts`, where they have one; the default is `ensemble` there."""


@dataclass(frozen=True)
class Score:
    """What one fit, or the mean of several, is worth; see the module for the fields."""

    mean_rank_correlation: float
    pile_cc: float
    mae: float
    regret: float
    fit_cpu_seconds: float
    task_coverage: np.ndarray | None


def score(family: Regression, data: RegMix, runs: int, seed: int, intervals: bool) -> Score:
    """Fit to one subset and hold against the test runs."""
    weights, metrics = data.subset(runs, seed)
    began = time.process_time()
    fitted = family.fit(weights, metrics)
    seconds = time.process_time() - began
    predicted, _ = fitted.predict(data.test_weights)
    correlation = rank_correlation(predicted, data.test_metrics)
    tasks = np.arange(len(data.tasks))
    chosen = data.test_metrics[predicted.argmin(0), tasks]
    return Score(
        mean_rank_correlation=float(correlation.mean()),
        pile_cc=float(correlation[data.tasks.index("pile_cc")]),
        mae=float(np.abs(predicted - data.test_metrics).mean()),
        regret=float((chosen - data.test_metrics.min(0)).mean()),
        fit_cpu_seconds=seconds,
        task_coverage=_coverage(family, data, weights, metrics) if intervals else None,
    )


def _coverage(family: Regression, data: RegMix, weights: np.ndarray, metrics: np.ndarray) -> np.ndarray:
    """(T,) share of the test runs inside their interval."""
    low, high = Conformal(family).fit(weights, metrics).interval(data.test_weights)
    return ((data.test_metrics >= low) & (data.test_metrics <= high)).mean(0)


def summarize(scores: list[Score]) -> dict[str, float]:
    """Means over the subsets; the lowest coverage is that of a task's mean."""
    rows = [asdict(each) for each in scores]
    coverage = [row.pop("task_coverage") for row in rows]
    summary = {name: round(float(np.mean([row[name] for row in rows])), 5) for name in rows[0]}
    if coverage[0] is not None:
        by_task = np.mean(coverage, axis=0)
        summary["interval_coverage"] = round(float(by_task.mean()), 4)
        summary["lowest_task_coverage"] = round(float(by_task.min()), 4)
    return summary


def measure(
    name: str, data: RegMix, runs: list[int], subsets: int, intervals: bool
) -> dict[str, dict[str, float]]:
    """Every measure of one family, by the number of runs; what a family needs more runs for is left out."""
    family = FAMILIES[name]
    table: dict[str, dict[str, float]] = {}
    for count in runs:
        if count < family.runs_to_fit(len(data.domains)):
            continue
        # All of the runs are the same subset whatever the seed.
        seeds = range(subsets if count < len(data.train_weights) else 1)
        row = summarize([score(family, data, count, seed, intervals) for seed in seeds])
        for measured, value in row.items():
            table.setdefault(measured, {})[str(count)] = value
        print(f"{name:40} {count:4}", *(f"{key} {value:.4f}" for key, value in row.items()), flush=True)
    return table


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the RegMix files")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--runs", type=int, nargs="+", default=list(RUNS))
    parser.add_argument("--subsets", type=int, default=SUBSETS)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--intervals", action="store_true", help="measure what the 90%% intervals cover")
    arguments = parser.parse_args()
    data = load(arguments.data)
    result: dict[str, object] = {"seeds": list(range(arguments.subsets)), "test_runs": len(data.test_weights)}
    for name in arguments.families:
        result[name] = measure(name, data, arguments.runs, arguments.subsets, arguments.intervals)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
