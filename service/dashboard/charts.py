"""What the charts of `templates/_charts.html` are drawn to scale by, and the table of effects."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.dashboard.formatting import is_higher_better

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from ``low`` to ``high`` onto 0% to 100%; what lies outside is drawn at the border."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where ``value`` lies, as a percentage."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return f"{100 * min(max(share, 0.0), 1.0):.3f}%"


STEP = 0.01
"""The change of weight the cells are about: a hundredth of the mixture."""
MOST_CELLS, MOST_COLUMNS = 10_000, 100
"""Of a table of effects, that a browser draws and a request writes in a moment."""
_SHADES = (1 / 12, 1 / 3, 2 / 3)
"""Shares of the task's largest effect from which a cell is shaded lightly, more and most."""


@dataclass(frozen=True, slots=True)
class Effect:
    """By how much the metric changes, and the style of its cell: ``better-1`` to ``worse-3``, or nothing."""

    value: float
    shade: str


@dataclass(frozen=True, slots=True)
class EffectsTable:
    """A column for each task of the objective and a row for each domain, the first of them where they are many."""

    tasks: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Effect]]]
    is_whole: bool


def effects_table(evidence: Document, domains: Sequence[str]) -> EffectsTable | None:
    """The table of a proposal's evidence with its rows in the order given; None where nothing was fitted."""
    effects: Mapping[str, Mapping[str, float]] = evidence.get("effects") or {}
    tasks = [task["name"] for task in evidence["tasks"] if task["weight"] > 0 and task["name"] in effects]
    if not tasks:
        return None
    shown = tasks[:MOST_COLUMNS]
    first = domains[: MOST_CELLS // len(shown)]
    higher = {task["name"] for task in evidence["tasks"] if is_higher_better(task)}
    largest = {task: max(abs(effects[task][domain]) for domain in domains) for task in shown}
    rows = [
        (
            domain,
            [
                Effect(
                    STEP * effects[task][domain],
                    _shade(effects[task][domain] * (-1 if task in higher else 1), largest[task]),
                )
                for task in shown
            ],
        )
        for domain in first
    ]
    return EffectsTable(shown, rows, len(first) == len(domains) and shown == tasks)


def _shade(effect: float, largest: float) -> str:
    strength = sum(abs(effect) > share * largest for share in _SHADES)
    return f"{'better' if effect < 0 else 'worse'}-{strength}" if strength else ""


CURVE_POINTS, MOST_CURVES = 60, 12
"""Of a page: what is drawn of each series of a launch, and of how many."""
_WIDTH, _HEIGHT = 1000.0, 100.0
LOSS = "training/loss"


@dataclass(frozen=True, slots=True)
class Curve:
    """A series over the tokens trained, and its line within `_WIDTH` by `_HEIGHT`, stretched to where it is drawn."""

    name: str
    points: Sequence[Document]

    @property
    def values(self) -> tuple[float, float]:
        """The lowest and the highest."""
        values = [point["value"] for point in self.points]
        return min(values), max(values)

    @property
    def line(self) -> str:
        """What a ``polyline`` is given."""
        (low, high), last = self.values, max(1, self.points[-1]["tokens"])
        return " ".join(
            f"{_WIDTH * point['tokens'] / last:.1f},"
            f"{_HEIGHT * (high - point['value']) / (high - low) if high > low else _HEIGHT / 2:.2f}"
            for point in self.points
        )


def curves_of(metrics: Iterable[Document], tasks: Iterable[str]) -> list[Curve]:
    """The curves of what was measured more than once: the loss of training, the ``tasks``, what else there is."""
    series: dict[str, list[Document]] = {}
    for metric in metrics:
        series.setdefault(metric["task"], []).append(metric)
    order = dict.fromkeys([LOSS, *tasks, *sorted(series)])
    found = [Curve(name, series[name]) for name in order if len(series.get(name, ())) > 1]
    return found[:MOST_CURVES]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points to a scale each way, and a line from corner to corner or level at nothing; ``marked`` stand out.

    A mark has a name, and both coordinates.
    """

    across: Scale
    up: Scale
    points: Sequence[tuple[float, float]]
    marked: Sequence[tuple[str, float, float]] = ()

    def place(self, across: float, up: float) -> tuple[str, str]:
        """Where a point lies from the left and from the top."""
        return self.across.at(across), Scale(-self.up.high, -self.up.low).at(-up)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A scatter with its words: its ``id`` on the page, what lies across and up, and which ``line`` is drawn."""

    id: str
    title: str
    description: str
    across: str
    up: str
    plot: Scatter
    line: Literal["alike", "nothing", "none"] = "alike"
    height: int = 240


def scatter(
    points: Iterable[tuple[float, float | None]],
    marked: Sequence[tuple[str, float, float]] = (),
    *,
    is_square: bool = False,
) -> Scatter:
    """The points that have both coordinates, a margin around them; ``is_square``: both ways to one scale."""
    known = [(across, up) for across, up in points if up is not None]
    both = [*known, *((across, up) for _, across, up in marked)] or [(0.0, 0.0)]
    across, up = _around(one for one, _ in both), _around(two for _, two in both)
    if is_square:
        across = up = Scale(min(across.low, up.low), max(across.high, up.high))
    return Scatter(across, up, known, marked)


def _around(values: Iterable[float]) -> Scale:
    own = list(values)
    margin = 0.06 * (max(own) - min(own)) or 0.01
    return Scale(min(own) - margin, max(own) + margin)
