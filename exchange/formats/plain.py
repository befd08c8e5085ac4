"""Weights and nothing else: CSV, JSON, YAML, and the table Olmix writes."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import ClassVar

from exchange.formats.base import Blend, Format, Unit


class _Weights(Format):
    """Weights as they are: whatever reads them decides what is drawn."""

    unit: ClassVar[Unit] = "tokens"
    checked = "read back and compared to the last bit"


class Csv(_Weights):
    """`domain,weight` lines."""

    name = "csv"
    title = "comma-separated values"
    file = "mixture.csv"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        lines = [f"{_quoted(source.name)},{source.weight!r}" for source in blend.sources]
        return {self.file: "\n".join(["domain,weight", *lines, ""])}


class Json(_Weights):
    """One object, `{domain: weight}`."""

    name = "json"
    title = "JSON"
    file = "mixture.json"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        return {self.file: json.dumps({s.name: s.weight for s in blend.sources}, indent=2) + "\n"}


class Yaml(_Weights):
    """One mapping; a small weight is written with a point, which every YAML reader takes for a number."""

    name = "yaml"
    title = "YAML"
    file = "mixture.yaml"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        lines = [f"{json.dumps(source.name)}: {decimal(source.weight)}" for source in blend.sources]
        return {self.file: "\n".join([*lines, ""])}


class Olmix(_Weights):
    """The list Olmix's own fit writes: `[{"domain": ..., "weight": ...}]`."""

    name = "olmix"
    title = "Olmix"
    file = "mixture.json"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        rows = [{"domain": source.name, "weight": source.weight} for source in blend.sources]
        return {self.file: json.dumps(rows, indent=2) + "\n"}


class RegMix(_Weights):
    """The YAML its trainer reads; five digits, as its own files have."""

    name = "regmix"
    title = "RegMix (TinyLlama trainer)"
    file = "mixture.yaml"
    checked = "against its documented schema"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        names = [source.name.removeprefix("train_") for source in blend.sources]
        weights = zip(names, rounded([s.weight for s in blend.sources], 5), strict=True)
        train = [f"  {json.dumps('train_' + name)}: {decimal(weight)}" for name, weight in weights]
        valid = [f"  {json.dumps('valid_' + name)}: 1.0" for name in names]
        return {self.file: "\n".join(["train:", *train, "valid:", *valid, "model_name: tinyllama_1M", ""])}

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        weights = rounded([source.weight for source in blend.sources], 5)
        return [weight * (blend.target_tokens or 1.0) for weight in weights]


def decimal(value: float) -> str:
    """A number without an exponent, which YAML 1.1 reads as text where it has no point (1e-05); exact."""
    return format(Decimal(repr(float(value))), "f")


def rounded(weights: Sequence[float], places: int) -> list[float]:
    """Weights of so many decimals that still sum to 1: what rounding down leaves goes to the largest remainders."""
    whole = 10**places
    counts = apportioned(weights, whole)
    return [count / whole for count in counts]


def apportioned(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers that sum to `total`, nearest to the weights' shares of it (Hamilton's largest remainders)."""
    scale = sum(weights)
    shares = [weight / scale * total for weight in weights]
    counts = [int(share) for share in shares]
    order = sorted(range(len(shares)), key=lambda j: counts[j] - shares[j])
    for j in order[: total - sum(counts)]:
        counts[j] += 1
    return counts


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"' if doubled != name or "," in name or "\n" in name else name
