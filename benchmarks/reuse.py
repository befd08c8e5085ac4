"""What reuse saves and what it loses when domains change: ``python -m benchmarks.reuse --data DIR --json FILE``.

DIR holds the published RegMix swarm; without it only the two truths are drawn whose parameters are in the
repository. A pool grows from 24 domains to 64 in five updates (`benchmarks.reuse_updates`); what its mixtures are
worth is known, by laws drawn from ones fitted to that swarm, and measured with the noise found
there (`benchmarks.reuse_truth`). Every strategy starts from the same first swarm and mixture and decides after each
update (`benchmarks.reuse_strategies`). Held against recomputing everything with the default method, each time a swarm
of 3 (m + 1) runs:

- `share_of_runs`: the new runs of all updates together; `without_removal` does not charge recomputing for the update
  that only removes a domain, `with_first` counts the first swarm on both sides;
- `share_of_gain`: the true gain over the natural distribution, summed over the five updates; `last` is that of the
  last update alone. A mean over worlds, each weighing the same, and seeds, with its standard error over the seeds.
- `runs`: new runs of each update, and `seen` how often something was not possible as asked, per seed and world.

`default` is what a user gets who says nothing; it is measured over ten seeds with all 13 losses as the objective.
Frozen ratios are cross-validated at every update, which takes twenty times as long as a fit; so `beside_ratios` holds
them against the default over fewer seeds with four losses, drawn for each seed and world. Set OMP_NUM_THREADS=1 to
compare seconds.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.regmix import load
from benchmarks.reuse_strategies import DEFAULT, RECOMPUTE, STRATEGIES, Bench, State
from benchmarks.reuse_truth import WORLDS, Fits, fits
from benchmarks.reuse_updates import Shape, updates

FIRST_SEED = 100
"""Seeds below were looked at when the plan's numbers were chosen."""
REMOVAL = 3
"""Position of the update that only removes a domain."""
SMALL = Shape(web=6, code=4, sources=3, parts=5)


@dataclass(frozen=True)
class Part:
    """What is held against recomputing together.

    Attributes:
        strategies: names.
        tasks: losses in the objective, drawn for each seed and world from those of the swarm; None for all.
        most_seeds: it is measured over at most so many.
    """

    strategies: tuple[str, ...]
    tasks: int | None
    most_seeds: int | None


MAIN = Part((RECOMPUTE, DEFAULT, "olmix, recompute", "olmix, auto"), tasks=None, most_seeds=None)
BESIDE_RATIOS = Part(
    tuple(name for name, strategy in STRATEGIES.items() if strategy.method == "mixwright"),
    tasks=4,
    most_seeds=3,
)


@dataclass(frozen=True)
class Outcome:
    """What a strategy did in one world of one seed.

    Attributes:
        first: runs of the first swarm.
        runs: (U,) new runs of each update.
        gains: (U,) true gains.
        seen: what was not possible as asked.
        cpu_seconds: of all its updates.
    """

    first: int
    runs: np.ndarray
    gains: np.ndarray
    seen: Mapping[str, int]
    cpu_seconds: float


Results = dict[tuple[str, int], dict[str, Outcome]]
"""By world and seed, then by strategy."""


def outcomes(bench: Bench, names: Iterable[str]) -> dict[str, Outcome]:
    """Every strategy through all updates."""
    first: dict[str, State] = {}
    found: dict[str, Outcome] = {}
    for name in names:
        strategy, began = STRATEGIES[name], time.process_time()
        if strategy.method not in first:
            first[strategy.method] = bench.begin(strategy.method)
        state = deepcopy(first[strategy.method])
        begun = len(state.trained)
        for at, revision in enumerate(bench.updates.ids[1:]):
            runs = None if strategy.runs_of is None else int(found[strategy.runs_of].runs[at])
            bench.update(state, strategy, revision, runs)
        seconds = time.process_time() - began
        found[name] = Outcome(begun, np.array(state.runs), np.array(state.gains), dict(state.seen), seconds)
    return found


def bench_of(
    world: str, seed: int, fitted: Fits, tasks: int | None = None, shape: Shape | None = None
) -> Bench:
    """The pool and the truth of one seed in one world."""
    generator = np.random.default_rng([seed, list(WORLDS).index(world)])
    pool = updates(generator, shape)
    truth = WORLDS[world](fitted, pool, generator)
    chosen = np.sort(generator.permutation(len(truth.noise))[:tasks])
    return Bench(truth.of(chosen), pool, seed)


def summary(results: Results) -> dict[str, dict[str, Any]]:
    """By strategy, see the module."""
    names = [name for name in next(iter(results.values())) if name != RECOMPUTE]
    return {
        RECOMPUTE: _absolute([found[RECOMPUTE] for found in results.values()]),
        **{name: _shares(results, name) for name in names},
    }


def _absolute(found: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "first_swarm": float(np.mean([one.first for one in found])),
        "runs": _rounded(np.mean([one.runs for one in found], axis=0)),
        "gains": _rounded(np.mean([one.gains for one in found], axis=0)),
        "cpu_seconds": round(float(np.mean([one.cpu_seconds for one in found])), 2),
    }


def _shares(results: Results, name: str) -> dict[str, Any]:
    pairs = {at: (found[name], found[RECOMPUTE]) for at, found in results.items()}
    gain = {at: float(one.gains.sum() / whole.gains.sum()) for at, (one, whole) in pairs.items()}
    last = [float(one.gains[-1] / whole.gains[-1]) for one, whole in pairs.values()]
    worlds = list(dict.fromkeys(world for world, _ in results))
    seeds = list(dict.fromkeys(seed for _, seed in results))
    of_seed = [float(np.mean([gain[world, seed] for world in worlds])) for seed in seeds]
    by_update = np.mean([one.gains / whole.gains for one, whole in pairs.values()], axis=0)
    seen: Counter[str] = Counter()
    for one, _ in pairs.values():
        seen.update(one.seen)
    ours, theirs = (
        np.mean([side.runs for side in pair], axis=0) for pair in zip(*pairs.values(), strict=True)
    )
    first = float(np.mean([one.first for one, _ in pairs.values()]))
    charged = np.arange(len(theirs)) != REMOVAL
    return {
        "share_of_runs": round(float(ours.sum() / theirs.sum()), 4),
        "share_of_gain": round(float(np.mean(of_seed)), 4),
        "standard_error": round(float(np.std(of_seed, ddof=1) / len(of_seed) ** 0.5), 4)
        if seeds[1:]
        else None,
        "worst_seed": round(min(of_seed), 4),
        "last": round(float(np.mean(last)), 4),
        "by_world": {
            world: {
                "share_of_gain": round(float(np.mean([gain[world, seed] for seed in seeds])), 4),
                "worst_seed": round(min(gain[world, seed] for seed in seeds), 4),
            }
            for world in worlds
        },
        "by_update": _rounded(by_update),
        "without_removal": round(float(ours.sum() / theirs[charged].sum()), 4),
        "with_first": round(float((first + ours.sum()) / (first + theirs.sum())), 4),
        "runs": _rounded(ours),
        "seen": {what: round(count / len(pairs), 2) for what, count in sorted(seen.items())},
        "cpu_seconds": round(float(np.mean([one.cpu_seconds for one, _ in pairs.values()])), 2),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def measure(part: Part, fitted: Fits, seeds: Sequence[int], shape: Shape) -> dict[str, Any]:
    """The part's summary, and what it was measured over; prints every seed and world as it is done."""
    results: Results = {}
    began, used = time.process_time(), seeds[: part.most_seeds]
    for seed in used:
        for world in fitted.worlds:
            found = outcomes(bench_of(world, seed, fitted, part.tasks, shape), part.strategies)
            results[world, seed] = found
            whole = found[RECOMPUTE].gains.sum()
            shares = (f"{name} {one.gains.sum() / whole:.3f}" for name, one in found.items())
            print(f"seed {seed}, {world}: {', '.join(shares)}", flush=True)
    about = {
        "seeds": list(used),
        "worlds": list(fitted.worlds),
        "tasks": part.tasks or len(fitted.noise),
        "cpu_seconds": round(time.process_time() - began),
    }
    return {**summary(results), "about": about}


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="the folder of the RegMix files; without it the two truths that need no runs",
    )
    parser.add_argument(
        "--laws", type=Path, help="where to write the laws fitted to --data, and nothing else"
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--first-seed", type=int, default=FIRST_SEED, help="others tell how much hangs on them"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one seed of a pool of 17 domains, to see it run"
    )
    arguments = parser.parse_args()
    shape, count = (SMALL, 1) if arguments.quick else (Shape(), arguments.seeds)
    seeds = range(arguments.first_seed, arguments.first_seed + count)
    fitted = fits(load(arguments.data)) if arguments.data else Fits.stored()
    if arguments.laws:
        return fitted.store(arguments.laws)
    found = measure(MAIN, fitted, seeds, shape)
    found["beside_ratios"] = measure(BESIDE_RATIOS, fitted, seeds, shape)
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
