"""Charts as SVG elements whose horizontal positions are percentages.

Without a ``viewBox`` a chart takes the width it is given while its text keeps the size of the page's, on a
phone as on a wide screen. Colours are classes: the page's policy allows no inline style, and light and dark
are the style sheet's business. Every value is escaped by ``Markup.format``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

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
