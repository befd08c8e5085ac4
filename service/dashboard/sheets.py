"""The tables of the pages as rows, every number with all its digits, and CSV made of them."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from mixing.domains import HELD_OUT_PREFIX
from service.dashboard.evidence import Evidence, TaskEvidence
from service.dashboard.formatting import unit_of_metric
from service.dashboard.runs import asked_by
from service.dashboard.tables import MixtureTable, Weighed, gain_groups, mixture_table
from service.dashboard.trust import columns_of
from service.domain_sets import adoptions
from service.domain_sets.schemas import RevisionView
from service.launches.comparison import Comparison, compare, held_against, objective_bpb, objective_weights
from service.launches.metrics import MOST_VALUES, thinned
from service.launches.record import record_of
from service.launches.service import LAUNCHES, describe_launch
from service.mixtures.held_out import HeldOutView
from service.mixtures.service import describe_mixture, mixture_with_id
from service.optimizations.service import mixtures_of, optimization_with_id
from service.swarms.service import describe_run, describe_runs
from store.problems import Conflict
from store.tables import Optimization

Row = Mapping[str, object]
Document = Mapping[str, Any]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of something to work out, and so would run."""
MOST_LAUNCHES = 50
"""Launches shown with their optimization."""


def csv_of(rows: Iterable[Row]) -> str:
    """A line for each row under the names of all their members; numbers as they are, text that is no formula.

    Raises Conflict where there is no row.
    """
    known = list(rows)
    if not known:
        raise Conflict("nothing_there", "There is nothing in this table yet.")
    columns = dict.fromkeys(name for row in known for name in row)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(name)) for name in columns] for row in known)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


# Of an optimization.


@dataclass(frozen=True, slots=True)
class Shown:
    """What its page has of the proposed mixture; ``about`` says of which domains."""

    name: str
    about: str
    evidence: Evidence
    effects: Mapping[str, Mapping[str, float]]
    used: Mapping[str, float] | None
    measured: Comparison | None

    @property
    def mixture(self) -> MixtureTable:
        """By source."""
        return mixture_table(self.evidence, self.used)


def shown_of(store: Session, optimization_id: str) -> Shown:
    """Raises NotFound; before it is solved there is nothing in it."""
    row = optimization_with_id(store, optimization_id)
    found = mixtures_of(store, optimization_id).get("proposed")
    evidence = describe_mixture(store, found).evidence if found else None
    page = LAUNCHES.page(store, None, MOST_LAUNCHES, optimization=optimization_id)
    launches = [view.model_dump(mode="json") for view in page.items]
    adopted = adoptions.in_use(store, row.revision.domain_set.name)
    return Shown(
        called(row),
        f"{row.revision.domain_set.name}, revision {row.revision.number}",
        Evidence.model_validate(evidence or {}),
        (evidence or {}).get("effects") or {},
        mixture_with_id(store, adopted.mixture_id).weights if adopted else None,
        compare(evidence, launches) if evidence else None,
    )


def called(row: Optimization) -> str:
    """How the files of an optimization begin: its domain set and revision."""
    return f"{row.revision.domain_set.name}-revision-{row.revision.number}"


def _mixture(store: Session, optimization_id: str) -> Iterator[Row]:
    shown = shown_of(store, optimization_id)
    for row in domains_of(shown.mixture):
        yield {
            "domain": row.name,
            "natural": row.natural,
            **({} if row.used is None else {"in_use": row.used}),
            "proposed": row.proposed,
            "change": row.change,
            "epochs": row.epochs,
            "cap": row.cap,
            "at_cap": row.binding,
            "spread": row.spread,
            "tokens": row.tokens,
        }


def domains_of(table: MixtureTable) -> list[Weighed]:
    """Every domain, in the order of the page."""
    return [row for source in table.sources for row in source.domains]


def _gains(store: Session, optimization_id: str) -> Iterator[Row]:
    shown = shown_of(store, optimization_id)
    for group in gain_groups(shown.evidence, shown.measured):
        for row in group.rows:
            task = row.predicted
            low, high = task.gain_interval or (None, None)
            yield {
                "task": row.name,
                "unit": task.unit,
                "weight": row.weight,
                "natural": task.natural,
                "proposed": task.proposed,
                "gain": task.gain,
                "gain_low": low,
                "gain_high": high,
                "measured_gain": row.measured,
                "rank_correlation": task.rank_correlation,
                "mae": task.mae,
                "noise": task.noise if isinstance(task, TaskEvidence) else None,
            }


def _effects(store: Session, optimization_id: str) -> Iterator[Row]:
    shown = shown_of(store, optimization_id)
    for row in domains_of(shown.mixture) if shown.effects else ():
        effects = {f"effects/{task}": of.get(row.name) for task, of in shown.effects.items()}
        yield {"domain": row.name, **effects}


def _runs(store: Session, optimization_id: str) -> Iterator[Row]:
    settings = optimization_with_id(store, optimization_id).settings
    for run in describe_runs(store, optimization_id):
        failure = run.failure
        yield {
            "index": run.index,
            "name": run.name,
            "id": run.id,
            "round": run.round,
            "state": run.state,
            "attempt": run.attempt,
            "failure": f"{failure.code}: {failure.detail}" if failure else None,
            "objective": objective_bpb(run.metrics, settings) if run.metrics else None,
            "tokens": run.tokens,
            "requested_tokens": run.requested_tokens,
            "seconds": run.seconds,
            "seed": run.seed,
            "created_at": run.created_at.isoformat(),
            **{f"metrics/{task}": value for task, value in run.metrics.items()},
            **{f"weights/{domain}": weight for domain, weight in run.weights.items()},
            **{f"realised_weights/{name}": weight for name, weight in (run.realised_weights or {}).items()},
        }


def _record(store: Session, optimization_id: str) -> Iterator[Row]:
    record = record_of(store, optimization_with_id(store, optimization_id).revision.domain_set.name)
    for of, launches in (("planned", record.planned_launches), ("larger", record.larger_launches)):
        for row in launches:
            low, high = row.gain.interval or (None, None)
            yield {
                "launch": row.launch_id,
                "of": of,
                "unit": row.unit,
                "predicted_gain": row.gain.predicted,
                "gain_low": low,
                "gain_high": high,
                "measured_gain": row.gain.measured,
                "within": row.gain.is_inside,
                "tasks": row.tasks,
                "tasks_within": row.tasks_inside,
            }


def held_out_rows(held: HeldOutView) -> Iterator[Row]:
    """Each held-out run: what was predicted of it by who had not seen it, and what it measured."""
    columns = columns_of(held)
    for row, moved in enumerate(held.moved):
        yield {
            "run": row + 1,
            "moved": moved,
            **{f"predicted/{column.name}": column.predicted[row] for column in columns},
            **{f"measured/{column.name}": column.measured[row] for column in columns},
        }


Rows = Callable[[Session, str], Iterable[Row]]
OF_OPTIMIZATION: Mapping[str, Rows] = {
    "mixture": _mixture,
    "gains": _gains,
    "effects": _effects,
    "runs": _runs,
    "record": _record,
}


# Of a run, and of a launch, which is one run.


@dataclass(frozen=True, slots=True)
class Trained:
    """A run or a launch: how its files are called, which run it is, what was measured by which settings."""

    name: str
    run_id: str
    settings: Document
    metrics: Mapping[str, float]
    weights: Mapping[str, float]
    tokens: Mapping[str, int]


def run_of(store: Session, run_id: str) -> Trained:
    """Raises NotFound."""
    run = describe_run(store, run_id)
    optimization = asked_by(store, run)
    settings = optimization.settings if optimization else {"tasks": []}
    of = f"{called(optimization)}-" if optimization else ""
    name = f"{of}{run.name or f'run-{run.index}'}"
    return Trained(name, run.id, settings, run.metrics, run.weights, run.realised_tokens or {})


def launch_of(store: Session, launch_id: str) -> Trained:
    """Raises NotFound."""
    launch = describe_launch(store, launch_id)
    mixture = describe_mixture(store, launch.mixture_id)
    name = f"{mixture.domain_set}-launch-{launch.mixture_kind}"
    read = launch.realised_tokens or {}
    return Trained(name, launch.run_id, launch.settings, launch.metrics, mixture.weights, read)


def _metrics(_store: Session, one: Trained) -> Iterator[Row]:
    weights = objective_weights({"settings": one.settings})
    for name, value in sorted(one.metrics.items()):
        is_asked = name in weights or (not weights and name.startswith(HELD_OUT_PREFIX))
        unit = unit_of_metric(name, one.settings)
        yield {"task": name, "in_objective": is_asked, "value": value, "metric": unit}


def _curves(store: Session, one: Trained) -> Iterator[Row]:
    for point in thinned(store, one.run_id, MOST_VALUES):
        yield {"metric": point.task, "step": point.step, "tokens": point.tokens, "value": point.value}


def _tokens(_store: Session, one: Trained) -> Iterator[Row]:
    total = sum(one.tokens.values())
    for name, weight in sorted(one.weights.items(), key=lambda item: (-item[1], item[0])):
        read = one.tokens.get(name, 0)
        realised = {"realised": read / total, "tokens": read} if total else {}
        yield {"domain": name, "requested": weight, **realised}


TrainedRows = Callable[[Session, Trained], Iterable[Row]]
OF_TRAINED: Mapping[str, TrainedRows] = {
    "metrics": _metrics,
    "curves": _curves,
    "weights": _tokens,
}


def prediction_rows(store: Session, launch_id: str) -> Iterator[Row]:
    """A launch held against what was predicted of it, the objective first; none where nothing was."""
    for row in held_against(store, launch_id).rows:
        low, high = row.gain.interval or (None, None)
        yield {
            "task": row.name,
            "unit": row.unit,
            "weight": row.weight,
            "predicted": row.predicted,
            "measured": row.measured,
            "predicted_gain": row.gain.predicted,
            "gain_low": low,
            "gain_high": high,
            "measured_gain": row.gain.measured,
            "within": row.gain.is_inside,
        }


# Of a domain set.


def domain_rows(revision: RevisionView) -> Iterator[Row]:
    """The domains of a revision, and what counting them found."""
    for domain in revision.domains:
        share = domain.tokens / revision.tokens if domain.tokens and revision.tokens else None
        yield {
            "domain": domain.name,
            "state": domain.state,
            "tokens": domain.tokens,
            "share": share,
            "declared_tokens": domain.declared_tokens,
            "counted_tokens": domain.counted_tokens,
            "unique_tokens": domain.unique_tokens,
            "documents": domain.documents,
            "size_bytes": domain.size_bytes,
            "held_out_bytes": domain.held_out_bytes,
            "files": len(domain.files),
        }
