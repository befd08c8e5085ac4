"""SkyPilot: a task as YAML, started as a managed job on whatever cloud it finds, and known by its name.

    [launchers.cloud]
    kind = "skypilot"
    nodes = 2
    processes = 8
    device = "cuda"
    resources = { accelerators = "H100:8", use_spot = true }
    setup = "pip install mixwright"
    [launchers.cloud.file_mounts]            # one of them has the data directory, at its own path
    "/srv/mixwright" = { source = "s3://bucket/mixwright", mode = "MOUNT" }

SkyPilot itself starts a job again whose machine was taken away.
"""

import json
from typing import Any, ClassVar, Final, Literal

import yaml
from pydantic import Field

from store.launchers.base import Rendering, Work
from store.launchers.scheduler import ENDED, QUEUED, RUNNING, OnNodes, Seen, Standing, submission_directory

TASK = "task.yaml"
_QUEUED: Final = frozenset({"PENDING", "SUBMITTED", "STARTING", "RECOVERING"})
_RUNNING: Final = frozenset({"RUNNING", "WINDING_DOWN", "CANCELLING"})


class SkyPilot(OnNodes):
    """See the module; ``resources``, ``file_mounts``, ``volumes`` and ``setup`` are the task's own."""

    programs: ClassVar = ("sky",)

    kind: Literal["skypilot"]
    python: str = "python3"
    resources: dict[str, Any] = Field(default_factory=dict)
    file_mounts: dict[str, Any] = Field(default_factory=dict)
    volumes: dict[str, Any] = Field(default_factory=dict)
    variables: dict[str, str] = Field(default_factory=dict)
    setup: str | None = None

    @property
    def seen_places(self) -> tuple[str, ...]:
        """See `Scheduler`."""
        return (*self.file_mounts, *self.volumes) or ("nothing of this machine",)

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        path = submission_directory(work) / TASK
        arguments = ("sky", "jobs", "launch", "--yes", "--detach-run", f"--name={work.name}", str(path))
        files = {**work.files, str(path): yaml.safe_dump(self.task(work), sort_keys=False)}
        return Rendering(arguments, str(work.directory), self.passed_on, files)

    def task(self, work: Work) -> dict[str, Any]:
        """What SkyPilot reads."""
        meeting = self.meeting(work.name, '"$(echo "$SKYPILOT_NODE_IPS" | head -n 1):29500"')
        run = self.scripted(work, meeting, work.name, "$SKYPILOT_NODE_RANK")
        parts = {
            "name": work.name,
            "num_nodes": self.nodes,
            "resources": self.resources,
            "file_mounts": self.file_mounts,
            "volumes": self.volumes,
            "envs": self.variables,
            "setup": self.setup,
            "run": run,
        }
        return {name: value for name, value in parts.items() if value}

    def submit(self, rendering: Rendering, name: str) -> str:
        """See `Scheduler`: what it cannot start is a job that has failed."""
        self.answer(*rendering.arguments)
        return name

    def follow(self, seen: Seen) -> Standing | None:
        """See `Scheduler`."""
        jobs = json.loads(self.answer("sky", "jobs", "queue", "--all", "--output=json") or "[]")
        return next((standing_of(job) for job in jobs if job.get("job_name") == seen.name), None)

    def cancel(self, seen: Seen) -> None:
        """See `Scheduler`."""
        self.answer("sky", "jobs", "cancel", "--yes", f"--name={seen.name}")


def standing_of(job: dict[str, Any]) -> Standing:
    """A managed job as ``sky jobs queue --output=json`` has it."""
    status = str(job["status"]).rpartition(".")[2]
    said = " ".join(str(word) for word in (status, job.get("failure_reason")) if word)
    if status in _QUEUED or status in _RUNNING:
        return Standing(QUEUED if status in _QUEUED else RUNNING, said)
    return Standing(ENDED, said, 0 if status == "SUCCEEDED" else None, cancelled=status == "CANCELLED")
