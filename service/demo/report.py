"""What the demo prints and writes, made from the documents of the API alone: live progress, tables, the result."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.dashboard.formatting import bpb, count, decimals, duration, interval, percent, signed
from service.launches.comparison import Comparison, Gain

POLL_SECONDS = 0.5
ENDED = ("succeeded", "failed", "cancelled")
PLAIN_STEPS = 10
"""A plain line is printed each time another tenth is done."""
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Status:
    """One look at a piece of work: how much is done of what, and a remark (rate, ETA)."""

    done: int
    total: int
    remark: str = ""


def follow(
    console: Console,
    title: str,
    fetch: Callable[[], Sequence[Document]],
    status: Callable[..., Status],
) -> Sequence[Document]:
    """Ask again until everything that is fetched has ended, showing how far it is; answers the last documents.

    ``status`` is given the documents, one parameter each. A terminal shows a bar, anything else a line a tenth.
    """
    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}", style="dim"),
        TimeElapsedColumn(),
    )
    printed = -1
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=None, remark="")
        while True:
            documents = fetch()
            now = status(*documents)
            progress.update(bar, completed=now.done, total=now.total, remark=now.remark, refresh=True)
            tenth = PLAIN_STEPS * now.done // max(now.total, 1)
            if not console.is_terminal and tenth != printed:
                printed = tenth
                line = f"{title}: {now.done} of {now.total} {now.remark}".rstrip()
                console.print(line, highlight=False, soft_wrap=True)
            if all(document["state"] in ENDED for document in documents):
                return documents
            time.sleep(POLL_SECONDS)


def tokens_status(*launches: Document) -> Status:
    """How far launches are, together."""
    done = total = 0
    rate = 0.0
    for launch in launches:
        planned = launch["tokens"] or launch["settings"]["tokens"]
        progress = launch["progress"] or {}
        total += planned
        done += planned if launch["state"] == "succeeded" else progress.get("done", 0)
        rate += progress.get("tokens_per_second") or 0.0
    eta = (total - done) / rate if rate else None
    return Status(done, total, "tokens  " + rate_and_eta({"tokens_per_second": rate, "eta_seconds": eta}))


def rate_and_eta(progress: Mapping[str, Any]) -> str:
    """``46,000 tokens/s, 3 min 20 s left`` from the numbers of the API."""
    parts = []
    if progress.get("tokens_per_second"):
        parts.append(f"{count(progress['tokens_per_second'])} tokens/s")
    if progress.get("eta_seconds"):
        parts.append(f"{duration(progress['eta_seconds'])} left")
    return ", ".join(parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def mixture_table(evidence: Document) -> Table:
    """Proposed beside natural weights, with epochs against the cap."""
    table = _table("Mixture", "domain", "tokens", "natural", "proposed", "epochs", "cap binds")
    for domain in sorted(evidence["domains"], key=lambda row: -row["weight"]):
        table.add_row(
            domain["name"],
            count(domain["tokens"]),
            percent(domain["natural"]),
            percent(domain["weight"]),
            decimals(domain["epochs"]),
            "yes" if domain["binding"] else "",
        )
    return table


def task_table(evidence: Document) -> Table:
    """Held-out error of the regression and the predicted gain, per task."""
    table = _table(
        "Regression on runs it has not seen, and the gain it predicts (BPB)",
        *("task", "rank corr.", "abs. error", "noise", "gain", "90% interval"),
    )
    for task in evidence["tasks"]:
        if task["weight"]:
            table.add_row(task["name"], *_task_cells(task))
    table.add_section()
    table.add_row("objective", *_task_cells({**evidence["objective"], "noise": None}), style="bold")
    table.add_section()
    for task in evidence["tasks"]:
        if not task["weight"]:
            table.add_row(task["name"], *_task_cells(task), style="dim")
    return table


def _task_cells(task: Document) -> tuple[str, ...]:
    return (
        decimals(task["rank_correlation"], 3),
        bpb(task["mae"]),
        bpb(task["noise"]),
        signed(task["gain"]),
        interval(task["gain_interval"]),
    )


def print_evidence(console: Console, optimization: Document, evidence: Document) -> None:
    """The whole answer of an optimization: mixture, regression, constraints, warnings, lost runs."""
    console.print(mixture_table(evidence))
    console.print(task_table(evidence))
    console.print("[bold]Binding constraints[/bold]")
    for constraint in evidence["constraints"]:
        console.print(f"  {constraint['statement']}", highlight=False)
    if not evidence["constraints"]:
        console.print("  none: every cap leaves room")
    for run in optimization["lost_runs"]:
        console.print(f"[yellow]lost run[/yellow] {run['run_id']}: {run['reason']}")
    for warning in evidence["warnings"]:
        console.print(f"[yellow]warning[/yellow] {warning['message']}", highlight=False)


def gain_table(comparison: Comparison) -> Table:
    """The predicted gain against the gain measured on the larger model, which is the one that was planned."""
    table = _table(
        "Gain over the natural distribution (BPB, positive is better)",
        *("task", "predicted", "90% interval", "measured", "natural", "proposed"),
    )
    for gain in comparison.tasks:
        table.add_row(*_gain_cells(gain))
    table.add_section()
    table.add_row(*_gain_cells(comparison.objective), style="bold")
    return table


def _gain_cells(gain: Gain) -> tuple[str, ...]:
    return (
        gain.name,
        signed(gain.predicted),
        interval(gain.interval),
        signed(gain.measured),
        bpb(gain.natural),
        bpb(gain.proposed),
    )


def result_document(optimization: Document, evidence: Document, comparison: Comparison) -> dict[str, Any]:
    """The ``--json`` document, but for the seconds and the memory, which only the demo itself can know."""
    objective, measured = evidence["objective"], comparison.objective
    trained = sum(launch["tokens"] or 0 for launch in (comparison.natural, comparison.proposed))
    return {
        "domains": len(evidence["domains"]),
        "runs": optimization["progress"]["runs"]["total"],
        "tokens_trained": optimization["progress"]["tokens_trained"] + trained,
        "held_out_rank_correlation": evidence["held_out_rank_correlation"],
        "predicted": {"natural": objective["natural"], "proposed": objective["proposed"]},
        "measured": {"natural": measured.natural, "proposed": measured.proposed},
        "target": {
            "predicted_gain": measured.predicted,
            "interval": list(measured.interval or ()),
            "measured_gain": measured.measured,
            "tasks_inside": sum(bool(task.is_inside) for task in comparison.tasks),
        },
    }
