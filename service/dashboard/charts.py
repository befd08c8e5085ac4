"""Charts: proposed against natural weights, and predicted against measured gains; and the table of effects.

Charts are SVG elements whose horizontal positions are percentages. Without a ``viewBox`` a chart takes the width it
is given while its text keeps the size of the page's, on a phone as on a wide screen. Colours are classes: the page's
policy allows no inline style, and light and dark are the style sheet's business. Every value is escaped by
``Markup.format``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from service.dashboard.comparison import Comparison, Gain
from service.dashboard.formatting import interval, is_higher_better, percent, signed

Document = Mapping[str, Any]

_LONGEST_LABEL = 34


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from ``low`` to ``high`` onto 0% to 100%; what lies outside is drawn at the border."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where ``value`` lies, as a percentage."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return f"{100 * min(max(share, 0.0), 1.0):.3f}%"


def chart(name: str, title: str, description: str, height: int, parts: Iterable[Markup]) -> Markup:
    """The whole picture, named and described for who cannot see it; ``name`` is its id."""
    return Markup(
        '<svg class="chart" id="{0}" role="img" width="100%" height="{1}" '
        'aria-labelledby="{0}-title {0}-description">'
        '<title id="{0}-title">{2}</title><desc id="{0}-description">{3}</desc>{4}</svg>'
    ).format(name, height, title, description, Markup("").join(parts))


def bar(kind: str, y: float, height: float, width: str) -> Markup:
    """A bar from the left border."""
    return Markup('<rect class="{}" x="0" y="{}" width="{}" height="{}" rx="1"/>').format(
        kind, y, width, height
    )


def line(kind: str, start: tuple[str, float], end: tuple[str, float]) -> Markup:
    """A straight line."""
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, *start, *end)


def dot(kind: str, x: str, y: float) -> Markup:
    """A filled circle."""
    return Markup('<circle class="{}" cx="{}" cy="{}" r="4.5"/>').format(kind, x, y)


def diamond(kind: str, x: str, y: float) -> Markup:
    """A shape that differs from a dot without colour."""
    return Markup(
        '<svg x="{}" y="{}" overflow="visible"><path class="{}" d="M0 -6.5L6.5 0L0 6.5L-6.5 0Z"/></svg>'
    ).format(x, y, kind)


def text(kind: str, x: str, y: float, words: str, anchor: str = "start") -> Markup:
    """Words; the ends of long names give way to an ellipsis."""
    shown = words if len(words) <= _LONGEST_LABEL else words[: _LONGEST_LABEL - 1] + "…"
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, shown
    )


def group(title: str, parts: Iterable[Markup]) -> Markup:
    """Elements that share what a pointer resting on them reads."""
    return Markup("<g><title>{}</title>{}</g>").format(title, Markup("").join(parts))


_GAIN_ROW = 44
_GAIN_LINE = 27


def gain_chart(comparison: Comparison) -> Markup:
    """The chart of one pair of launches: the objective first, then its tasks."""
    gains = comparison.rows
    scale = _gain_scale(gains)
    rows = [_gain_row(gain, _GAIN_ROW * index, scale) for index, gain in enumerate(gains)]
    inside = sum(bool(gain.is_inside) for gain in comparison.tasks)
    return chart(
        "gain-chart",
        "Predicted and measured gain over the natural distribution",
        f"For each task the predicted gain with its interval, and the measured one. "
        f"{inside} of {len(comparison.tasks)} measured gains lie within their interval. "
        "The table has every number.",
        _GAIN_ROW * len(gains) + 2,
        rows,
    )


def _gain_scale(gains: tuple[Gain, ...]) -> Scale:
    values = [0.0]
    for gain in gains:
        values += [gain.predicted, gain.measured, *(gain.interval or ())]
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 0.01
    return Scale(low - margin, high + margin)


def _gain_row(gain: Gain, top: float, scale: Scale) -> Markup:
    y = top + _GAIN_LINE
    parts = [
        text("label", "0", top + 13, gain.name),
        text("value", "100%", top + 13, f"{signed(gain.predicted)} → {signed(gain.measured)}", "end"),
        line("track", ("0%", y), ("100%", y)),
        line("zero", (scale.at(0.0), y - 8), (scale.at(0.0), y + 8)),
    ]
    if gain.interval is not None:
        low, high = (scale.at(bound) for bound in gain.interval)
        parts.append(line("interval", (low, y), (high, y)))
    parts.append(dot("predicted", scale.at(gain.predicted), y))
    parts.append(diamond("measured", scale.at(gain.measured), y))
    words = (
        f"{gain.name}: predicted {signed(gain.predicted)} {gain.unit} "
        f"({interval(gain.interval)}), measured {signed(gain.measured)} {gain.unit}".rstrip()
    )
    return group(words, parts)


MOST_ROWS = 40
"""Domains drawn; the table beside the chart has them all."""
_WEIGHT_ROW = 42


def mixture_chart(domains: Sequence[Document]) -> Markup:
    """The chart of the evidence's ``domains``, in the order given."""
    drawn = domains[:MOST_ROWS]
    highest = max((max(domain["weight"], domain["natural"]) for domain in drawn), default=1.0)
    scale = Scale(0.0, 1.02 * highest)
    rows = [_weight_row(domain, _WEIGHT_ROW * index, scale) for index, domain in enumerate(drawn)]
    largest = drawn[0] if drawn else None
    description = f"{len(drawn)} domains, a bar of the proposed weight above one of the natural weight. " + (
        f"The largest proposed weight is {percent(largest['weight'])}, of {largest['name']}. "
        if largest
        else ""
    )
    return chart(
        "mixture-chart",
        "Proposed mixture and natural distribution",
        description + "The table has every number.",
        _WEIGHT_ROW * len(drawn) + 2,
        rows,
    )


def _weight_row(domain: Document, top: float, scale: Scale) -> Markup:
    cap = domain["cap"]
    parts = [
        text("label", "0", top + 13, domain["name"]),
        text("value", "100%", top + 13, f"{percent(domain['weight'])} · {percent(domain['natural'])}", "end"),
        bar("proposed", top + 19, 8, scale.at(domain["weight"])),
        bar("natural", top + 29, 4, scale.at(domain["natural"])),
    ]
    if cap is not None and cap <= scale.high:
        kind = "cap binding" if domain["binding"] else "cap"
        parts.append(line(kind, (scale.at(cap), top + 16), (scale.at(cap), top + 36)))
    words = f"{domain['name']}: proposed {percent(domain['weight'])}, natural {percent(domain['natural'])}"
    if cap is not None and cap < 1:
        words += f", at most {percent(cap)} under the repetition cap"
    return group(words, parts)


STEP = 0.01
"""The change of weight the cells are about: a hundredth of the mixture."""
_SHADES = (1 / 12, 1 / 3, 2 / 3)
"""Shares of the task's largest effect from which a cell is shaded lightly, more and most."""


@dataclass(frozen=True, slots=True)
class Effect:
    """By how much the metric changes, and the style of its cell: ``better-1`` to ``worse-3``, or nothing."""

    value: float
    shade: str


@dataclass(frozen=True, slots=True)
class EffectsTable:
    """A column for each task of the objective and a row for each domain."""

    tasks: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Effect]]]


def effects_table(evidence: Document, domains: Sequence[str]) -> EffectsTable | None:
    """The table of a proposal's evidence with its rows in the order given; None where nothing was fitted."""
    effects: Mapping[str, Mapping[str, float]] = evidence.get("effects") or {}
    tasks = [task["name"] for task in evidence["tasks"] if task["weight"] > 0 and task["name"] in effects]
    if not tasks:
        return None
    higher = {task["name"] for task in evidence["tasks"] if is_higher_better(task)}
    largest = {task: max(abs(effects[task][domain]) for domain in domains) for task in tasks}
    rows = [
        (
            domain,
            [
                Effect(
                    STEP * effects[task][domain],
                    _shade(effects[task][domain] * (-1 if task in higher else 1), largest[task]),
                )
                for task in tasks
            ],
        )
        for domain in domains
    ]
    return EffectsTable(tasks, rows)


def _shade(effect: float, largest: float) -> str:
    strength = sum(abs(effect) > share * largest for share in _SHADES)
    return f"{'better' if effect < 0 else 'worse'}-{strength}" if strength else ""
