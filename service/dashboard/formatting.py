"""Numbers as people read them, and the units they are in. What is unknown (None, NaN) is a dash, never a zero."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from mixing.sense import Turn
from proxy_models.config import BFLOAT16

UNKNOWN = "–"
_MINUS = "−"
_DECIMAL_UNITS = ("", "K", "M", "B", "T", "P")
_SI_UNITS = ("", "K", "M", "G", "T", "P", "E", "Z")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

Number = float | int | None
Document = Mapping[str, Any]
Rest = ParamSpec("Rest")


def _or_dash(shown: Callable[Concatenate[float, Rest], str]) -> Callable[Concatenate[Number, Rest], str]:
    """``shown`` for what is known."""

    @wraps(shown)
    def known(value: Number, *args: Rest.args, **kwargs: Rest.kwargs) -> str:
        return UNKNOWN if value is None or not math.isfinite(value) else shown(value, *args, **kwargs)

    return known


def _scaled(value: float, base: float, units: tuple[str, ...]) -> tuple[str, str]:
    power = 0
    # Rounding decides the unit: 999 960 is 1.0M, not 1000.0K.
    while power < len(units) - 1 and abs(value) >= (base if power == 0 else base - 0.05):
        value /= base
        power += 1
    return (f"{value:.0f}" if power == 0 else f"{value:.1f}"), units[power]


@_or_dash
def quantity(value: float) -> str:
    """A count in short: ``950``, ``1.2K``, ``3.4M``, ``6.0B``, ``1.1T``."""
    return "".join(_scaled(value, 1000.0, _DECIMAL_UNITS))


@_or_dash
def flops(value: float) -> str:
    """Floating point operations in short: ``1.2 PFLOP``."""
    number, unit = _scaled(value, 1000.0, _SI_UNITS)
    return f"{number} {unit}FLOP"


@_or_dash
def size(value: float) -> str:
    """Bytes in short: ``12 B``, ``1.5 MiB``."""
    return " ".join(_scaled(value, 1024.0, _BINARY_UNITS))


@_or_dash
def count(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,.0f}"


@_or_dash
def percent(weight: float) -> str:
    """A fraction as a percentage with two decimals; what would round to nothing says so."""
    return "<0.01%" if 0 < weight < 0.00005 else f"{100 * weight:.2f}%"


def bpb(value: Number) -> str:
    """Bits per byte, four decimals."""
    return decimals(value, 4)


@_or_dash
def signed(value: float, places: int = 4) -> str:
    """A difference with its sign."""
    text = f"{abs(value):.{places}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else _MINUS) + text


@_or_dash
def decimals(value: float, places: int = 2) -> str:
    """A plain number with so many decimals and a real minus sign."""
    return f"{value:.{places}f}".replace("-", _MINUS)


@_or_dash
def signed_percent(value: float) -> str:
    """A change of weight in points of a hundred, with its sign: ``+1.25``; what would round to nothing is ``0``."""
    text = signed(100 * value, 2)
    return "0" if float(text.replace(_MINUS, "-")) == 0 else text


@_or_dash
def plain(value: float) -> str:
    """A setting as it was typed: ``4``, ``0.05``, ``0.001``."""
    return f"{value:g}"


@_or_dash
def duration(seconds: float) -> str:
    """``0.4 s``, ``45 s``, ``3 min 12 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def about(seconds: Number) -> str:
    """A duration in words that do not change every second: ``under a minute``, ``about 7 min``."""
    if seconds is None or not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 60:
        return "under a minute"
    if seconds < 5400:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {seconds / 3600:.0f} h"


def moment(iso: str) -> str:
    """An ISO 8601 time as ``2026-11-21 05:16 UTC``."""
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")


def ago(iso: str, now: datetime | None = None) -> str:
    """How long ago an ISO 8601 time was, in its largest unit, such as ``3 hours ago``."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(iso)).total_seconds()
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number:,} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


def interval(bounds: tuple[float, float] | list[float] | None, places: int = 4) -> str:
    """``+0.0201 to +0.0487``."""
    if bounds is None:
        return UNKNOWN
    low, high = bounds
    return f"{signed(low, places)} to {signed(high, places)}"


def model_name(settings: Mapping[str, Any]) -> str:
    """What is trained, in a word: a size, a kind of architecture, or what a launcher is called."""
    if settings.get("size"):
        return str(settings["size"])
    architecture = settings.get("architecture")
    return str(architecture["model_type"] if architecture else settings.get("launcher", ""))


def rounding(settings: Mapping[str, Any]) -> str:
    """What its products are rounded to, to be put behind something else; nothing where they are not."""
    return ", bfloat16" if settings.get("precision") == BFLOAT16 else ""


BPB, ACCURACY = "BPB", "accuracy"


def is_higher_better(judged: Document) -> bool:
    """Of a task, a family or an objective of the evidence; documents from before there were accuracies do not say."""
    return judged.get("direction", "lower") == "higher"


def unit_of(judged: Document) -> str:
    """The unit of a task, a family or an objective of the evidence; empty where it has no name."""
    return judged.get("unit", BPB) or ""


def in_unit(value: float | None, unit: str) -> str:
    """A number with its unit behind it."""
    return f"{bpb(value)} {unit}".rstrip()


def objective_unit(settings: Document) -> str:
    """The unit of the objective that an optimization or a launch was asked for."""
    units = {_unit(task.get("metric")) for task in settings["tasks"] if task["weight"] > 0} or {BPB}
    return units.pop() if len(units) == 1 else ""


def unit_of_metric(name: str, settings: Document) -> str:
    """The unit of a metric of a run by its name: a task, its other metric, or a held-out slice."""
    task, _, series = name.rpartition("/")
    metrics = {each["name"]: each.get("metric") for each in settings["tasks"]}
    return _unit(metrics.get(name, series if task in metrics else BPB))


def _unit(metric: str | None) -> str:
    """Of a task by its metric; of what was measured elsewhere and is no accuracy nobody said one."""
    return {"accuracy": ACCURACY, "lower": "", "higher": ""}.get(metric or "", BPB)


_TURNS: Mapping[str, Turn] = {"accuracy": "error rate", "higher": "negated"}


def turn_of(metric: str | None) -> Turn | None:
    """How a task is turned to be minimised, by its metric."""
    return _TURNS.get(metric or "")
