"""What the demo prints and writes, made from the documents of the API alone: live progress, tables, the result."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

POLL_SECONDS = 0.5
PLAIN_STEPS = 10
"""A plain line is printed each time another tenth is done."""


@dataclass(frozen=True, slots=True)
class Status:
    """One look at a piece of work: how much is done of what, and a remark (rate, ETA)."""

    done: int
    total: int
    remark: str = ""


class Meter(Protocol):
    """Shows statuses."""

    def show(self, status: Status) -> None:
        """Show the newest status."""
        ...


class _Bar:
    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, remark="")

    def show(self, status: Status) -> None:
        self._progress.update(
            self._task, completed=status.done, total=status.total, remark=status.remark, refresh=True
        )


class _Lines:
    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._shown = -1

    def show(self, status: Status) -> None:
        tenth = PLAIN_STEPS * status.done // max(status.total, 1)
        if tenth != self._shown:
            self._shown = tenth
            self._console.print(
                f"{self._title}: {status.done} of {status.total} {status.remark}".rstrip(),
                highlight=False,
                soft_wrap=True,
            )


@contextmanager
def meter(console: Console, title: str) -> Iterator[Meter]:
    """A meter for one piece of work, fit for what the console is."""
    if not console.is_terminal:
        yield _Lines(console, title)
        return
    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, title)


def follow(
    fetch: Callable[[], Mapping[str, Any]],
    is_over: Callable[[Mapping[str, Any]], bool],
    show: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    """Ask again until the document says it is over, showing each; answers the last one."""
    while True:
        document = fetch()
        show(document)
        if is_over(document):
            return document
        time.sleep(POLL_SECONDS)


def rate_and_eta(progress: Mapping[str, Any]) -> str:
    """``46,000 tokens/s, 3:20 left`` from the numbers of the API."""
    parts = []
    if progress.get("tokens_per_second"):
        parts.append(f"{progress['tokens_per_second']:,.0f} tokens/s")
    if progress.get("eta_seconds"):
        minutes, seconds = divmod(round(progress["eta_seconds"]), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(parts)


Document = Mapping[str, Any]


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
            f"{domain['tokens']:,.0f}",
            f"{domain['natural']:.2%}",
            f"{domain['weight']:.2%}",
            f"{domain['epochs']:.2f}",
            "yes" if domain["binding"] else "",
        )
    return table


def task_table(evidence: Document) -> Table:
    """Held-out error of the regression and the predicted gain, per task."""
    table = _table(
        "Regression on runs it has not seen, and the gain it predicts (BPB)",
        "task",
        "rank corr.",
        "abs. error",
        "noise",
        "gain",
        "90% interval",
    )
    for task in _counted(evidence):
        table.add_row(task["name"], *_task_cells(task))
    table.add_section()
    table.add_row("objective", *_task_cells({**evidence["objective"], "noise": None}), style="bold")
    table.add_section()
    for task in evidence["tasks"]:
        if not task["weight"]:
            table.add_row(task["name"], *_task_cells(task), style="dim")
    return table


def _counted(evidence: Document) -> list[Document]:
    """The tasks of the objective; the others are watched only."""
    return [task for task in evidence["tasks"] if task["weight"]]


def _task_cells(task: Document) -> tuple[str, ...]:
    low, high = task["gain_interval"]
    return (
        _number(task["rank_correlation"], ".3f"),
        _number(task["mae"], ".4f"),
        _number(task["noise"], ".4f"),
        f"{task['gain']:+.4f}",
        f"[{low:+.4f}, {high:+.4f}]",
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


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


def gain_table(evidence: Document, natural: Document, proposed: Document) -> Table:
    """Predicted gain of the proxies against the gain measured on the larger model."""
    table = _table(
        "Gain over the natural distribution (BPB, positive is better)",
        "task",
        "predicted",
        "90% interval",
        "measured",
        "natural",
        "proposed",
    )
    for task in _counted(evidence):
        name = task["name"]
        low, high = task["gain_interval"]
        table.add_row(
            name,
            f"{task['gain']:+.4f}",
            f"[{low:+.4f}, {high:+.4f}]",
            f"{natural['metrics'][name] - proposed['metrics'][name]:+.4f}",
            f"{natural['metrics'][name]:.4f}",
            f"{proposed['metrics'][name]:.4f}",
        )
    measured = measured_objective(evidence, natural, proposed)
    low, high = evidence["objective"]["gain_interval"]
    table.add_section()
    table.add_row(
        "objective",
        f"{evidence['objective']['gain']:+.4f}",
        f"[{low:+.4f}, {high:+.4f}]",
        f"{measured['natural'] - measured['proposed']:+.4f}",
        f"{measured['natural']:.4f}",
        f"{measured['proposed']:.4f}",
        style="bold",
    )
    return table


def measured_objective(evidence: Document, natural: Document, proposed: Document) -> dict[str, float]:
    """The objective's weighted mean BPB as measured on the two launched models."""
    weights = {task["name"]: float(task["weight"]) for task in _counted(evidence)}
    total = sum(weights.values())

    def mean(launch: Document) -> float:
        return sum(weight * launch["metrics"][name] for name, weight in weights.items()) / total

    return {"natural": mean(natural), "proposed": mean(proposed)}


def verdict(evidence: Document, natural: Document, proposed: Document) -> str:
    """One plain sentence: was the mixture right?"""
    measured = measured_objective(evidence, natural, proposed)
    gain = measured["natural"] - measured["proposed"]
    size = f"{proposed['non_embedding_parameters']:,} non-embedding parameters"
    if gain > 0:
        return (
            f"The larger model ({size}) is better on the proposed mixture: {measured['proposed']:.4f} against "
            f"{measured['natural']:.4f} mean BPB, a gain of {gain:.4f}."
        )
    return (
        f"The larger model ({size}) is NOT better on the proposed mixture: {measured['proposed']:.4f} against "
        f"{measured['natural']:.4f} mean BPB. The prediction of the proxies did not carry over."
    )


def result_document(
    optimization: Document, evidence: Document, natural: Document, proposed: Document
) -> dict[str, Any]:
    """The ``--json`` document, but for the seconds and the memory, which only the demo itself can know."""
    objective = evidence["objective"]
    trained = (natural["tokens"] or 0) + (proposed["tokens"] or 0)
    return {
        "domains": len(evidence["domains"]),
        "runs": optimization["progress"]["runs"]["total"],
        "tokens_trained": optimization["progress"]["tokens_trained"] + trained,
        "held_out_rank_correlation": evidence["held_out_rank_correlation"],
        "predicted": {"natural": objective["natural"], "proposed": objective["proposed"]},
        "measured": measured_objective(evidence, natural, proposed),
    }
