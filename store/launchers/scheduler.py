"""A launcher that hands a launch to somebody else's queue: submit once, find again, follow, cancel, collect.

What becomes of a submission is seen twice. The queue tells its state while it remembers it. What is run tells the
rest in files of its own directory, which the nodes and this machine both see, so that nothing is lost when the queue
has forgotten (Slurm after 300 s):

    <launch>/log                              what it printed, all submissions together
    <launch>/submission-<number>/job.sh       the script that runs it
    <launch>/submission-<number>/started      by whom: the queue's own id. Whoever finds another's there does nothing
    <launch>/submission-<number>/exit_status  written last
"""

import os
import shlex
import subprocess
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from store.launchers.base import Commanded, Launcher, Rendering, Trained, Work

QUEUED: Final = "queued"
RUNNING: Final = "running"
ENDED: Final = "ended"
COMMAND_SECONDS = 60.0
"""How long a command of the scheduler's may take."""
STARTED, STATUS, SCRIPT, LOG = "started", "exit_status", "job.sh", "log"


class SchedulerAway(RuntimeError):
    """The scheduler did not answer: nothing is known, and it is asked again."""


class Refused(RuntimeError):
    """The scheduler will not take it, now or later; the message is its own."""


@dataclass(frozen=True)
class Standing:
    """What the scheduler says of a submission.

    Attributes:
        state: `QUEUED`, `RUNNING` or `ENDED`.
        said: in its own words.
        exit_status: as it knows it.
        lost: whether a machine or the time was taken from it, so that another submission goes on.
        cancelled: whether somebody ended it.
        progress: how far it is, where the scheduler tells that.
    """

    state: str
    said: str = ""
    exit_status: int | None = None
    lost: bool = False
    cancelled: bool = False
    progress: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Seen:
    """A submission by its ``name`` and the scheduler's own id; ``reported`` is what was posted back of it."""

    name: str
    external_id: str
    reported: Mapping[str, Any] | None = None


class Scheduler(Launcher):
    """Whoever takes a launch off our hands; ``poll_seconds`` lie between two looks at a submission."""

    poll_seconds: float = Field(default=10.0, ge=0.1, le=3600.0)

    @property
    def seen_places(self) -> tuple[str, ...]:
        """Directories that the nodes see, by the same path as this machine; none: not known."""
        return ()

    def hidden(self, path: str) -> bool:
        """Whether it is known that the nodes do not see a path of this machine."""
        places = self.seen_places
        return bool(places) and not any(Path(path).is_relative_to(place) for place in places)

    @abstractmethod
    def submit(self, rendering: Rendering, name: str) -> str:
        """Hand it over; answers the scheduler's own id. Raises `Refused`, and `SchedulerAway` where nobody knows."""

    def find(self, name: str) -> str | None:
        """The id of what was submitted by a name, if it was, here the name itself; raises `SchedulerAway`."""
        return None if self.follow(Seen(name, name)) is None else name

    @abstractmethod
    def follow(self, seen: Seen) -> Standing | None:
        """How it is; None where the scheduler does not know it any more. Raises `SchedulerAway`."""

    @abstractmethod
    def cancel(self, seen: Seen) -> None:
        """Have it end; again it changes nothing. Raises `SchedulerAway`."""

    def forget(self, seen: Seen) -> None:
        """Take away what it leaves at the scheduler when it has ended. Raises `SchedulerAway`."""


class OnNodes(Scheduler, Commanded, Trained):
    """A script on nodes: the built-in trainer on ``nodes`` of ``processes`` each, or a ``command``.

    ``python`` is the interpreter on the nodes (this one where it is left out), ``shared`` the directories they see.
    """

    processes: int = Field(default=1, ge=1, le=64)
    nodes: int = Field(default=1, ge=1, le=10_000)
    python: str = ""
    shared: tuple[str, ...] = ()

    @property
    def world_size(self) -> int:
        """See `Launcher`."""
        return self.nodes * self.processes

    @property
    def seen_places(self) -> tuple[str, ...]:
        """See `Scheduler`."""
        return self.shared

    @property
    def gpus(self) -> int:
        """Of each node, for the built-in trainer."""
        return self.processes if self.device == "cuda" and not self.is_program else 0

    def scripted(self, work: Work, meeting: tuple[str, ...], element: str, rank: str = "") -> str:
        """The script a node runs: it says who it is, runs the work, and leaves its exit status.

        ``meeting`` is how torchrun's processes find each other, unquoted, and ``element`` the shell's word for the
        scheduler's id. Where every node runs the script, ``rank`` is its number, and the script writes the log.
        """
        is_program = work.order is None
        line = shlex.join(self.arguments(work.values)) if is_program else self.line(work, meeting)
        head = _ON_EVERY_NODE.format(rank=rank) if rank else ""
        names = {
            "directory": shlex.quote(str(submission_directory(work))),
            "work": shlex.quote(str(work.directory)),
        }
        return _SCRIPT.format(head=head, element=element, line=line, **names)

    def meeting(self, identity: str, endpoint: str) -> tuple[str, ...]:
        """How torchrun's processes find each other: by an id of their own, at the address of the first node."""
        if self.nodes == 1:
            return ("--standalone",)
        rendezvous = f"--rdzv-backend=c10d --rdzv-id={identity}"
        return (f"--nnodes={self.nodes}", rendezvous, f"--rdzv-endpoint={endpoint}")

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the scheduler's with the environment the operator allows; raises `SchedulerAway`."""
        environment = {name: os.environ[name] for name in self.passed_on if name in os.environ}
        seconds = COMMAND_SECONDS
        try:
            return subprocess.run(
                arguments, capture_output=True, text=True, timeout=seconds, env=environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SchedulerAway(f"{arguments[0]}: {error}") from error

    def answer(self, *arguments: str) -> str:
        """What a command prints; raises `SchedulerAway` where it fails."""
        done = self.ask(*arguments)
        if done.returncode:
            raise SchedulerAway(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def line(self, work: Work, meeting: tuple[str, ...]) -> str:
        """The built-in trainer's line for a shell, in which ``meeting`` may have variables."""
        mark = "@MEETING@"
        return shlex.join(self.trainer(work.order_file, (mark,), self.python)).replace(
            mark, " ".join(meeting)
        )


_ON_EVERY_NODE = """\
[ "{rank}" = 0 ] || suffix="-{rank}"
exec >>"log$suffix" 2>&1
"""
_SCRIPT = """\
cd {work} || exit 1
directory={directory} me={element} suffix=
{head}\
# One trains a submission, however often it was handed over: the first that puts its id here, with its restarts.
if ! (set -C; echo "$me" >"$directory/started") 2>/dev/null && [ "$(cat "$directory/started")" != "$me" ]; then
    echo "$me: $(cat "$directory/started") is at it already"
    exit 0
fi
# A queue that lost its last seconds starts again what had ended.
[ "$(cat "$directory/exit_status$suffix" 2>/dev/null)" = 0 ] && exit 0
rm -f "$directory/exit_status$suffix"
{line} &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM INT
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
done
wait "$child" 2>/dev/null  # it may have ended between the two: the shell still knows how
again=$?
case "$again" in 127 | -*) ;; *) status=$again ;; esac
case "$status" in -*) status=143 ;; esac  # bash may say -1 of a wait that two signals interrupted
echo "$status" >"$directory/exit_status$suffix.new"
mv "$directory/exit_status$suffix.new" "$directory/exit_status$suffix"
exit "$status"
"""


def submission_directory(work: Work) -> Path:
    """Of one submission of a launch."""
    return work.directory / f"submission-{work.number}"


def started_by(directory: Path) -> str | None:
    """Who has begun a submission: the scheduler's id; None where nobody has."""
    return _text(directory / STARTED)


def exit_status_in(directory: Path) -> int | None:
    """How a submission ended, by its own word; None where it has not said."""
    text = _text(directory / STATUS)
    return int(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
