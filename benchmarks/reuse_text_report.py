"""What the benchmark on real text writes: runs and gains of every chain as shares of recomputing everything."""

from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any

from benchmarks.reuse_text_chains import Chains, Step

Document = dict[str, Any]

NATURAL, REUSE, RATIOS, RECOMPUTE = "natural", "reuse", "ratios alone", "recompute"
MEAN = "mean"
"""Of the tasks, which weigh the same: what is minimised."""


def compared_mixtures(chains: Chains) -> dict[str, str]:
    """Mixture id by name, of those a larger model is trained on; all are of the last revision's text."""
    return {
        NATURAL: chains.recomputed.optimization["natural_mixture_id"],
        REUSE: chains.reuse[-1].mixture,
        RATIOS: chains.ratios[-1].mixture,
        RECOMPUTE: chains.recomputed.mixture,
    }


def chain_document(steps: Sequence[Step]) -> Document:
    """What every update took, and in all. The first swarm, which every chain needs, is not counted in.

    Worker seconds are those that a worker of one thread was busy for, by the clock: other work on the machine tells.
    """
    return {
        "runs": sum(step.runs for step in steps),
        "tokens": sum(step.tokens for step in steps),
        "worker_seconds": round(sum(step.worker_seconds for step in steps), 1),
        "steps": [step_document(step) for step in steps],
    }


def step_document(step: Step) -> Document:
    """One mixture: what was planned, what was trained, and what is predicted of it."""
    plan, objective = step.plan["plan"], step.evidence["objective"]
    return {
        "update": step.update,
        "revision": step.revision,
        "domains": len(step.evidence["weights"]),
        "confirmed": step.changes["confirmed"],
        "asked": {name: step.question[name] for name in ("reuse", "runs") if name in step.question},
        "kind": plan["kind"],
        "kept_ratios": sum(map(len, plan["groups"].values())),
        "older_runs": len(plan["reused"]),
        "planned_runs": plan["new_runs"],
        "runs": step.runs,
        "recompute_runs": plan["recompute_runs"],
        "recompute_seconds": plan["recompute_seconds"],
        "worker_seconds": round(step.worker_seconds, 1),
        "sentences": step.plan["sentences"],
        "predicted_gain": objective and objective["gain"],
        "predicted_gain_interval": objective and objective["gain_interval"],
        "held_out_rank_correlation": objective and objective["rank_correlation"],
        "weights": step.evidence["weights"],
    }


def recompute_document(chains: Chains) -> Document:
    """Recomputing after every update: counted by the plans, but for the last, which was really trained."""
    before = [step.plan["plan"] for step in chains.reuse[:-1]]
    last = chains.recomputed
    return {
        "note": "Trained at the last revision only; the runs before it are those that the plans name, their seconds"
        " those of comparable runs.",
        "runs": sum(plan["recompute_runs"] for plan in before) + last.runs,
        "runs_trained": last.runs,
        "tokens_trained": last.tokens,
        "worker_seconds": round(sum(plan["recompute_seconds"] for plan in before) + last.worker_seconds, 1),
        "worker_seconds_measured": round(last.worker_seconds, 1),
        "steps": [step_document(last)],
    }


def measured_document(launches: Mapping[str, Sequence[Document]], tasks: Sequence[str]) -> Document:
    """`{mixture: {"seeds": [{task: BPB}], "mean": {task: BPB}}}`; `MEAN` is the mean of the tasks."""
    found = {}
    for name, models in launches.items():
        seeds = [{task: model["metrics"][task] for task in tasks} for model in models]
        rows = [{**row, MEAN: fmean(row.values())} for row in seeds]
        found[name] = {"seeds": rows, "mean": {task: fmean(row[task] for row in rows) for task in rows[0]}}
    return found


def shares(chains: Mapping[str, Document], first_runs: int, measured: Document) -> Document:
    """Of each chain, runs and measured gain over the natural distribution against those of recomputing everything.

    Args:
        chains: `{chain: {"runs": over the updates}}`.
        first_runs: of the first swarm, which every chain needs.
        measured: as `measured_document`.

    Returns:
        By chain: ``share_of_runs`` over the updates, the same with the first swarm counted on both sides, ``gain`` in
        BPB with its ``gain_error``, ``share_of_gain`` of the means over the seeds, and the share by seed.
    """
    everything, whole = chains[RECOMPUTE]["runs"], _gain(measured, RECOMPUTE)
    return {
        name: {
            "share_of_runs": chain["runs"] / everything,
            "share_of_runs_with_first_swarm": (chain["runs"] + first_runs) / (everything + first_runs),
            "gain": _gain(measured, name),
            "gain_error": gain_error(measured),
            "gain_by_seed": _gains(measured, name),
            "share_of_gain": _gain(measured, name) / whole,
            "share_of_gain_by_seed": [
                gain / of
                for gain, of in zip(_gains(measured, name), _gains(measured, RECOMPUTE), strict=True)
            ],
        }
        for name, chain in chains.items()
    }


def gain_error(measured: Document) -> float:
    """Standard error of a gain: of the difference of two means over the seeds.

    The variance between seeds is pooled over the mixtures, for two seeds alone say little of it.
    """
    rows = [[seed[MEAN] for seed in one["seeds"]] for one in measured.values()]
    return (2 * fmean(variance(row) for row in rows) / len(rows[0])) ** 0.5


def _gain(measured: Document, name: str) -> float:
    return measured[NATURAL]["mean"][MEAN] - measured[name]["mean"][MEAN]


def _gains(measured: Document, name: str) -> list[float]:
    both = zip(measured[NATURAL]["seeds"], measured[name]["seeds"], strict=True)
    return [natural[MEAN] - own[MEAN] for natural, own in both]
