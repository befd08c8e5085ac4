"""Answers about workers."""

from typing import Literal

from pydantic import BaseModel, Field

from service.http.schemas import RequestModel, Time


class PauseRequest(RequestModel):
    """Why a worker is to stop; shown to whoever wonders."""

    reason: str | None = Field(default=None, max_length=1000)


class WorkerView(BaseModel):
    """A slot of a worker machine: one job, or one wave of runs, at a time on one device.

    ``state`` is what it does: ``gone`` is one that ended or was not seen for a minute, ``draining`` finishes what it
    has, ``paused`` gave it back.
    """

    id: str
    name: str
    host: str
    device: str
    device_name: str | None
    memory_bytes: int | None
    kinds: list[str] | None = Field(description="The kinds of job it takes; null: any.")
    state: Literal["idle", "busy", "draining", "paused", "gone"]
    reason: str | None
    jobs: int = Field(description="Jobs it holds now: the runs of a wave are several.")
    tokens_per_second: float | None = Field(description="What it last trained at.")
    versions: dict[str, str]
    started_at: Time
    seen_at: Time
