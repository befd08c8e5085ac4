"""What a trainer is given: the domains with their weights and files, and what it will draw of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from mixing.errors import InvalidSetting

Unit = Literal["tokens", "rows", "documents", "share of the domain"]
"""What a trainer's weight is a weight of."""


class InvalidExport(InvalidSetting):
    """A mixture a format cannot hold, or that lacks what the format needs; says what would do."""


@dataclass(frozen=True)
class Source:
    """A domain as a trainer sees it.

    Attributes:
        name: what the trainer calls it.
        weight: its share of the tokens, above 0.
        tokens: how many there are; None where it is not known.
        documents: how many there are; None where it is not known.
        paths: its files, in order.
        file_tokens: tokens of each file; empty where they are not known.
    """

    name: str
    weight: float
    tokens: float | None = None
    documents: float | None = None
    paths: tuple[str, ...] = ()
    file_tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Blend:
    """A mixture to be trained on.

    Attributes:
        sources: the domains of a weight above 0; others are left out, since trainers differ in what 0 means to them.
        target_tokens: of the training run; None where nobody said.
        sequence_length: tokens of a row.
        batch_tokens: tokens of a step over all devices, a multiple of the row.
        repetition_cap: most epochs of a domain; None for no cap.
        dtype: of the token files.
        vocabulary: size of the tokenizer's; None where it is not known.
        end_of_text: the token that ends a document; None where it is not known.
        seed: of what the trainer draws.
    """

    sources: tuple[Source, ...]
    target_tokens: int | None = None
    sequence_length: int = 2048
    batch_tokens: int = 2048 * 512
    repetition_cap: float | None = None
    dtype: str = "uint16"
    vocabulary: int | None = None
    end_of_text: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources:
            raise InvalidExport("there is no domain of a weight above 0", field="weights")
        if self.sequence_length < 1 or self.batch_tokens % self.sequence_length:
            raise InvalidExport(
                f"a batch of {self.batch_tokens} tokens is not a whole number of rows of {self.sequence_length}",
                field="batch_tokens",
            )
        if abs(math.fsum(source.weight for source in self.sources) - 1) > _ROUNDING:
            raise InvalidExport("the weights do not sum to 1", field="weights")

    @cached_property
    def rows(self) -> int:
        """Rows of the whole run: those of whole batches, the last one filled."""
        tokens = self.needed("target_tokens")
        return math.ceil(tokens / self.batch_tokens) * (self.batch_tokens // self.sequence_length)

    def needed(self, name: str) -> Any:
        """An attribute a format cannot do without. Raises InvalidExport where nobody said it."""
        value = getattr(self, name)
        if value is None:
            raise InvalidExport(f"this format needs {name}", field=name)
        return value

    def each(self, name: str) -> list[Any]:
        """An attribute of every source. Raises InvalidExport, naming the domains that lack it."""
        values = [getattr(source, name) for source in self.sources]
        lacking = [
            source.name for source, value in zip(self.sources, values, strict=True) if value in (None, ())
        ]
        if lacking:
            raise InvalidExport(
                f"this format needs the {name} of every domain; {', '.join(lacking[:5])} has none",
                field=name,
                names=lacking,
            )
        return values


_ROUNDING = 1e-6


@dataclass(frozen=True)
class Realised:
    """What a trainer draws of a mixture, by its own rounding.

    Attributes:
        format: its name.
        exact: whether the trainer draws exactly this; else it draws at random, and this is what it expects.
        tokens: `{source: tokens drawn}`.
        asked: `{source: weight}`.
        epochs: `{source: how often its text is read}`, of those whose tokens are known.
        checked: how that was checked.
    """

    format: str
    exact: bool
    tokens: Mapping[str, float]
    asked: Mapping[str, float]
    epochs: Mapping[str, float]
    checked: str

    @property
    def shares(self) -> dict[str, float]:
        """`{source: its share of what is drawn}`."""
        total = math.fsum(self.tokens.values())
        return {name: count / total for name, count in self.tokens.items()}

    @property
    def largest_error(self) -> float:
        """Largest difference of a share and its weight."""
        return max(abs(share - self.asked[name]) for name, share in self.shares.items())

    def to_dict(self) -> dict[str, Any]:
        """JSON, a row a domain."""
        shares = self.shares
        return {
            "format": self.format,
            "exact": self.exact,
            "checked": self.checked,
            "largest_error": self.largest_error,
            "domains": [
                {
                    "name": name,
                    "weight": self.asked[name],
                    "realised": shares[name],
                    "error": shares[name] - self.asked[name],
                    "tokens": self.tokens[name],
                    "epochs": self.epochs.get(name),
                }
                for name in self.tokens
            ],
        }


class Format(ABC):
    """How one trainer is told a mixture.

    Attributes:
        name: what it is asked for by.
        title: the trainer, and the version it was held against.
        unit: what its weights weigh.
        checked: how the realised report was checked.
        exact: whether the trainer's draws follow from the file alone.
        enforces_cap: whether the trainer stops at the repetition cap by itself.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[Unit]
    checked: ClassVar[str]
    exact: ClassVar[bool] = True
    enforces_cap: ClassVar[bool] = False

    @abstractmethod
    def files(self, blend: Blend) -> dict[str, str]:
        """`{file name: its content}`. Raises InvalidExport for what the format cannot hold."""

    @abstractmethod
    def tokens(self, blend: Blend) -> Sequence[float]:
        """Tokens the trainer draws of each source, by its own rounding."""

    def realised(self, blend: Blend) -> Realised:
        """What the trainer draws.

        Raises:
            InvalidExport: a domain of which nothing would be drawn, or that would be read more often than its cap.
        """
        drawn = dict(
            zip((source.name for source in blend.sources), map(float, self.tokens(blend)), strict=True)
        )
        known = {source.name: source.tokens for source in blend.sources if source.tokens}
        report = Realised(
            self.name,
            self.exact,
            drawn,
            {source.name: source.weight for source in blend.sources},
            {name: drawn[name] / tokens for name, tokens in known.items()},
            self.checked,
        )
        if nothing := [name for name, count in drawn.items() if count <= 0]:
            raise InvalidExport(
                f"{self.name} would draw nothing of {', '.join(nothing)}: its weight is below what the format can"
                " tell apart at this size",
                field="weights",
                names=nothing,
            )
        _check_caps(blend, report)
        return report


def _check_caps(blend: Blend, report: Realised) -> None:
    if blend.repetition_cap is None or blend.target_tokens is None:
        return
    over = {
        name: epochs
        for name, epochs in report.epochs.items()
        # Rounding to whole batches may read a last row more; a whole batch more is another matter.
        if epochs
        > blend.repetition_cap * (1 + _ROUNDING) + blend.batch_tokens / (report.tokens[name] / epochs)
    }
    if over:
        name = max(over, key=lambda each: over[each])
        raise InvalidExport(
            f"{report.format} would read {name} {over[name]:.2f} times, over its cap of {blend.repetition_cap:g};"
            " solve again with this target, or lower the target",
            field="repetition_cap",
            names=sorted(over),
        )
