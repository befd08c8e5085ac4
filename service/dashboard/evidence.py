"""A mixture's evidence as pages read it: typed, and with what older documents do not have left at its default."""

from typing import Any

from pydantic import BaseModel, Field

BPB = "BPB"


class Predicted(BaseModel):
    """What is predicted of a task or of the objective; a gain above zero is better, whatever the unit."""

    unit: str | None = BPB
    direction: str = "lower"
    natural: float
    proposed: float
    gain: float
    gain_interval: tuple[float, float] | None = None
    rank_correlation: float | None = None
    mae: float | None = None

    @property
    def is_certain_loss(self) -> bool:
        """Whether the whole interval of the gain lies below zero."""
        return self.gain_interval is not None and self.gain_interval[1] < 0

    @property
    def is_certain_gain(self) -> bool:
        """Whether it lies above."""
        return self.gain_interval is not None and self.gain_interval[0] > 0


class TaskEvidence(Predicted):
    """One task; without a weight it was measured and is not in the objective."""

    name: str
    weight: float
    noise: float | None = None


class ObjectiveEvidence(Predicted):
    """The objective: its tasks' mean, or the worst family's."""

    confidence: float | None = None
    families: list[dict[str, Any]] | None = None


class DomainEvidence(BaseModel):
    """What the mixture does with a domain; ``cap`` is the weight at which it is read too often."""

    name: str
    tokens: float
    weight: float
    natural: float
    cap: float | None = None
    epochs: float
    natural_epochs: float
    binding: bool = False


class WarningEvidence(BaseModel):
    """What to know before acting on it."""

    code: str
    message: str


class TargetGain(BaseModel):
    """Of the planned run."""

    gain: float
    interval: tuple[float, float]
    probability_better: float


class TargetEvidence(BaseModel):
    """What is predicted of the planned run; ``transfer`` is ``measured`` or ``unknown``."""

    parameters: float
    tokens: float
    transfer: str
    objective: TargetGain


class RegretEvidence(BaseModel):
    """What the best as predicted is expected to give away, in the objective's unit."""

    expected: float


class Evidence(BaseModel):
    """All that decides whether a mixture is used."""

    objective: ObjectiveEvidence | None = None
    tasks: list[TaskEvidence] = Field(default_factory=list)
    domains: list[DomainEvidence] = Field(default_factory=list)
    warnings: list[WarningEvidence] = Field(default_factory=list)
    at_target: TargetEvidence | None = None
    regret: RegretEvidence | None = None
    weight_spread: dict[str, float] | None = None
    runs_used: int = 0
    runs_recommended: int = 0

    def warned(self, code: str) -> str | None:
        """What a warning says; None where it is not given."""
        return next((warning.message for warning in self.warnings if warning.code == code), None)
