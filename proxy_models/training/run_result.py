"""What a training run tells while it runs and when it is done. Free of torch."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunProgress:
    """Tokens trained of the total, the rate of this process, and the last step's loss (nats per token)."""

    done: int
    total: int
    tokens_per_second: float
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "unit": "tokens"}


@dataclass(frozen=True)
class Metric:
    """What one task measured after ``step`` steps, ``tokens`` tokens: BPB, or an accuracy as a share of 1."""

    step: int
    tokens: int
    task: str
    value: float


@dataclass(frozen=True)
class RunResult:
    """What a run measured.

    ``final`` is each task's metric after the last step, ``further`` the other metric of those with choices,
    ``noise`` the standard deviation of either over its evaluations where it has two or more, ``realised_tokens`` what
    was trained on per domain, ``seconds`` the time spent in all attempts.
    """

    metrics: tuple[Metric, ...]
    final: dict[str, float]
    noise: dict[str, float]
    realised_tokens: dict[str, int]
    tokens: int
    seconds: float
    tokens_per_second: float
    parameters: int
    non_embedding_parameters: int
    peak_memory_bytes: int
    model_path: Path
    further: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "metrics": [asdict(m) for m in self.metrics],
            "model_path": str(self.model_path),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunResult":
        """What `to_dict` gave."""
        metrics = tuple(Metric(**metric) for metric in content["metrics"])
        return cls(**{**content, "metrics": metrics, "model_path": Path(content["model_path"])})
