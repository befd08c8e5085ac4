"""Kubernetes: an Indexed Job, a pod a node, applied with ``kubectl`` and known by its name.

    [launchers.pods]
    kind = "kubernetes"
    image = "registry.example/train:1"       # with Mixwright in it, for the built-in trainer
    namespace = "train"
    nodes = 2
    processes = 8
    device = "cuda"
    queue = "team"                           # of Kueue, which then starts it
    requests = { cpu = "32", memory = "256Gi" }
    [[launchers.pods.volumes]]               # one of them has the data directory, at its own path
    mount = "/srv/mixwright"
    source = { persistentVolumeClaim = { claimName = "mixwright" } }

Pods find each other by a headless Service of the job's name. What a pod of a node that went away was doing the next
one goes on with, up to ``retries`` times. With ``workers`` it also has the runs of swarms trained
(`store.launchers.pool`).
"""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from store.launchers.base import Rendering, Work
from store.launchers.pool import Array, Elements, Pool
from store.launchers.scheduler import (
    ENDED,
    QUEUED,
    RUNNING,
    SCRIPT,
    Refused,
    SchedulerAway,
    Seen,
    Standing,
    submission_directory,
)

MANIFEST = "job.yaml"
_POOL = "mixwright/pool"
PORT = 29500
_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


class Volume(BaseModel):
    """A volume of the pods; ``source`` is what Kubernetes has beside a volume's name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mount: str = Field(pattern=r"^/[^:]*$")
    source: dict[str, Any] = Field(min_length=1, max_length=1)


class Kubernetes(Pool):
    """See the module. ``pod`` is anything else of the pods' specification, ``variables`` their environment."""

    programs: ClassVar = ("kubectl",)

    kind: Literal["kubernetes"]
    image: str = Field(min_length=1)
    python: str = "python3"
    namespace: str = Field(default="default", pattern=_LABEL)
    context: str | None = None
    queue: str | None = None
    volumes: tuple[Volume, ...] = Field(min_length=1)
    requests: dict[str, str] = Field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    variables: dict[str, str] = Field(default_factory=dict)
    pod: dict[str, Any] = Field(default_factory=dict)
    retries: int = Field(default=6, ge=0, le=1000)
    kept_seconds: int = Field(default=86_400, ge=600)

    @field_validator("pod")
    @classmethod
    def _further(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = {"containers", "volumes", "restartPolicy", "subdomain"} & set(value)
        if taken:
            raise ValueError(f"{', '.join(sorted(taken))} of a pod are written by the service")
        return value

    @property
    def seen_places(self) -> tuple[str, ...]:
        """See `Scheduler`."""
        return tuple(volume.mount for volume in self.volumes)

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        directory = submission_directory(work)
        meeting = self.meeting(work.name, f"{work.name}-0.{work.name}:{PORT}")
        script = self.scripted(work, meeting, work.name, "$JOB_COMPLETION_INDEX")
        files = {
            **work.files,
            str(directory / SCRIPT): f"#!/bin/sh\n{script}",
            str(directory / MANIFEST): yaml.safe_dump_all(self.manifest(work), sort_keys=False),
        }
        return Rendering(self._applied(directory / MANIFEST), str(work.directory), self.passed_on, files)

    def manifest(self, work: Work) -> list[dict[str, Any]]:
        """The headless service that gives each pod its name, and the job."""
        labels = {"app.kubernetes.io/managed-by": "mixwright", "mixwright/launch": work.launch_id}
        metadata = {"name": work.name, "namespace": self.namespace, "labels": labels}
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,  # they meet before they are ready
                "selector": {"batch.kubernetes.io/job-name": work.name},
                "ports": [{"name": "meeting", "port": PORT}],
            },
        }
        script = submission_directory(work) / SCRIPT
        job = self._indexed(metadata, self.nodes, self._pod(script, self.gpus, work.name))
        return [service, job] if self.nodes > 1 else [job]

    def array(self, array: Array) -> Rendering:
        """See `Pool`."""
        labels = {"app.kubernetes.io/managed-by": "mixwright", _POOL: array.pool}
        metadata = {"name": array.name, "namespace": self.namespace, "labels": labels}
        job = self._indexed(metadata, array.count, self._pod(array.script, self.node_gpus))
        manifest = array.directory / MANIFEST
        files = {
            str(array.script): self.worker_script(array, "$JOB_COMPLETION_INDEX"),
            str(manifest): yaml.safe_dump(job, sort_keys=False),
        }
        return Rendering(self._applied(manifest), str(array.directory), self.passed_on, files)

    def elements(self, pool: str) -> Elements:
        """See `Pool`."""
        jobs = self._get("jobs", f"--selector={_POOL}={pool}")
        live = [each for each in jobs["items"] if standing_of(each).state != ENDED]
        running = sum(each.get("status", {}).get("ready", 0) for each in live)
        ended = sum(each.get("status", {}).get("succeeded", 0) for each in live)
        return Elements(sum(each["spec"]["completions"] for each in live) - ended - running, running)

    def _indexed(self, metadata: dict[str, Any], pods: int, pod: dict[str, Any]) -> dict[str, Any]:
        """A Job of so many pods, each of which knows its number."""
        labels = metadata["labels"]
        queued = {} if self.queue is None else {"kueue.x-k8s.io/queue-name": self.queue}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {**metadata, "labels": {**labels, **queued}},
            "spec": {
                **({} if self.queue is None else {"suspend": True}),  # Kueue starts it
                "completionMode": "Indexed",
                "completions": pods,
                "parallelism": pods,
                "backoffLimit": self.retries,
                "ttlSecondsAfterFinished": self.kept_seconds,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }

    def _pod(self, script: Path, gpus: int, subdomain: str = "") -> dict[str, Any]:
        resources = {self.gpu_resource: str(gpus)} if gpus else {}
        return {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": int(self.stop_seconds),
            **({"subdomain": subdomain} if subdomain and self.nodes > 1 else {}),
            **self.pod,
            "containers": [
                {
                    "name": "train",
                    "image": self.image,
                    "command": ["/bin/sh", str(script)],
                    "env": [{"name": name, "value": value} for name, value in self.variables.items()],
                    "resources": {"requests": {**self.requests, **resources}, "limits": resources},
                    "volumeMounts": [
                        {"name": f"volume-{number}", "mountPath": volume.mount}
                        for number, volume in enumerate(self.volumes)
                    ],
                }
            ],
            "volumes": [
                {"name": f"volume-{number}", **volume.source} for number, volume in enumerate(self.volumes)
            ],
        }

    @property
    def _kubectl(self) -> tuple[str, ...]:
        context = () if self.context is None else (f"--context={self.context}",)
        return ("kubectl", *context, f"--namespace={self.namespace}")

    def _applied(self, manifest: Path) -> tuple[str, ...]:
        return (*self._kubectl, "apply", "-f", str(manifest))

    def submit(self, rendering: Rendering, name: str) -> str:
        """See `Scheduler`: what is there already by that name is left as it is."""
        answer = self.ask(*rendering.arguments)
        if answer.returncode == 0:
            return name
        if any(word in answer.stderr for word in ("is invalid", "Forbidden", "strict decoding")):
            raise Refused(answer.stderr.strip())
        raise SchedulerAway(answer.stderr.strip())

    def follow(self, seen: Seen) -> Standing | None:
        """See `Scheduler`."""
        job = self._get("job", seen.name, "--ignore-not-found")
        return None if job is None else standing_of(job)

    def cancel(self, seen: Seen) -> None:
        """See `Scheduler`: the job goes when its pods have gone."""
        self._delete("job", seen.name, "--cascade=foreground")

    def forget(self, seen: Seen) -> None:
        """See `Scheduler`: the job itself goes after ``kept_seconds``."""
        if self.nodes > 1:
            self._delete("service", seen.name)

    def _delete(self, kind: str, name: str, *options: str) -> None:
        self.answer(*self._kubectl, "delete", kind, name, "--ignore-not-found", "--wait=false", *options)

    def _get(self, *what: str) -> Any:
        """What the cluster says of something; None where there is nothing."""
        answer = self.answer(*self._kubectl, "get", *what, "--output=json")
        return json.loads(answer) if answer.strip() else None


def standing_of(job: dict[str, Any]) -> Standing:
    """What the Job of ``batch/v1`` says of itself."""
    status = job.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["status"] != "True":
            continue
        said = f"{condition['type']} {condition.get('reason', '')} {condition.get('message', '')}".strip()
        if condition["type"] == "Complete":
            return Standing(ENDED, said, 0)
        if condition["type"] == "Failed":
            return Standing(ENDED, said)
        if condition["type"] == "Suspended":
            return Standing(QUEUED, said)
    if "deletionTimestamp" in job.get("metadata", {}):
        return Standing(RUNNING, "is being deleted")
    ready, active = status.get("ready", 0), status.get("active", 0)
    return Standing(RUNNING if ready else QUEUED, f"{ready} of {active} pods ready")
