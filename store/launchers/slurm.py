"""Slurm: a batch script, submitted with ``sbatch``, found again by its job name.

    [launchers.cluster]
    kind = "slurm"
    nodes = 2
    processes = 8                    # of the built-in trainer on each; with device = "cuda" as many GPUs
    device = "cuda"
    partition = "train"
    account = "lab"
    time = "2-00:00:00"
    options = ["--qos=high"]         # any further #SBATCH line
    setup = ["module load cuda"]     # lines of the script before it

Without a time limit's or a machine's end the job runs to its own. Slurm itself starts it again where a node failed or
it was preempted (``requeue``); what ran out of time is submitted again and goes on from its checkpoint. With
``workers`` it also has the runs of swarms trained, by an array job (`store.launchers.pool`).
"""

import re
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from pydantic import Field, field_validator

from store.launchers.base import Rendering, Work
from store.launchers.pool import Array, Elements, Pool
from store.launchers.scheduler import (
    ENDED,
    LOG,
    QUEUED,
    RUNNING,
    SCRIPT,
    Refused,
    SchedulerAway,
    Seen,
    Standing,
    submission_directory,
)

_QUEUED: Final = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
_RUNNING: Final = frozenset(
    {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "SUSPENDED", "RESIZING"}
)
_LOST: Final = frozenset({"TIMEOUT", "DEADLINE", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED"})
_AWAY = re.compile(
    "unable to contact|connection refused|timed out|temporarily|communication|protocol authentication",
    re.IGNORECASE,
)
"""What the commands say when the controller does not answer; anything else is its answer."""
_UNKNOWN = re.compile("invalid job id", re.IGNORECASE)
_VALUE = r"^[A-Za-z0-9][A-Za-z0-9_.,:@+-]*$"


class Slurm(Pool):
    """See the module."""

    programs: ClassVar = ("sbatch", "squeue", "scontrol", "scancel")

    kind: Literal["slurm"]
    partition: str | None = Field(default=None, pattern=_VALUE)
    account: str | None = Field(default=None, pattern=_VALUE)
    time: str | None = Field(default=None, pattern=r"^(\d+-)?\d+(:\d+){0,2}$")
    gpus_per_node: int | None = Field(default=None, ge=0, le=64)
    cpus_per_task: int | None = Field(default=None, ge=1, le=4096)
    memory: str | None = Field(default=None, pattern=r"^\d+[KMGT]?$")
    requeue: bool = True
    options: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()

    @field_validator("options")
    @classmethod
    def _of_sbatch(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for option in value:
            if not re.fullmatch(r"--?[A-Za-z][^\n]*", option):
                raise ValueError(f"{option!r} is no option of sbatch on one line")
            if re.match(
                r"--(job-name|output|error|open-mode|comment|array|wrap|chdir|export)\b|-[JoeDa]", option
            ):
                raise ValueError(
                    f"{option!r} is how a submission is found and followed, and not to be chosen"
                )
        return value

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        script = submission_directory(work) / SCRIPT
        files = {**work.files, str(script): self._script(work)}
        return Rendering(("sbatch", "--parsable", str(script)), str(work.directory), self.passed_on, files)

    def _script(self, work: Work) -> str:
        about = {
            "job-name": work.name,
            "comment": work.launch_id,
            "output": work.directory / LOG,
            "open-mode": "append",
            "nodes": self.nodes,
        }
        # A port of the job's own: two jobs may share their first node.
        first = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        meeting = self.meeting('"$SLURM_JOB_ID"', f'"{first}:$((20000 + SLURM_JOB_ID % 20000))"')
        body = self.scripted(work, meeting, '"$SLURM_JOB_ID"')
        return "\n".join(["#!/bin/bash", *self._lines(about, self.gpus), "", *self.setup, body])

    def array(self, array: Array) -> Rendering:
        """See `Pool`."""
        about = {"job-name": array.pool, "array": f"0-{array.count - 1}", "output": "/dev/null", "nodes": 1}
        first, _, rest = self.worker_script(array, "$SLURM_ARRAY_TASK_ID").partition("\n")
        script = "\n".join([first, *self._lines(about, self.node_gpus), "", *self.setup, rest])
        arguments = ("sbatch", "--parsable", str(array.script))
        return Rendering(arguments, str(array.directory), self.passed_on, {str(array.script): script})

    def elements(self, pool: str) -> Elements:
        """See `Pool`."""
        states = self.answer("squeue", "--noheader", "--array", f"--name={pool}", "--format=%T").split()
        return Elements(sum(each in _QUEUED for each in states), states.count("RUNNING"))

    def _lines(self, about: Mapping[str, object], gpus: int) -> list[str]:
        """What sbatch reads at the head of a script."""
        options = {
            **about,
            "partition": self.partition,
            "account": self.account,
            "time": self.time,
            "ntasks-per-node": 1,
            "gpus-per-node": (gpus if self.gpus_per_node is None else self.gpus_per_node) or None,
            "cpus-per-task": self.cpus_per_task,
            "mem": self.memory,
        }
        lines = [f"#SBATCH --{name}={_quoted(value)}" for name, value in options.items() if value is not None]
        lines.append(f"#SBATCH --{'' if self.requeue else 'no-'}requeue")
        return lines + [f"#SBATCH {option}" for option in self.options]

    def line(self, work: Work, meeting: tuple[str, ...]) -> str:
        """See `OnNodes`."""
        line = super().line(work, meeting)
        return line if self.nodes == 1 else f"srun --kill-on-bad-exit=1 {line}"

    def submit(self, rendering: Rendering, name: str) -> str:
        """See `Scheduler`."""
        answer = self.ask(*rendering.arguments)
        if answer.returncode:
            raise _failure(answer.stderr, Refused)
        return answer.stdout.strip().partition(";")[0]  # a federation adds its cluster's name

    def find(self, name: str) -> str | None:
        """See `Scheduler`."""
        answer = self.answer("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%A")
        return min(answer.split(), key=int, default=None)

    def follow(self, seen: Seen) -> Standing | None:
        """See `Scheduler`."""
        answer = self.ask("scontrol", "--oneliner", "show", "job", seen.external_id)
        if answer.returncode:
            if _UNKNOWN.search(answer.stderr):
                return None
            raise SchedulerAway(answer.stderr.strip())
        fields = dict(re.findall(r"(\w+)=(\S*)", answer.stdout))
        if fields.get("JobName") != seen.name:  # a controller that lost its last seconds gives numbers again
            return None
        state, reason = fields["JobState"], fields.get("Reason", "None")
        said = state if reason == "None" else f"{state} ({reason})"
        if state in _QUEUED:
            return Standing(QUEUED, said)
        if state in _RUNNING:
            return Standing(RUNNING, said)
        status, _, signal = fields.get("ExitCode", "0:0").partition(":")
        ended = -int(signal) if int(signal or 0) else int(status)
        return Standing(ENDED, said, ended, lost=state in _LOST, cancelled=state == "CANCELLED")

    def cancel(self, seen: Seen) -> None:
        """See `Scheduler`."""
        answer = self.ask("scancel", f"--name={seen.name}", seen.external_id)
        if answer.returncode and not _UNKNOWN.search(answer.stderr):
            raise SchedulerAway(answer.stderr.strip())


def _quoted(value: object) -> str:
    """As sbatch splits a line: a path may have a blank."""
    text = str(value)
    return f'"{text}"' if " " in text else text


def _failure(message: str, otherwise: type[RuntimeError]) -> RuntimeError:
    kind = SchedulerAway if _AWAY.search(message) else otherwise
    return kind(message.strip() or "sbatch gave no reason")
