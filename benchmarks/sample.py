"""How fast and how well swarms are sampled: ``python -m benchmarks.sample [--json FILE]``.

512 mixtures over 64 and over 1,000 domains whose caps are 1.25 times the natural distribution (and 1.02, and none),
by every sampler that draws a swarm of any size; best of three, CPU seconds of one process. Checked each time: all
mixtures lie under their caps and are distinct, and the domains the swarm cannot identify are counted.

Held against what Olmix's sampler does (arXiv 2602.12237): draw one mixture at a time, throw it away if it is above
a cap, compare it with all kept so far. It is given a budget of draws, as under tight caps it would never end.
Set the threads of the numerical libraries to one (``OMP_NUM_THREADS=1``) for numbers that can be compared.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mixing.capped_simplex import SLACK
from mixing.domains import Domains
from mixing.swarm import dirichlet, grid
from mixing.swarm.design import candidate_pool, d_optimal, log_features, log_weights, maximin
from mixing.swarm.filling import effective_runs
from mixing.swarm.space import SwarmSpace

RUNS = 512
DOMAINS = (64, 1000)
CAPS = (1.02, 1.25, np.inf)
"""Caps in natural weights: the repetition cap over the epochs that natural proportions would take."""
BUDGET = 5_000
"""Draws that plain rejection may make."""
REPEATS = 3

Sampler = Callable[[SwarmSpace, int, np.random.Generator], np.ndarray]


def contains(space: SwarmSpace, weights: np.ndarray, tolerance: float = SLACK) -> np.ndarray:
    """(n,) whether (n, m) weights lie in the space: pins exactly, bounds and sum within `tolerance`."""
    is_pinned = np.array([name in space.pins for name in space.domains.names])
    free = np.where(is_pinned, 0.0, weights)
    present = free > 0
    inside = (free >= 0) & (free <= space.upper + tolerance) & (present | ~space.required)
    inside &= ~present | (free >= space.lower - tolerance)
    inside &= ~is_pinned | (weights == space.pinned)
    return inside.all(1) & (np.abs(weights.sum(1) - 1) <= tolerance)


def unvaried(weights: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """The domains whose effect (K, m) runs cannot identify, in the order of `names`.

    A domain is named when its weight varies in one run at most (its sum of squared deviations is no more than
    that of a single run at one end of its range) or, with K > m runs, when its weight is a linear combination
    of the other varied domains' to one part in 10^5.
    """
    few = effective_runs(weights) <= 1
    varied = np.flatnonzero(~few)
    if len(weights) > len(varied) > 0:
        # The squared residual of a column on the others is one over the diagonal of the inverse Gram matrix.
        columns = weights[:, varied] / np.sqrt((weights[:, varied] ** 2).sum(0))
        values, vectors = np.linalg.eigh(columns.T @ columns)
        residual = 1 / (vectors**2 / np.maximum(values, 1e-15)).sum(1)
        few[varied] = residual < 1e-10
    return tuple(name for name, is_few in zip(names, few, strict=True) if is_few)


def d_optimal_design(space: SwarmSpace, runs: int, generator: np.random.Generator) -> np.ndarray:
    """(runs, m) mixtures of the space that tell a law most together, from a pool of draws, corners and averages."""
    pool = candidate_pool(space, 2048 + 2 * runs, generator)
    return pool[d_optimal(log_features(pool), runs, np.empty((0, len(space) + 1)))]


def maximin_design(space: SwarmSpace, runs: int, generator: np.random.Generator) -> np.ndarray:
    """(runs, m) mixtures of the space far from each other, from such a pool."""
    pool = candidate_pool(space, 2048 + 2 * runs, generator)
    return pool[maximin(log_weights(pool), runs, np.empty((0, len(space))))]


def pool_of(domains: int) -> Domains:
    """Domains over 16 sources with log-normal token counts, the largest about a thousand times the smallest."""
    tokens = 1e9 * np.random.default_rng(domains).lognormal(0.0, 1.5, domains)
    return Domains.of({f"source{at % 16:02}:topic{at:04}": float(count) for at, count in enumerate(tokens)})


def measured(sampler: Sampler, space: SwarmSpace) -> dict[str, float | int]:
    """CPU seconds of the fastest repeat, and what its swarm is worth."""
    seconds = []
    weights = np.empty((0, len(space)))
    for _ in range(REPEATS):
        start = time.process_time()
        weights = sampler(space, RUNS, np.random.default_rng(0))
        seconds.append(time.process_time() - start)
    return {
        "cpu_seconds": round(min(seconds), 4),
        "all_feasible": bool(contains(space, weights).all()),
        "distinct": len(np.unique(weights, axis=0)),
        "domains_unvaried": len(unvaried(weights, space.domains.names)),
        "least_presence": round(float((weights > 0).mean(0).min()), 4),
    }


def plain_rejection(space: SwarmSpace) -> dict[str, float | int]:
    """One draw after the other until there are enough under the caps, or the budget is spent."""
    generator = np.random.default_rng(0)
    kept = np.empty((0, len(space)))
    start = time.process_time()
    draws = 0
    while len(kept) < RUNS and draws < BUDGET:
        draws += 1
        natural = space.domains.natural_weights
        weights = dirichlet.two_level_draws(space.domains.names, natural, 1, generator)[0]
        if (weights <= space.upper).all() and (np.abs(kept - weights).sum(1) > 1e-5).all():
            kept = np.concatenate([kept, weights[None]])
    seconds = time.process_time() - start
    names = space.domains.names
    return {
        "cpu_seconds": round(seconds, 4),
        "draws": draws,
        "accepted": len(kept),
        "accepted_share": len(kept) / draws,
        "domains_never_sampled": int((kept.sum(0) == 0).sum()),
        "domains_unvaried": len(unvaried(kept, names)) if len(kept) else len(names),
    }


def samplers(domains: int) -> dict[str, Sampler]:
    """By name; the designs only where choosing one takes seconds, not minutes."""
    found: dict[str, Sampler] = {
        "two-level Dirichlet": dirichlet.sample,
        "tempered Dirichlet": dirichlet.sample_tempered,
        "exponential grid": grid.sample,
    }
    if domains <= 64:
        found |= {"D-optimal": d_optimal_design, "maximin": maximin_design}
    return found


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    rows = []
    for domains in DOMAINS:
        pool = pool_of(domains)
        for caps in CAPS:
            space = SwarmSpace.of(pool, caps * pool.natural_weights)
            case = {"domains": domains, "caps_in_natural_weights": caps if np.isfinite(caps) else None}
            reference = plain_rejection(space)
            rows.append(case | {"sampler": "plain rejection", **reference})
            print(rows[-1], flush=True)
            for name, sampler in samplers(domains).items():
                found = measured(sampler, space)
                if name == "two-level Dirichlet" and reference["accepted"]:
                    seconds = reference["cpu_seconds"] / reference["accepted"]
                    found["times_faster"] = round(seconds * RUNS / found["cpu_seconds"], 1)
                rows.append(case | {"sampler": name, **found})
                print(rows[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": RUNS, "budget": BUDGET, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
