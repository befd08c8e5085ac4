"""What a preparation is asked for, and how far it is."""

from dataclasses import dataclass
from pathlib import Path

from proxy_models.errors import InvalidSpec
from proxy_models.stores.object_path import DataPath
from proxy_models.text.held_out import MINIMUM_BYTES
from proxy_models.text.tokenizer import TextTokenizer


@dataclass(frozen=True)
class PreparationSpec:
    """What to prepare.

    ``directory`` is where all shards live. ``held_out_fraction`` must be the same for all domains trained together,
    or a duplicate may be held out in one and trained on in another. ``evaluation_bytes`` is about how much of the
    held-out side is evaluated.
    """

    domain: str
    files: tuple[DataPath, ...]
    tokenizer: TextTokenizer
    directory: Path
    held_out_fraction: float = 0.02
    evaluation_bytes: int = 2**16
    minimum_held_out_bytes: int = MINIMUM_BYTES

    def __post_init__(self) -> None:
        if not 0 < self.held_out_fraction < 1:
            raise InvalidSpec(
                f"held_out_fraction must lie between 0 and 1, not {self.held_out_fraction}",
                "held_out_fraction",
            )


@dataclass(frozen=True)
class PreparationProgress:
    """Bytes of the files read so far, of their total."""

    done: int
    total: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"done": self.done, "total": self.total, "unit": "bytes"}
