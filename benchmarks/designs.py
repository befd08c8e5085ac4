"""How many runs a design saves: ``python -m benchmarks.designs --data DIR [--json FILE]``.

From the published RegMix swarm in DIR (512 training runs over 17 domains, 13 losses, 256 test runs) 56 runs are
chosen without looking at any loss, by each criterion and feature. The effective power law and the default ensemble
are fitted to them and to random 56, 64 and 72 runs, and their rank correlations on the test runs held against each
other: mean over the losses and over random subsets of 400 training runs, with its standard error.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.regmix import RegMix, load
from mixing.laws.diagnostics import rank_correlation
from mixing.laws.ensemble import Ensemble
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.regression import Regression
from mixing.swarm.design import d_optimal, log_weights, maximin

FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": np.array,
    "sqrt": np.sqrt,
    "log": log_weights,
}
"""What of a mixture a law is thought to be linear in."""
RUNS = 56
RANDOM_RUNS = (56, 64, 72)
CANDIDATES = 400
REPEATS = 6
FAMILIES: dict[str, Regression] = {"effective-power": EffectivePowerLaw(), "ensemble": Ensemble()}


def mean_rank_correlation(family: Regression, swarm: RegMix, rows: np.ndarray) -> float:
    """On the test runs, of a fit to these training runs; the mean over the losses."""
    fitted = family.fit(swarm.train_weights[rows], swarm.train_metrics[rows])
    return float(rank_correlation(fitted.predict(swarm.test_weights)[0], swarm.test_metrics).mean())


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the RegMix files")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    swarm = load(arguments.data)
    weights = swarm.train_weights
    scores: dict[str, list[float]] = {}
    for repeat in range(REPEATS):
        subset = np.random.default_rng(repeat).permutation(len(weights))[:CANDIDATES]
        chosen = {f"random {runs}": subset[:runs] for runs in RANDOM_RUNS}
        for name, feature in FEATURES.items():
            points = feature(weights[subset])
            # Of the weights themselves the sum is a constant; the others need one.
            rows = points if name == "linear" else np.concatenate([points, np.ones((len(points), 1))], axis=1)
            chosen[f"d-optimal {name} {RUNS}"] = subset[d_optimal(rows, RUNS, rows[:0])]
            chosen[f"maximin {name} {RUNS}"] = subset[maximin(points, RUNS, points[:0])]
        for name, rows in chosen.items():
            for family, regression in FAMILIES.items():
                score = mean_rank_correlation(regression, swarm, rows)
                scores.setdefault(f"{family}, {name}", []).append(score)
    result = {
        name: {
            "mean": round(float(np.mean(found)), 4),
            "error": round(float(np.std(found) / REPEATS**0.5), 4),
        }
        for name, found in scores.items()
    }
    for name, row in result.items():
        print(f"{name:40} {row['mean']:.4f} +- {row['error']:.4f}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"repeats": REPEATS, "rank_correlation": result}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
