"""What an optimization's swarm costs, and a plan of what is reused in sentences and hours.

The cost is counted, and timed by the first of these that there is: this swarm's own finished runs, past runs of
the same proxy in the lineage (the plan's), the calibrated table of the workers' device.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from mixing.document import to_document
from mixing.errors import InvalidTokens
from mixing.limits import Limits
from mixing.terms import ReusePlan
from proxy_models.config import TrainingConfig
from proxy_models.planning.cost import SwarmWork, swarm_cost
from service.dashboard.formatting import flops, quantity, size
from service.domain_sets.repository import CountedText, counted_text
from service.optimizations.views import CostView, Hours, PlanView
from service.training.device import WorkerDevice, check_memory, vocabulary_of
from store.documents import AnchorsDocument, OptimizationDocument, TaskDocument, TrainingDocument
from store.revisions.shared_text import counted_domains, plan_warnings
from store.tables import Revision

Source = Literal["own_runs", "past_runs", "calibration"]


@dataclass(frozen=True, slots=True)
class PlannedOptimization:
    """An optimization found to be good and not stored: its runs, in which rounds, and what it reuses.

    ``device_hours`` is what its training takes by the estimate, 0 where there is none.
    """

    revision_id: str
    document: OptimizationDocument
    device_hours: float = 0.0


@dataclass(frozen=True)
class AskedSwarm:
    """The runs of one optimization, which train ``tokens`` in all."""

    revision: Revision
    text: CountedText
    proxy: TrainingDocument
    tasks: Sequence[TaskDocument]
    runs: int
    tokens: int


def planned_swarm(
    session: Session, planned: PlannedOptimization, runs: int | None = None
) -> AskedSwarm | None:
    """The swarm a plan would train, or of as many ``runs``; None where its method trains nothing."""
    proxy, runs = planned.document.proxy, planned.document.runs if runs is None else runs
    if proxy is None:
        return None
    revision = session.get_one(Revision, planned.revision_id)
    text, tokens = counted_text(session, revision), runs * proxy.whole_steps(proxy.tokens)
    return AskedSwarm(revision, text, proxy, planned.document.tasks, runs, tokens)


def anchor_swarms(swarm: AskedSwarm | None, anchors: Sequence[AnchorsDocument]) -> list[AskedSwarm]:
    """The runs of other sizes and lengths beside a swarm, each as a swarm of its own."""
    if swarm is None:
        return []
    return [
        replace(
            swarm,
            proxy=one.proxy,
            runs=one.runs,
            tokens=one.runs * one.proxy.whole_steps(one.proxy.tokens),
        )
        for one in anchors
    ]


def check_planned_memory(session: Session, planned: PlannedOptimization, device: WorkerDevice) -> None:
    """Raise Invalid where there is something to train and not even one model fits into the workers' memory."""
    if planned.document.proxy is not None and planned.document.runs:
        revision = session.get_one(Revision, planned.revision_id)
        check_memory(device, revision, planned.document.proxy, "proxy.")
        for number, anchors in enumerate(planned.document.anchors):
            check_memory(device, revision, anchors.proxy, f"anchors[{number}].")


def cost_view(
    swarm: AskedSwarm | None,
    device: WorkerDevice,
    seconds: float | None = None,
    source: Source = "past_runs",
) -> CostView | None:
    """The estimate; ``seconds`` of a worker are what ``source`` measured for the whole swarm, where anything did.

    None where nothing is trained, and before the vocabulary is known, on which everything depends, or the model was
    counted.
    """
    vocabulary = None if swarm is None else vocabulary_of(swarm.revision)
    model = None if swarm is None or vocabulary is None else device.model(swarm.proxy, vocabulary)
    if swarm is None or model is None:
        return None
    training = TrainingConfig(**swarm.proxy.chosen)
    work = SwarmWork(model, training, swarm.runs, swarm.tokens, _evaluation_tokens(swarm, training))
    cost = swarm_cost(work, device.tables, device.room)
    unknown = cost.unknown if seconds is None else None
    if unknown is not None and device.unreadable:
        unknown = "; ".join((unknown, *device.unreadable))
    if seconds is None:
        seconds, source = cost.device_seconds, "calibration"
    timed = {} if seconds is None else {"device_hours": seconds / 3600, "source": source}
    return CostView.model_validate(
        {"device_hours": None, "source": None, **asdict(cost), "unknown": unknown, **timed}
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


def _size_of(task: TaskDocument) -> int | None:
    """Bytes of a task's file when it was posted; what older tasks do not say is asked of a local file only."""
    if task.size_bytes is not None:
        return task.size_bytes
    try:
        return Path(task.path).stat().st_size
    except OSError:
        return None


_NAMED = 8
"""Names listed in a sentence; the plan itself has all of them."""


def plan_sentences(
    plan: ReusePlan, cost: CostView | None = None, everything: CostView | None = None
) -> Iterator[str]:
    """What will be done, why, what it costs against recomputing ``everything``, and what is lost by it.

    Without the costs, which follow from the device, the plan's own estimate by past runs is told.
    """
    yield from plan.why
    if plan.recomputed:
        yield f"Recomputed: {_listed(plan.recomputed)}."
    for name, ratios in sorted(plan.groups.items()):
        said = f"{len(ratios)} domains keep their ratios as the virtual domain {name!r}"
        cap = plan.virtual_caps.get(name)
        if cap is not None and cap < 1:
            said += (
                f", of which the mixture may hold {100 * cap:.1f}% at most: beyond that"
                f" {plan.binding_members.get(name)!r} would be repeated too often"
            )
        yield f"{said}."
    older, aside = len(plan.reused), len(plan.set_aside)
    if older or aside:
        reasons = sorted(set(plan.set_aside.values()))
        yield f"{older} of {older + aside} older runs count" + (
            f"; the others do not: {'; '.join(reasons[:3])}." if aside else "."
        )
    yield _cost_sentence(plan, cost, everything)
    if cost is not None and plan.new_runs:
        yield from _cost_sentences(cost)
    yield from plan.lost


def _cost_sentences(cost: CostView) -> Iterator[str]:
    """The arithmetic of training, and how it is split into waves that fit into memory."""
    said = f"Training {quantity(cost.tokens)} tokens takes {flops(cost.training_flops)}"
    if cost.evaluation_flops:
        said += f", evaluation at most {flops(cost.evaluation_flops)} more"
    yield f"{said}."
    if cost.bytes_per_model is not None:
        said = f"A model takes up to {size(cost.bytes_per_model)} of memory"
        if cost.largest_wave is not None:
            said += (
                f"; of the device's {size(cost.memory_bytes)} a worker has room for"
                f" {cost.largest_wave:,} at once"
            )
        yield f"{said}."
    if cost.waves is not None:
        together = f"up to {cost.members} together" if (cost.members or 1) > 1 else "one at a time"
        yield (
            f"Fastest by calibration on {cost.device}: {cost.backend}, {together}, in {cost.waves:,}"
            f" wave{'s' * (cost.waves != 1)}."
        )


_SOURCES = {
    "own_runs": "By this swarm's own finished runs",
    "past_runs": "By the comparable runs so far",
    "calibration": "By the device's calibration",
}


def _cost_sentence(plan: ReusePlan, cost: CostView | None, everything: CostView | None) -> str:
    """New runs and worker hours against recomputing everything."""
    said = f"{plan.new_runs} runs are trained; recomputing everything would take {plan.recompute_runs}"
    new, recompute, source = plan.new_seconds, plan.recompute_seconds, "past_runs"
    known = [one.device_hours for one in (cost, everything) if one and one.device_hours is not None]
    if cost is not None and len(known) == 2:
        new, recompute, source = 3600 * known[0], 3600 * known[1], cost.source or source
    if new is None or recompute is None:
        reason = f", and {cost.unknown}" if cost is not None and cost.unknown else ""
        return f"{said}. How long that takes nobody knows: no comparable run was trained yet{reason}."
    times = f"{_worker_time(new)} of worker time instead of {_worker_time(recompute)}"
    return f"{said}. {_SOURCES[source]} that is {times}."


def time_source(cost: Mapping[str, Any]) -> str:
    """What a cost's hours rest on, or why there are none."""
    if cost["source"] is None:
        return cost["unknown"] or "not known"
    return _SOURCES[cost["source"]][0].lower() + _SOURCES[cost["source"]][1:]


def _worker_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _listed(names: list[str] | tuple[str, ...]) -> str:
    """The first few by name, the rest by number."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _little_to_decide(revision: Revision, document: OptimizationDocument) -> list[str]:
    """What the caps leave open, once all domains are counted."""
    try:
        limits = Limits(counted_domains(revision), document.target_tokens, document.repetition_cap)
    except InvalidTokens:
        return []
    said = limits.little_to_decide()
    return [] if said is None else [said]


def _round_sentences(document: OptimizationDocument) -> Iterator[str]:
    """In which rounds the runs are trained, and when no further one is."""
    rounds, rule = document.rounds, document.stop_when
    if len(rounds) < 2:
        return
    yield f"The runs are trained in rounds of {', '.join(map(str, rounds))}."
    if rule is not None:
        bounds = ["a run's noise"] if rule.noise else []
        if rule.expected_regret is not None:
            bounds.append(f"{rule.expected_regret:g}")
        yield (
            f"Once {rounds[0]} of them are trained, training ends as soon as the mixture is expected to give away"
            f" less than {' or '.join(bounds)}."
        )


def planned_hours(session: Session, planned: PlannedOptimization, device: WorkerDevice) -> float:
    """The estimate's device-hours, 0 where nobody knows."""
    reuse = planned.document.reuse
    seconds = None if reuse is None else reuse.plan.new_seconds
    swarm = planned_swarm(session, planned)
    costs = [cost_view(swarm, device, seconds)]
    costs += [cost_view(one, device) for one in anchor_swarms(swarm, planned.document.anchors)]
    return sum(cost.device_hours or 0.0 for cost in costs if cost is not None)


def plan_view(session: Session, planned: PlannedOptimization, device: WorkerDevice) -> PlanView:
    """What a dry run answers; a method that trains nothing has nothing to reuse."""
    revision = session.get_one(Revision, planned.revision_id)
    reuse = planned.document.reuse
    plan = None if reuse is None else reuse.plan
    cost = cost_view(planned_swarm(session, planned), device, plan and plan.new_seconds)
    everything = cost_view(
        planned_swarm(session, planned, plan and plan.recompute_runs), device, plan and plan.recompute_seconds
    )
    hours = Hours(
        new=cost.device_hours if cost else None, recompute=everything.device_hours if everything else None
    )
    return PlanView(
        domain_set=revision.domain_set.name,
        revision=revision.number,
        method=planned.document.method,
        mixture_id=reuse and reuse.mixture,
        sentences=[*plan_sentences(plan, cost, everything), *_round_sentences(planned.document)]
        if plan
        else ["Nothing is trained, so nothing is reused."],
        hours=hours,
        cost=cost,
        anchor_costs=[
            view
            for one in anchor_swarms(planned_swarm(session, planned), planned.document.anchors)
            if (view := cost_view(one, device)) is not None
        ],
        warnings=[
            *_little_to_decide(revision, planned.document),
            *plan_warnings(revision, planned.document.tasks),
        ],
        plan=to_document(plan) if plan else {},
    )
