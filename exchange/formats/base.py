"""What a trainer is given: the domains with their weights and files, and what it will draw of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from mixing.domains import Mixture
from mixing.errors import InvalidSetting

Unit = Literal["tokens", "rows", "documents", "share of the domain"]
"""What a trainer's weight is a weight of."""


class InvalidExport(InvalidSetting):
    """A mixture a format cannot hold, or that lacks what the format needs; says what would do."""


DUST = 1e-9
"""What a search leaves of a domain that is to have nothing: of ten trillion tokens it is ten thousand."""


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
        sources: the domains that weigh more than `DUST`; others are left out, since trainers differ in what 0 means.
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

    @classmethod
    def of(
        cls,
        weights: Mapping[str, float],
        *,
        tokens: Mapping[str, float | None] = MappingProxyType({}),
        documents: Mapping[str, float | None] = MappingProxyType({}),
        path: str = "",
        files: Mapping[str, Sequence[str]] = MappingProxyType({}),
        sequence_length: int = 2048,
        batch_rows: int = 512,
        **run: Any,
    ) -> Self:
        """The mixture of these weights.

        Args:
            weights: `{domain: weight}`, summing to 1; domains of weight 0, or of no more than `DUST`, are left out.
            tokens: `{domain: available tokens}`, of those that are known.
            documents: likewise.
            path: of a domain's files, with `{domain}` in it; empty where the format needs none, or for `files`.
            files: `{domain: its files}`, where they follow no pattern.
            sequence_length: tokens of a row.
            batch_rows: rows of a step over all devices.
            run: what else a blend knows, such as `target_tokens`.

        Raises:
            InvalidWeights: a weight is negative or not finite, or their sum is not 1.
            InvalidExport: counts of what is no domain; a path that would be the same for several domains.
        """
        used = {name: weight for name, weight in Mixture.of(weights).items() if weight > DUST}
        for field, counts in (("tokens", tokens), ("documents", documents)):
            if stray := sorted(counts.keys() - weights.keys()):
                raise InvalidExport(
                    f"{field} are given for {stray[0]!r}, which has no weight", field=field, names=stray
                )
        if path and "{domain}" not in path and len(used) > 1:
            raise InvalidExport(f"the path {path!r} has no {{domain}} in it", field="path")
        total = math.fsum(used.values())
        sources = tuple(
            Source(
                name,
                weight / total,
                tokens.get(name) or None,
                documents.get(name) or None,
                # Not `format`: a template may come from anywhere, and only this one name is meant.
                (path.replace("{domain}", name),) if path else tuple(files.get(name, ())),
            )
            for name, weight in used.items()
        )
        batch_tokens = sequence_length * batch_rows
        return cls(sources, sequence_length=sequence_length, batch_tokens=batch_tokens, **run)

    def __post_init__(self) -> None:
        if not self.sources:
            raise InvalidExport("there is no domain of a weight above 0", field="weights")
        if self.target_tokens is not None and not 1 <= self.target_tokens <= _MOST_TOKENS:
            raise InvalidExport(
                f"a run of {self.target_tokens} tokens is not one of 1 to {_MOST_TOKENS:.0e}",
                field="target_tokens",
            )
        if min(self.sequence_length, self.batch_tokens) < 1 or self.batch_tokens % self.sequence_length:
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
_MOST_TOKENS = 10**15
"""Above it rows are no longer counted exactly by floating-point numbers."""


@dataclass(frozen=True)
class Realised:
    """What a trainer draws of a mixture, by its own rounding.

    Attributes:
        format: its name.
        exact: whether the trainer draws exactly this; else it draws at random, and this is what it expects.
        target_tokens: of the training run; None where nobody said.
        tokens: `{source: tokens drawn}`, of a run of any length where nobody said one.
        asked: `{source: weight}`.
        epochs: `{source: how often its text is read}`, of those whose tokens are known; empty without a target.
        checked: how that was checked.
    """

    format: str
    exact: bool
    target_tokens: int | None
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
            "target_tokens": self.target_tokens,
            "largest_error": self.largest_error,
            "domains": [
                {
                    "name": name,
                    "weight": self.asked[name],
                    "realised": shares[name],
                    "error": shares[name] - self.asked[name],
                    "tokens": None if self.target_tokens is None else self.tokens[name],
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
        file: the name of the file a trainer is pointed at; there may be others beside it.
        unit: what its weights weigh.
        checked: how the realised report was checked.
        exact: whether the trainer's draws follow from the file alone.
        holds_phases: whether one file holds a mixture a phase.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    file: ClassVar[str]
    unit: ClassVar[Unit]
    checked: ClassVar[str]
    exact: ClassVar[bool] = True
    holds_phases: ClassVar[bool] = False

    @abstractmethod
    def files(self, blend: Blend) -> dict[str, str]:
        """`{file name: its content}`. Raises InvalidExport for what the format cannot hold."""

    def schedule(self, phases: Sequence[Blend]) -> dict[str, str]:
        """As `files`, of a mixture a phase: in a folder each, where the format holds one mixture only."""
        return {
            f"phase-{number}/{name}": content
            for number, phase in enumerate(phases)
            for name, content in self.files(phase).items()
        }

    def tokens(self, blend: Blend) -> Sequence[float]:
        """Tokens the trainer draws of each source, by its own rounding; without one, as the weights say."""
        return [source.weight * float(blend.target_tokens or 1.0) for source in blend.sources]

    def realised(self, blend: Blend) -> Realised:
        """What the trainer draws.

        Raises:
            InvalidExport: a domain of which nothing would be drawn, or that would be read more often than its cap.
        """
        drawn = dict(
            zip((source.name for source in blend.sources), map(float, self.tokens(blend)), strict=True)
        )
        has_target = blend.target_tokens is not None
        known = {source.name: source.tokens for source in blend.sources if source.tokens and has_target}
        report = Realised(
            self.name,
            self.exact,
            blend.target_tokens,
            drawn,
            {source.name: source.weight for source in blend.sources},
            {name: drawn[name] / tokens for name, tokens in known.items()},
            self.checked,
        )
        if nothing := [name for name, count in drawn.items() if count <= 0]:
            raise InvalidExport(
                f"{self.name} would draw nothing of {', '.join(nothing)}: its weight is below what the format can"
                f" tell apart at this size. With rows of {blend.sequence_length} tokens that takes a run of about"
                f" {max(blend.sequence_length / report.asked[name] for name in nothing):.1e} tokens; or leave it out",
                field="weights",
                names=nothing,
            )
        check_caps(blend, report)
        return report


def check_caps(blend: Blend, report: Realised) -> None:
    """Raise InvalidExport for a domain that is read more often than the blend's cap, or a batch over it."""
    if blend.repetition_cap is None:
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
