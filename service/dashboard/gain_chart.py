"""Predicted gain with its interval, and the measured gain on the same line, for each task."""

from markupsafe import Markup

from service.dashboard import svg
from service.dashboard.comparison import Comparison, Gain
from service.dashboard.formatting import interval, signed

_ROW = 44
_LINE = 27


def gain_chart(comparison: Comparison) -> Markup:
    """The chart of one pair of launches: the objective first, then its tasks."""
    gains = comparison.rows
    scale = _scale(gains)
    rows = [_row(gain, _ROW * index, scale) for index, gain in enumerate(gains)]
    inside = sum(bool(gain.is_inside) for gain in comparison.tasks)
    return svg.chart(
        "gain-chart",
        "Predicted and measured gain over the natural distribution",
        f"For each task the predicted gain with its interval, and the measured one. "
        f"{inside} of {len(comparison.tasks)} measured gains lie within their interval. "
        "The table has every number.",
        _ROW * len(gains) + 2,
        rows,
    )


def _scale(gains: tuple[Gain, ...]) -> svg.Scale:
    values = [0.0]
    for gain in gains:
        values += [gain.predicted, gain.measured, *(gain.interval or ())]
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 0.01
    return svg.Scale(low - margin, high + margin)


def _row(gain: Gain, top: float, scale: svg.Scale) -> Markup:
    y = top + _LINE
    parts = [
        svg.text("label", "0", top + 13, gain.name),
        svg.text("value", "100%", top + 13, f"{signed(gain.predicted)} → {signed(gain.measured)}", "end"),
        svg.line("track", ("0%", y), ("100%", y)),
        svg.line("zero", (scale.at(0.0), y - 8), (scale.at(0.0), y + 8)),
    ]
    if gain.interval is not None:
        low, high = (scale.at(bound) for bound in gain.interval)
        parts.append(svg.line("interval", (low, y), (high, y)))
    parts.append(svg.dot("predicted", scale.at(gain.predicted), y))
    parts.append(svg.diamond("measured", scale.at(gain.measured), y))
    words = (
        f"{gain.name}: predicted {signed(gain.predicted)} {gain.unit} "
        f"({interval(gain.interval)}), measured {signed(gain.measured)} {gain.unit}".rstrip()
    )
    return svg.group(words, parts)
