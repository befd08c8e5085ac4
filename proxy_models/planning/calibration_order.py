"""What to calibrate. Free of torch, so that the command line can write it."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy_models.config import DEFAULT_VOCABULARY_SIZE, FLOAT32, ModelConfig, TrainingConfig, size_named


@dataclass(frozen=True)
class CalibrationOrder:
    """Sizes to be measured at one shape of a step, and the directory of the tables."""

    directory: str
    sizes: Sequence[str]
    sequence_length: int = 128
    batch_rows: int = 8
    vocabulary_size: int = DEFAULT_VOCABULARY_SIZE
    device: str = "cpu"
    compiled: bool = True
    threads: int = 1
    precision: str = FLOAT32

    def models(self) -> dict[str, ModelConfig]:
        """By size; raises `UnknownSize`, `InvalidSpec`."""
        return {name: size_named(name, self.vocabulary_size) for name in self.sizes}

    def training(self, tokens: int | None = None) -> TrainingConfig:
        """So many tokens, None: one step's worth; raises `InvalidSpec`."""
        step = self.sequence_length * self.batch_rows
        tokens = step if tokens is None else tokens
        return TrainingConfig(tokens, self.sequence_length, self.batch_rows, precision=self.precision)
