"""What a model of some shape consists of and costs. Free of torch; `counting` counts the library's models."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from proxy_models.errors import InvalidSpec


@dataclass(frozen=True)
class Counts:
    """Parameters of a model.

    ``non_embedding_parameters`` are those outside the token embedding and the head; ``active_parameters`` those of
    them that a token passes: of routed experts, as many as the router chooses. ``head_parameters`` are the head's,
    tied or not. ``attention`` is layers times the width of all heads, 0 without attention.
    """

    parameters: int
    non_embedding_parameters: int
    active_parameters: int
    head_parameters: int
    attention: int

    def flops_per_token(self, sequence_length: int) -> int:
        """Training FLOPs per token: 6 per weight passed, the head's included, and 6 L T w for causal attention."""
        weights = self.active_parameters + self.head_parameters
        return 6 * weights + 6 * self.attention * sequence_length


@dataclass(frozen=True)
class CountsByVocabulary:
    """The counts of one architecture over any vocabulary: tables have a row for each token, nothing else grows.

    ``positions`` are the settings, by name, that say how many tokens it can see at once.
    """

    without: Counts
    per_token: Counts
    positions: Mapping[str, int]

    @classmethod
    def through(
        cls, one: tuple[int, Counts], other: tuple[int, Counts], positions: Mapping[str, int]
    ) -> "CountsByVocabulary":
        """From the counts over two vocabularies. Raises ValueError where no whole rows lie between them."""
        (fewer, few), (more, many) = one, other
        per_token, without = {}, {}
        for name, low in asdict(few).items():
            per_token[name], rest = divmod(asdict(many)[name] - low, more - fewer)
            without[name] = low - fewer * per_token[name]
            if rest:
                raise ValueError(f"{name} grows with the vocabulary, but not by whole rows")
        return cls(Counts(**without), Counts(**per_token), positions)

    def over(self, vocabulary_size: int) -> Counts:
        """The counts with that many tokens."""
        return Counts(
            *(
                getattr(self.without, field.name) + vocabulary_size * getattr(self.per_token, field.name)
                for field in fields(Counts)
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "CountsByVocabulary":
        """What `to_dict` gave. Raises KeyError and TypeError where it is something else."""
        return cls(Counts(**content["without"]), Counts(**content["per_token"]), dict(content["positions"]))


def check_positions(positions: Mapping[str, int], sequence_length: int) -> None:
    """Raise `InvalidSpec` where a model that sees so many tokens is to be trained on longer rows."""
    for name, known in positions.items():
        if known < sequence_length:
            raise InvalidSpec(
                f"architecture.{name} is {known}, below the sequence_length of {sequence_length}",
                f"architecture.{name}",
            )
