"""CPU seconds of a fit, and how low it gets: ``python -m benchmarks.fit_speed [--data DIR] [--json FILE] [--quick]``.

With ``--proposals SIZE ...`` instead, CPU seconds and peak memory of whole proposals by the default method: fit,
folds, solve and intervals, a size being runs x domains x tasks (600x500x50). The metrics are those of power laws.

The log-linear law of all tasks beside 300 random starts of L-BFGS a task on the same Huber objective, which is how
Olmix and Data Mixing Laws fit it; here with the exact gradient, which is generous to them. Two swarms: 13 losses over
17 domains in 512 runs (RegMix's own, with ``--data``) and 110 tasks over 64 domains in 500 runs (synthetic: a
log-linear law with normal coefficients and noise 0.01, seed 0).

Both run on one thread, which is set here: more of them spin beside products this small, and count as CPU seconds. The
peer runs for the first ``--peer-tasks`` tasks, all 13 of RegMix's when left out; of more tasks its seconds are its
seconds a task times their number, and the table says so. Objectives are the mean Huber loss (delta 0.02, in the
metric's unit), nobody's ridge in it; ``ridge=0`` minimises exactly that.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from benchmarks.regmix import load
from mixing.answer.proposal import propose
from mixing.domains import Domains
from mixing.laws.exponential.log_linear import LogLinearLaw
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.regression import Regression
from mixing.methods import METHODS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence

DELTA = 0.02
CONSTANTS = np.linspace(-2.0, 1.5, 10)
"""Where log exp(c) of the peer starts, 30 times each with normal coefficients for 300 starts."""
SAME = 1e-6
"""Objectives closer than this, relatively, count as the same."""

HUBER_LAWS: dict[str, Callable[[], Regression]] = {
    "log-linear": LogLinearLaw,
    "log-linear, ridge=0": lambda: LogLinearLaw(ridge=0.0),
}
"""Fits of the peer's own objective: timed, and compared with it."""

OTHER_LAWS: dict[str, Callable[[], Regression]] = {"effective-power": EffectivePowerLaw}
"""Other regressions: timed only."""


@dataclass(frozen=True)
class Swarm:
    """What is fitted: (K, m) mixtures and (K, T) metrics."""

    name: str
    weights: np.ndarray
    metrics: np.ndarray


def synthetic(tasks: int, domains: int, runs: int, seed: int = 0) -> Swarm:
    """Metrics of a log-linear law over sparse mixtures."""
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(domains, 0.3), runs)
    slopes = generator.normal(-0.5, 0.8, (tasks, domains))
    metrics = generator.uniform(0.5, 1.5, tasks) + np.exp(weights @ slopes.T)
    metrics += 0.01 * generator.standard_normal(metrics.shape)
    return Swarm(f"synthetic, {tasks} x {domains} x {runs}", weights, metrics)


def regmix(directory: Path) -> Swarm:
    """The 512 published training runs, rows renormalised."""
    swarm = load(directory)
    weights, metrics = swarm.train_weights, swarm.train_metrics
    return Swarm(f"RegMix, {metrics.shape[1]} x {weights.shape[1]} x {len(weights)}", weights, metrics)


def mean_huber(predicted: np.ndarray, metrics: np.ndarray) -> np.ndarray:
    """(T,) mean over the runs of the Huber loss."""
    size = np.abs(predicted - metrics)
    inner = np.minimum(size, DELTA)
    return (inner * (size - inner / 2)).mean(0)


def peer_fit(weights: np.ndarray, metric: np.ndarray, starts: int, seed: int) -> float:
    """Lowest mean Huber loss of one (K,) metric that L-BFGS finds from random starts."""

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        exponential = np.exp(np.clip(weights @ parameters[1:], -50, 50))
        constant = np.exp(parameters[0])
        predicted = constant + exponential
        slope = np.clip(predicted - metric, -DELTA, DELTA) / len(metric)
        gradient = np.append(constant * slope.sum(), weights.T @ (slope * exponential))
        return float(mean_huber(predicted[:, None], metric[:, None])[0]), gradient

    generator = np.random.default_rng(seed)
    lowest = np.inf
    for start in range(starts):
        begin = np.append(CONSTANTS[start % len(CONSTANTS)], generator.standard_normal(weights.shape[1]))
        lowest = min(lowest, float(minimize(objective, begin, jac=True, method="L-BFGS-B").fun))
    return lowest


def measure(law: Regression, swarm: Swarm) -> tuple[float, np.ndarray]:
    """CPU seconds of the fit and the (T,) objective."""
    begun = time.process_time()
    fitted = law.fit(swarm.weights, swarm.metrics)
    seconds = time.process_time() - begun
    return seconds, mean_huber(fitted.predict(swarm.weights)[0], swarm.metrics)


def compare(swarm: Swarm, starts: int, peer_tasks: int) -> dict[str, Any]:
    """The rows of one swarm."""
    tasks = swarm.metrics.shape[1]
    chosen = min(peer_tasks, tasks)
    begun = time.process_time()
    lowest = np.array(
        [peer_fit(swarm.weights, swarm.metrics[:, task], starts, task) for task in range(chosen)]
    )
    per_task = (time.process_time() - begun) / chosen
    print(f"{swarm.name}\n  {starts} starts of L-BFGS: {per_task:.2f} CPU s a task", end="")
    print(f", {per_task * tasks:.1f} for all" + (" (extrapolated)" if chosen < tasks else ""), flush=True)
    rows: dict[str, Any] = {}
    for name, law in (HUBER_LAWS | OTHER_LAWS).items():
        seconds, objective = measure(law(), swarm)
        rows[name] = {"cpu_seconds": seconds, "times_faster": per_task * tasks / seconds}
        print(f"  {name}: {seconds:.3f} CPU s, {per_task * tasks / seconds:.0f} times faster", end="")
        if name in HUBER_LAWS:
            excess = objective[:chosen] / lowest - 1
            rows[name] |= {
                "objective": objective.tolist(),
                "relative_excess": excess.tolist(),
                "at_or_below_peer": int((excess <= SAME).sum()),
            }
            print(f"; at or below on {(excess <= SAME).sum()} of {chosen}, {excess.min():+.1e} to ", end="")
            print(f"{excess.max():+.1e}", end="")
        print(flush=True)
    return {
        "peer": {
            "starts": starts,
            "tasks_run": chosen,
            "cpu_seconds_a_task": per_task,
            "objective": lowest.tolist(),
        },
        "laws": rows,
    }


def proposal(runs: int, domains: int, tasks: int) -> dict[str, float]:
    """CPU seconds of a whole proposal, and the most memory the process has held, in GB."""
    generator = np.random.default_rng(0)
    names, columns = [f"d{number}" for number in range(domains)], [f"t{number}" for number in range(tasks)]
    pool = Domains.of(dict(zip(names, generator.lognormal(23, 1, domains), strict=True)))
    weights = generator.dirichlet(np.maximum(domains * pool.natural_weights / 3, 0.02), runs)
    useful = np.sqrt(weights + 5e-5) @ generator.lognormal(-0.5, 1, (domains, tasks))
    metrics = 0.8 + useful**-0.5 + 0.005 * generator.standard_normal((runs, tasks))
    evidence = [
        RunEvidence(f"run{run}", pool.mixture(row), dict(zip(columns, values, strict=True)))
        for run, (row, values) in enumerate(zip(weights, metrics.tolist(), strict=True))
    ]
    question = Question(
        domains=pool,
        objective=dict.fromkeys(columns, 1.0),
        target_tokens=float(pool.tokens.sum()),
        kl_weight=METHODS["mixwright"].kl_weight,
    )
    begun = time.process_time()
    propose(question, evidence).to_dict()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"cpu_seconds": round(time.process_time() - begun, 2), "peak_gigabytes": round(memory, 2)}


def proposals(sizes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The row of each size; the smaller first, for memory is never given back."""
    found = {}
    for size in sizes:
        found[size] = proposal(*map(int, size.split("x")))
        print(size, *found[size].items(), flush=True)
    return found


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of the RegMix files")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--quick", action="store_true", help="10 starts of one task of the peer")
    parser.add_argument("--starts", type=int, default=300, help="random starts of the peer a task")
    parser.add_argument("--peer-tasks", type=int, default=13, help="tasks the peer fits; as many as you like")
    parser.add_argument("--proposals", nargs="+", metavar="SIZE", help="of these sizes, smallest first")
    arguments = parser.parse_args()
    if arguments.proposals:
        with threadpool_limits(1):
            rows = proposals(arguments.proposals)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
        return
    starts, peer_tasks = (10, 1) if arguments.quick else (arguments.starts, arguments.peer_tasks)
    swarms = [
        regmix(arguments.data) if arguments.data else synthetic(13, 17, 512),
        synthetic(110, 64, 500),
    ]
    # The first product and the first solve of a process load their libraries; that is nobody's fit.
    measure(LogLinearLaw(), synthetic(2, 3, 20))
    with threadpool_limits(1):
        result = {swarm.name: compare(swarm, starts, peer_tasks) for swarm in swarms}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
