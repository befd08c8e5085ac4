"""Solvers held against each other: ``python -m benchmarks.solve [--json FILE] [--short]``.

First, the exact solve: 17, 64, 256 and 1,000 domains by 110 tasks, caps and a KL term of 0.05, for a random
log-linear law and a random effective power law. For our path the CPU milliseconds of a whole `solve` and its gap; for
CLARABEL, SCS and ECOS the CPU milliseconds through cvxpy, the solver alone, and how far the value is above our
certified lower bound; the same for the best of 100,000 random mixtures.

Second, the refined search on gradient-boosted trees fitted to a known truth: what it predicts with 100,000
evaluations, with and without a price on the distance to the nearest run, against the best of 1,000,000 random
mixtures and RegMix's mean of the 128 best; and what each of these is worth in truth, because a lower
prediction is not a better mixture.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
from lightgbm import LGBMRegressor

from benchmarks.laws import EffectivePowerLaw, ExponentialLaw
from mixing.capped_simplex import settle, water_fill
from mixing.laws.regression import Fitted
from mixing.simplex_map import SimplexMap
from mixing.solve.conic import solve_conic
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem, Objective
from mixing.solve.search import Region, search
from mixing.solve.solvers import mean_of_best, regmix_candidates

SIZES = (17, 64, 256, 1000)
TASKS = 110
REPEATS = 7
MOST_POWER_CONES = 10_000
"""Above this the effective power law is not given to the conic solvers: 64 domains already need 7,150 cones."""
NUMBERS_AT_ONCE = 2 * 10**7
POWERS = 2 * 10**8
"""Most powers taken for random draws: from 64 domains on the effective power law gets fewer draws than asked."""


def random_problem(law: type[ExponentialLaw] | type[EffectivePowerLaw], domains: int) -> MixtureProblem:
    """A random law, a prior from a Dirichlet, caps of two to six times the prior."""
    generator = np.random.default_rng(domains)
    fitted = law.random(generator, TASKS, domains)
    prior = generator.dirichlet(np.ones(domains)) * 0.97 + 0.03 / domains
    caps = 4 * prior * generator.uniform(0.5, 1.5, domains)
    names = [f"d{index:04d}" for index in range(domains)]
    objective = Objective(fitted, np.full(TASKS, 1 / TASKS), prior, 0.05)
    return MixtureProblem(objective, SimplexMap.identity(names), caps)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU milliseconds, of all threads, and the result."""
    start = time.process_time()
    result = call()
    return (time.process_time() - start) * 1e3, result


def compare(law: type[ExponentialLaw] | type[EffectivePowerLaw], domains: int, draws: int) -> dict[str, Any]:
    """One row of the first table."""
    problem = random_problem(law, domains)
    runs = [timed(lambda: solve(problem)) for _ in range(REPEATS)]
    solution = runs[0][1]
    least = solution.value - solution.gap
    row: dict[str, Any] = {
        "ours": {
            "milliseconds": float(np.median([milliseconds for milliseconds, _ in runs])),
            "best_milliseconds": min(milliseconds for milliseconds, _ in runs),
            "certified_gap": solution.gap,
            "caps_reached": len(solution.active),
        }
    }
    for solver in ("CLARABEL", "SCS", "ECOS"):
        row[solver] = conic(problem, solver, least)
    row["random_draws"] = best_of_draws(problem, draws, least)
    return row


def conic(problem: MixtureProblem, solver: str, least: float) -> dict[str, Any]:
    """Time and value of a solver through cvxpy, at its default settings."""
    if solver not in cp.installed_solvers():
        return {"not_run": "not installed"}
    cones = TASKS * (len(problem.caps) + 1)
    if isinstance(problem.objective.law, EffectivePowerLaw):
        if cones > MOST_POWER_CONES:
            return {"not_run": f"{cones} power cones"}
        if solver == "ECOS":
            return {"not_run": "no power cones"}
    system = problem.system
    milliseconds, answer = timed(lambda: solve_conic(problem, system, solver))
    if answer is None:
        return {"milliseconds": milliseconds, "failed": True}
    mixture = settle(water_fill(answer.free, problem.caps), problem.caps)
    return {
        "milliseconds": milliseconds,
        "solver_wall_milliseconds": answer.seconds * 1e3,
        "above_certified_bound": problem.objective.value(mixture) - least,
    }


def best_of_draws(problem: MixtureProblem, draws: int, least: float) -> dict[str, Any]:
    """The best of random feasible mixtures."""
    per_draw = TASKS * len(problem.caps)
    if isinstance(problem.objective.law, EffectivePowerLaw):
        draws = min(draws, POWERS // per_draw)
    milliseconds, value = timed(
        lambda: lowest(problem, draws, max(min(NUMBERS_AT_ONCE // per_draw, 5000), 1))
    )
    return {"draws": draws, "milliseconds": milliseconds, "above_certified_bound": value - least}


def lowest(problem: MixtureProblem, draws: int, at_once: int) -> float:
    """The lowest objective of `draws` random mixtures."""
    return float(problem.objective.predicted(best_draw(problem, draws, at_once)[None])[0])


def best_draw(problem: MixtureProblem, draws: int, at_once: int) -> np.ndarray:
    """(m,) the best of `draws` random mixtures."""
    region, generator = Region.of(problem), np.random.default_rng(0)
    best, least = region.inside, np.inf
    for first in range(0, draws, at_once):
        drawn = region.draw(problem.objective.prior, min(at_once, draws - first), generator)
        values = problem.objective.predicted(drawn)
        if values.min() < least:
            best, least = drawn[values.argmin()], float(values.min())
    return best


@dataclass(frozen=True)
class Trees(Fitted):
    """One gradient-boosted regression a task."""

    models: tuple[Any, ...]

    @classmethod
    def fit(cls, weights: np.ndarray, metrics: np.ndarray) -> "Trees":
        """200 small steps, leaves of at least five runs."""
        settings: dict[str, Any] = {"n_estimators": 200, "learning_rate": 0.05, "min_child_samples": 5}
        settings |= {"verbose": -1, "n_jobs": 1, "random_state": 0}
        return cls(tuple(LGBMRegressor(**settings).fit(weights, column) for column in metrics.T))

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and zeros, both (n, T)."""
        columns = [model.booster_.predict(weights, num_threads=1) for model in self.models]
        mean = np.stack(columns, axis=1)
        return mean, np.zeros_like(mean)


def searches(draws: int, runs: int = 512, domains: int = 17, tasks: int = 3) -> dict[str, Any]:
    """The second table; `draws` for the random baseline, a tenth of it for the search."""
    generator = np.random.default_rng(1)
    truth = EffectivePowerLaw.random(generator, tasks, domains)
    prior = generator.dirichlet(np.ones(domains)) * 0.9 + 0.1 / domains
    weights = generator.dirichlet(prior * domains * 0.5, size=runs)
    metrics = truth.predict(weights)[0] + generator.normal(0, 0.01, (runs, tasks))
    space = SimplexMap.identity([f"d{index:02d}" for index in range(domains)])
    caps, equal = np.full(domains, np.inf), np.full(tasks, 1 / tasks)
    problem = MixtureProblem(Objective(Trees.fit(weights, metrics), equal, prior, 0.0), space, caps)
    true_problem = MixtureProblem(Objective(truth, equal, prior, 0.0), space, caps)

    def row(milliseconds: float, evaluations: int, mixture: np.ndarray) -> dict[str, float]:
        return {
            "evaluations": evaluations,
            "milliseconds": milliseconds,
            "predicted": float(problem.objective.predicted(mixture[None])[0]),
            "in_truth": float(true_problem.objective.predicted(mixture[None])[0]),
            "nearest_run_distance": float(np.abs(weights - mixture).sum(1).min()),
        }

    result: dict[str, Any] = {"optimum_in_truth": solve(true_problem).value}
    milliseconds, mixture = timed(lambda: best_draw(problem, draws, 10_000))
    result["random_draws"] = row(milliseconds, draws, mixture)
    candidates = regmix_candidates(prior, np.random.default_rng(2), draws // 10)
    milliseconds, mixture = timed(lambda: mean_of_best(problem.objective.predicted, candidates))
    result["regmix_mean_of_128"] = row(milliseconds, len(candidates), mixture)
    for penalty in (0.0, 0.05, 0.2):

        def refined(price: float = penalty) -> Any:
            return search(
                problem,
                np.random.default_rng(3),
                evaluations=draws // 10,
                evidence_weights=weights,
                distance_penalty=price,
            )

        milliseconds, found = timed(refined)
        result[f"search_distance_penalty_{penalty:g}"] = row(milliseconds, found.evaluations, found.weights)
    return result


def main() -> None:
    """Print and write both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--short", action="store_true", help="a hundredth of the random draws")
    arguments = parser.parse_args()
    shorter = 100 if arguments.short else 1
    result: dict[str, Any] = {"tasks": TASKS, "exact": {}, "search": {}}
    for label, law in (("log_linear", ExponentialLaw), ("effective_power", EffectivePowerLaw)):
        result["exact"][label] = {}
        for domains in SIZES:
            row = compare(law, domains, 100_000 // shorter)
            result["exact"][label][str(domains)] = row
            for name, cells in row.items():
                print(label, domains, name, _line(cells), flush=True)
    result["search"] = searches(1_000_000 // shorter)
    for name, cells in result["search"].items():
        print(name, _line(cells) if isinstance(cells, dict) else cells)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def _line(cells: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in cells.items()
    )


if __name__ == "__main__":
    main()
