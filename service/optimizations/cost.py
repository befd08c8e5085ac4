"""What an optimization's swarm costs: counted, and timed by the best evidence there is.

Time comes from the first of these that there is: this swarm's own finished runs, past runs of the same proxy in the
lineage (the plan's), the calibrated table of the workers' device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from proxy_models.config import TrainingConfig
from proxy_models.planning.cost import SwarmWork, swarm_cost
from service.domain_sets.repository import CountedText, counted_text
from service.optimizations.schemas import CostView
from service.optimizations.service import PlannedOptimization
from service.training.device import WorkerDevice, check_memory, training_of, vocabulary_of
from store.tables import Optimization, Revision

Document = Mapping[str, Any]
Source = Literal["own_runs", "past_runs", "calibration"]


@dataclass(frozen=True)
class Measured:
    """Worker seconds of the whole swarm, and the runs that say so."""

    seconds: float
    source: Source


@dataclass(frozen=True)
class AskedSwarm:
    """The runs of one optimization: ``tokens`` are of all of them, None where each trains the proxy's own."""

    revision: Revision
    text: CountedText
    proxy: Document
    tasks: Sequence[Document]
    runs: int
    tokens: int | None = None


def planned_swarm(session: Session, planned: PlannedOptimization) -> AskedSwarm | None:
    """The swarm a plan would train; None where its method trains nothing."""
    proxy = planned.checked.proxy
    if proxy is None:
        return None
    revision = session.get_one(Revision, planned.revision_id)
    return AskedSwarm(revision, counted_text(session, revision), proxy, planned.checked.tasks, planned.runs)


def check_planned_memory(session: Session, planned: PlannedOptimization, device: WorkerDevice) -> None:
    """Raise Invalid where there is something to train and not even one model fits into the workers' memory."""
    swarm = planned_swarm(session, planned)
    if swarm is not None and swarm.runs:
        check_memory(device, swarm.revision, swarm.proxy, "proxy.")


def optimization_cost(
    row: Optimization, text: CountedText, device: WorkerDevice, tokens: int, finished: tuple[int, float]
) -> CostView | None:
    """Of a stored one, which trains ``tokens`` in all; ``finished``: tokens and seconds of its finished runs."""
    settings = row.settings
    if settings["proxy"] is None:
        return None
    swarm = AskedSwarm(row.revision, text, settings["proxy"], settings["tasks"], settings["runs"], tokens)
    trained, seconds = finished
    if trained:
        return cost_view(swarm, device, Measured(seconds / trained * tokens, "own_runs"))
    reuse = settings.get("reuse")
    past = None if reuse is None else reuse["plan"].get("new_seconds")
    return cost_view(swarm, device, None if past is None else Measured(past, "past_runs"))


def cost_view(swarm: AskedSwarm, device: WorkerDevice, measured: Measured | None) -> CostView | None:
    """The estimate; None before the vocabulary is known, on which everything depends, or the model was counted."""
    vocabulary = vocabulary_of(swarm.revision)
    model = None if vocabulary is None else device.model(swarm.proxy, vocabulary)
    if model is None:
        return None
    training = training_of(swarm.proxy)
    each = training.steps * training.tokens_per_step
    work = SwarmWork(
        model,
        training,
        swarm.runs,
        swarm.runs * each if swarm.tokens is None else swarm.tokens,
        _evaluation_tokens(swarm, training),
    )
    cost = swarm_cost(work, device.tables, device.room)
    seconds, source = cost.device_seconds, None if cost.device_seconds is None else "calibration"
    if measured is not None:
        seconds, source = measured.seconds, measured.source
        cost = replace(cost, unknown=None)
    unknown = cost.unknown
    if unknown is not None and device.unreadable:
        unknown = "; ".join((unknown, *device.unreadable))
    fields = asdict(cost)
    del fields["device_seconds"]
    return CostView.model_validate(
        {
            **fields,
            "unknown": unknown,
            "device_hours": None if seconds is None else seconds / 3600,
            "source": source,
        }
    )


def _evaluation_tokens(swarm: AskedSwarm, training: TrainingConfig) -> int | None:
    """At most what a run reads to be evaluated; None before the domains are counted.

    Held-out slices are read once at the end, tasks at every evaluation. Bytes are taken for tokens by the domains'
    own ratio, a task's whole file for its text.
    """
    text = swarm.text
    if not text.is_complete or not text.size_bytes:
        return None
    sizes = [_size_of(task) for task in swarm.tasks]
    if None in sizes:
        return None
    tasks = sum(size for size in sizes if size is not None)
    return round((text.evaluated_bytes + training.evaluations * tasks) * text.tokens / text.size_bytes)


def _size_of(task: Mapping[str, Any]) -> int | None:
    """Bytes of a task's file when it was posted; what older tasks do not say is asked of a local file only."""
    if (size := task.get("size_bytes")) is not None:
        return int(size)
    try:
        return Path(task["path"]).stat().st_size
    except OSError:
        return None
