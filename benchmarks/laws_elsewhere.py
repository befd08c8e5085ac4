"""Every regression on swarms unlike RegMix: ``python -m benchmarks.laws_elsewhere --json FILE [--data DIR]``.

The swarms are those of `benchmarks/swarms`, which `benchmarks.swarms_made` trains; with ``--data`` the published
RegMix swarm is one more. A cell is a swarm, a group of its metrics (BPB of held-out slices, BPB of tasks, accuracies)
and a number of runs K. In each every family that can read any swarm is fitted to random subsets of K runs, as the
product fits it, and held against the runs not used. Means over subsets and over the metrics of the group:

- `rank_correlation`: Spearman of predicted and measured;
- `mae`: mean absolute error, in the metric's unit (accuracies are error rates);
- `regret`: what the run predicted best measured, less the best of these runs.

The default is the regression of the method `mixwright`, whichever that is. `shortfall` is by how much its rank
correlation lies below the best family's, and `error` the standard error of that difference over the subsets: where
several families are as good, the best of them was lucky. `beyond_error` counts the cells that fall short by more than
`ENOUGH` and by more than two of these errors. `below` names the plain laws that are better than the
default. Of a group of many metrics `MOST_METRICS` stand for all. CPU seconds are of all fits of a family to a swarm.

`held` is the share of the runs not used that lie in the default's 90% intervals of single runs, as an answer tells
them, and `lowest_held` that of the metric that has the lowest; null with too few runs to tell them. The runs not used
are drawn as those that are.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.swarm_table import ACCURACIES, HELD_OUT, TASKS, SwarmTable, read_swarms, regmix_table
from mixing.answer.uncertainty import CONFIDENCE
from mixing.errors import MixingError
from mixing.laws.conformal import RunIntervals, fewest_runs
from mixing.laws.diagnostics import rank_correlation
from mixing.laws.fitting import fit, fit_and_refit
from mixing.methods import METHODS, combine
from mixing.parts import REGRESSIONS

RUNS = (16, 34, 64, 96)
SUBSETS = 6
FEWEST_JUDGED = 20
ENOUGH = 0.005
"""Of a rank correlation: a family that lies nearer to the best is as good."""
MOST_METRICS = 8
LIFT = 0.1
"""A law of positive metrics is fitted to error rates this much higher where a run made no error."""
PLAIN = ("linear", "log-linear")
GROUPS = (HELD_OUT, TASKS, ACCURACIES)
MEASURES = ("rank_correlation", "mae", "regret")

Document = dict[str, Any]
HELD = "held"
Scores = dict[str, np.ndarray]
"""Of each family that could be fitted: (S, T, 3), subsets, metrics and `MEASURES`; (S, T) at `HELD`."""


def default_family() -> str:
    """The regression that is fitted where none is named."""
    return combine(METHODS["mixwright"]).regression


def families() -> tuple[list[str], dict[str, str]]:
    """Those that fit any swarm, and why the others are left out."""
    left_out = {}
    for name, part in REGRESSIONS.items():
        if part.sampler is not None:
            left_out[name] = f"reads the runs of the sampler {part.sampler!r} only"
        elif part.reads_own_domain:
            left_out[name] = "reads the slice of a domain from that domain alone"
        elif part.tasks_by is not None:
            left_out[name] = f"is another's, with the tasks by {part.tasks_by!r}"
        elif part.reads_tokens:
            left_out[name] = "reads how long runs train, which is the same for all here"
    return [name for name in REGRESSIONS if name not in left_out], left_out


def judged_metrics(swarm: SwarmTable) -> np.ndarray:
    """Positions of at most `MOST_METRICS` of each group."""
    chosen = []
    for group in GROUPS:
        positions = swarm.of_group(group)
        spread = np.linspace(0, len(positions) - 1, min(len(positions), MOST_METRICS)).round().astype(int)
        chosen.append(positions[spread])
    return np.concatenate(chosen)


def score(family: str, swarm: SwarmTable, chosen: np.ndarray) -> np.ndarray:
    """(T, 3) of one fit to the chosen runs, by the `MEASURES`. Raises what the fit raises."""
    part, table = REGRESSIONS[family], swarm.table
    lifted = part.positive * LIFT * (table.metrics <= 0).any(0)
    rest = np.setdiff1d(np.arange(len(table)), chosen)
    law = fit(part, replace(table, metrics=table.metrics + lifted).rows(chosen))
    return misses(law.mean(table.weights[rest]) - lifted, table.metrics[rest])


def score_default(swarm: SwarmTable, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `score` of the default, fitted with its refits as for an answer, and the (T,) share its intervals hold."""
    table = swarm.table
    rest = np.setdiff1d(np.arange(len(table)), chosen)
    law, refits = fit_and_refit(REGRESSIONS[default_family()], table.rows(chosen), np.random.default_rng(0))
    assert refits is not None
    predicted, measured = law.mean(table.weights[rest]), table.metrics[rest]
    low, high = RunIntervals.of(refits.predicted, refits.measured, CONFIDENCE).around(predicted)
    return misses(predicted, measured), ((low <= measured) & (measured <= high)).mean(0)


def misses(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(T, 3) `MEASURES` of (n, T) predictions."""
    picked = measured[predicted.argmin(0), np.arange(measured.shape[1])]
    values = (
        rank_correlation(predicted, measured),
        np.abs(predicted - measured).mean(0),
        picked - measured.min(0),
    )
    return np.stack(values, axis=1)


def measure(swarm: SwarmTable, runs: int, names: list[str], seconds: dict[str, float]) -> Scores:
    """Every family on the same subsets; one that cannot be fitted to so few runs, or to these, is missing."""
    scores: Scores = {}
    subsets = [
        np.sort(np.random.default_rng([runs, seed]).permutation(len(swarm.table))[:runs])
        for seed in range(SUBSETS)
    ]
    for name in names:
        if runs < REGRESSIONS[name].minimum_runs(len(swarm.domains)):
            continue
        began = time.process_time()
        try:
            if name == default_family():
                found = zip(*(score_default(swarm, chosen) for chosen in subsets), strict=True)
                scores[name], scores[HELD] = (np.stack(each) for each in found)
            else:
                scores[name] = np.stack([score(name, swarm, chosen) for chosen in subsets])
        except MixingError as error:
            print(f"{swarm.name} {runs} {name}: {error}", flush=True)
        seconds[name] = seconds.get(name, 0) + time.process_time() - began
    return scores


def cell(swarm: SwarmTable, group: str, runs: int, scores: Scores, default: str) -> Document | None:
    """What the families did on one group of metrics; None where the default could not be fitted."""
    columns = swarm.of_group(group)
    if default not in scores or not len(columns):
        return None
    held, enough = scores[HELD][:, columns].mean(0), runs >= fewest_runs(CONFIDENCE)
    by_subset = {name: values[:, columns].mean(1) for name, values in scores.items() if name != HELD}
    ranks = {name: float(values[:, 0].mean()) for name, values in by_subset.items()}
    best = max(ranks, key=lambda name: ranks[name])
    behind = by_subset[best][:, 0] - by_subset[default][:, 0]
    return {
        "swarm": swarm.name,
        "group": group,
        "runs": runs,
        "judged": len(swarm.table) - runs,
        "default": default,
        "best": best,
        "shortfall": round(ranks[best] - ranks[default], 5),
        "error": round(float(behind.std(ddof=1) / np.sqrt(len(behind))), 5),
        "below": [name for name in PLAIN if ranks.get(name, -1) > ranks[default]],
        "held": round(float(held.mean()), 4) if enough else None,
        "lowest_held": round(float(held.min()), 4) if enough else None,
        "families": {
            name: dict(zip(MEASURES, values.mean(0).round(5).tolist(), strict=True))
            for name, values in by_subset.items()
        },
    }


def compare(swarms: list[SwarmTable], counts: list[int], names: list[str]) -> Document:
    """The ``--json`` document over all cells."""
    default = default_family()
    cells, seconds = [], {}
    for whole in swarms:
        kept = judged_metrics(whole)
        groups = tuple(whole.groups[position] for position in kept)
        swarm = SwarmTable(whole.name, whole.domains, whole.table.columns(kept), groups)
        spent = seconds.setdefault(swarm.name, {})
        for runs in counts:
            if len(swarm.table) - runs < FEWEST_JUDGED:
                continue
            scores = measure(swarm, runs, names, spent)
            for group in GROUPS:
                if (found := cell(swarm, group, runs, scores, default)) is not None:
                    cells.append(found)
                    print(line(found), flush=True)
    return {
        "default": default,
        "subsets": SUBSETS,
        "largest_shortfall": max((each["shortfall"] for each in cells), default=0.0),
        "short": sum(each["shortfall"] > ENOUGH for each in cells),
        "beyond_error": sum(each["shortfall"] > max(ENOUGH, 2 * each["error"]) for each in cells),
        "below_plain": sum(bool(each["below"]) for each in cells),
        "held": round(float(np.mean([each["held"] for each in cells if each["held"] is not None])), 4),
        "cells": cells,
        "cpu_seconds": {
            swarm: {name: round(value, 1) for name, value in spent.items()}
            for swarm, spent in seconds.items()
        },
    }


def line(found: Document) -> str:
    """A cell in one line."""
    own, best = (found["families"][found[name]]["rank_correlation"] for name in ("default", "best"))
    where = f"{found['swarm']:15} {found['group']:13} K={found['runs']:3}"
    below = f"  below {', '.join(found['below'])}" if found["below"] else ""
    return (
        f"{where}  default {own:.4f}  {found['best']:24} {best:.4f}"
        f"  short {found['shortfall']:.4f} +- {found['error']:.4f}"
        f"  held {found['held']}, lowest {found['lowest_held']}{below}"
    )


def main() -> None:
    """Print a line a cell and write the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known, left_out = families()
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--data", type=Path, help="the folder of the RegMix files")
    parser.add_argument("--runs", type=int, nargs="+", default=list(RUNS))
    parser.add_argument("--families", nargs="+", choices=known, default=known)
    arguments = parser.parse_args()
    swarms = read_swarms() + ([regmix_table(arguments.data)] if arguments.data else [])
    names = list(dict.fromkeys([default_family(), *arguments.families]))
    result = {**compare(swarms, arguments.runs, names), "left_out": left_out}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{len(result['cells'])} cells; largest shortfall {result['largest_shortfall']}, more than {ENOUGH} in"
        f" {result['short']}, of which {result['beyond_error']} beyond two standard errors;"
        f" below a plain law in {result['below_plain']}"
    )


if __name__ == "__main__":
    main()
