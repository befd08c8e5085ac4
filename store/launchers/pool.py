"""Workers as an array job, for who has no machines that stand by: they come while jobs wait, and go when none does.

    [launchers.cluster]
    kind = "slurm"                   # or "kubernetes"
    workers = 32                     # at most so many at once, each a node of `processes` devices
    idle_seconds = 120               # one that finds nothing to do for so long ends

Each element is ``python -m workers.supervisor --pool NAME``: it claims rows of the store as every worker does,
renews its leases, and gives its jobs back when it is told to end. So an element more or less, one that is killed, or
an array handed over twice costs nobody a run, and nothing is stored about arrays: the scheduler is asked.
"""

import shlex
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from store.launchers.base import Rendering
from store.launchers.scheduler import SCRIPT, OnNodes

SETTINGS = "settings.env"
"""With the store's address, which may have a password: nobody else may read it."""
_SCRIPT = """\
#!/bin/sh
cd {directory} || exit 1
exec >>"log-{index}" 2>&1 </dev/null
set -a
. ./{settings}
set +a
exec {python} -m workers.supervisor --pool {name}-"{index}" --idle-seconds {idle_seconds}
"""


@dataclass(frozen=True)
class Elements:
    """Of a pool's array jobs: elements that wait for a machine, and those that run."""

    waiting: int
    running: int


@dataclass(frozen=True)
class Array:
    """An array job of so many elements for a ``pool``; ``directory`` has its script, its settings and its logs."""

    pool: str
    name: str
    directory: Path
    count: int

    @property
    def script(self) -> Path:
        """What each element runs."""
        return self.directory / SCRIPT


class Pool(OnNodes):
    """A scheduler that may also be asked for workers; see the module."""

    workers: int = Field(default=0, ge=0, le=10_000)
    idle_seconds: float = Field(default=120.0, ge=1.0, le=86_400.0)

    @abstractmethod
    def array(self, array: Array) -> Rendering:
        """What hands an array job over."""

    @abstractmethod
    def elements(self, pool: str) -> Elements:
        """How many elements of a pool's arrays the scheduler has. Raises `SchedulerAway`."""

    @property
    def node_gpus(self) -> int:
        """Of a worker's node."""
        return self.processes if self.device == "cuda" else 0

    def settings_of_worker(self, settings: Mapping[str, str]) -> str:
        """The service's own settings with a worker's devices, as a shell reads them."""
        gpus = ",".join(f"cuda:{number}" for number in range(self.node_gpus))
        slots = 1 if gpus else self.processes
        values = {**settings, "MIXWRIGHT_DEVICE": gpus or "cpu", "MIXWRIGHT_SLOTS": str(slots)}
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(values.items()))

    def worker_script(self, array: Array, index: str) -> str:
        """What an element runs; ``index`` is the shell's word for its number."""
        return _SCRIPT.format(
            directory=shlex.quote(str(array.directory)),
            settings=SETTINGS,
            python=shlex.quote(self.python or sys.executable),
            name=array.name,
            index=index,
            idle_seconds=self.idle_seconds,
        )
