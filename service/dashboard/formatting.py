"""Numbers as people read them, and the units they are in. What is unknown (None, NaN) is a dash, never a zero."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from proxy_models.config import BFLOAT16

UNKNOWN = "–"
_MINUS = "−"
_DECIMAL_UNITS = ("", "K", "M", "B", "T", "P")
_SI_UNITS = ("", "K", "M", "G", "T", "P", "E", "Z")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")

Number = float | int | None
Document = Mapping[str, Any]


def is_known(value: Number) -> bool:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def _scaled(value: float, base: float, units: tuple[str, ...]) -> tuple[str, str]:
    power = 0
    # Rounding decides the unit: 999 960 is 1.0M, not 1000.0K.
    while power < len(units) - 1 and abs(value) >= (base if power == 0 else base - 0.05):
        value /= base
        power += 1
    return (f"{value:.0f}" if power == 0 else f"{value:.1f}"), units[power]


def quantity(value: Number) -> str:
    """A count in short: ``950``, ``1.2K``, ``3.4M``, ``6.0B``, ``1.1T``."""
    if value is None or not is_known(value):
        return UNKNOWN
    return "".join(_scaled(float(value), 1000.0, _DECIMAL_UNITS))


def flops(value: Number) -> str:
    """Floating point operations in short: ``1.2 PFLOP``."""
    if value is None or not is_known(value):
        return UNKNOWN
    number, unit = _scaled(float(value), 1000.0, _SI_UNITS)
    return f"{number} {unit}FLOP"


def size(value: Number) -> str:
    """Bytes in short: ``12 B``, ``1.5 MiB``."""
    if value is None or not is_known(value):
        return UNKNOWN
    return " ".join(_scaled(float(value), 1024.0, _BINARY_UNITS))


def count(value: Number) -> str:
    """A whole number with its thousands apart."""
    return UNKNOWN if value is None or not is_known(value) else f"{value:,.0f}"


def percent(weight: Number) -> str:
    """A fraction as a percentage with two decimals; what would round to nothing says so."""
    if weight is None or not is_known(weight):
        return UNKNOWN
    return "<0.01%" if 0 < weight < 0.00005 else f"{100 * weight:.2f}%"


def bpb(value: Number) -> str:
    """Bits per byte, four decimals."""
    return decimals(value, 4)


def signed(value: Number, places: int = 4) -> str:
    """A difference with its sign."""
    if value is None or not is_known(value):
        return UNKNOWN
    text = f"{abs(value):.{places}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else _MINUS) + text


def decimals(value: Number, places: int = 2) -> str:
    """A plain number with so many decimals and a real minus sign."""
    if value is None or not is_known(value):
        return UNKNOWN
    return f"{value:.{places}f}".replace("-", _MINUS)


def plain(value: Number) -> str:
    """A setting as it was typed: ``4``, ``0.05``, ``0.001``."""
    return UNKNOWN if value is None or not is_known(value) else f"{value:g}"


def duration(seconds: Number) -> str:
    """``0.4 s``, ``45 s``, ``3 min 12 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds is None or not is_known(seconds):
        return UNKNOWN
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
    if seconds is None or not is_known(seconds):
        return "an unknown time"
    if seconds < 60:
        return "under a minute"
    if seconds < 5400:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {seconds / 3600:.0f} h"


def moment(iso: str) -> str:
    """An ISO 8601 time as ``2026-11-21 05:16 UTC``."""
    return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M UTC")


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


def is_higher_better(told: Document) -> bool:
    """Of a task, a family or an objective of the evidence; documents from before there were accuracies do not say."""
    return told.get("direction", "lower") == "higher"


def unit_of(told: Document) -> str:
    """The unit of a task, a family or an objective of the evidence; empty where it has no name."""
    return told.get("unit", BPB) or ""


def in_unit(value: float | None, unit: str) -> str:
    """A number with its unit behind it."""
    return f"{bpb(value)} {unit}".rstrip()


def objective_unit(settings: Document) -> str:
    """The unit of the objective that an optimization or a launch was asked for."""
    units = {
        ACCURACY if task.get("metric") == "accuracy" else BPB
        for task in settings["tasks"]
        if task["weight"] > 0
    }
    return BPB if not units else units.pop() if len(units) == 1 else ""


def unit_of_metric(name: str, settings: Document) -> str:
    """The unit of a metric of a run by its name: a task, its other metric, or a held-out slice."""
    task, _, series = name.rpartition("/")
    metrics = {one["name"]: one.get("metric", "bpb") for one in settings["tasks"]}
    metric = series if task in metrics else metrics.get(name, "bpb")
    return ACCURACY if metric == "accuracy" else BPB


def minimised(metrics: Mapping[str, float], higher: Iterable[str]) -> dict[str, float]:
    """Measured metrics as the objective averages them: an accuracy as its error rate."""
    turned = set(higher)
    return {name: 1 - value if name in turned else value for name, value in metrics.items()}
