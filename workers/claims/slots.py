"""The slots of a machine, each of which does one order at a time on one device, and how they hear that they stop."""

import importlib.metadata
import os
import platform
import select
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from proxy_models.planning.memory import processor_name, total_memory
from store.jobs import PRIORITY, SCHEDULED_RUN, TRAINING
from store.settings import Settings

NOT_TRAINING = tuple(kind for kind in PRIORITY if kind not in (*TRAINING, SCHEDULED_RUN))
_SHOWN = ("mixwright", "torch", "transformers", "numpy")


@dataclass(frozen=True)
class Slot:
    """One order at a time, of these kinds (None: any), on this device."""

    name: str
    device: str
    kinds: tuple[str, ...] | None

    @property
    def full_name(self) -> str:
        """The same after a restart, and on no other machine."""
        return f"{socket.gethostname()}/{self.name}"

    def describe(self) -> dict[str, Any]:
        """What its row says of it and of its process, without loading torch; None where nothing tells."""
        if self.device.startswith("cuda"):
            device_name, memory_bytes = _nvidia(self.device.partition(":")[2] or "0")
        else:
            device_name, memory_bytes = processor_name(), total_memory()
        return {
            "host": socket.gethostname(),
            "device": self.device,
            "device_name": device_name,
            "memory_bytes": memory_bytes,
            "kinds": None if self.kinds is None else list(self.kinds),
            "process": os.getpid(),
            "versions": _versions(),
        }


def slots_of(settings: Settings) -> list[Slot]:
    """The slots of a machine: each accelerator trains and nothing else, the CPUs do everything else."""
    on_cpu = NOT_TRAINING if settings.accelerators else None
    return [
        *(Slot(device, device, TRAINING) for device in settings.accelerators),
        *(Slot(f"cpu-{index}", "cpu", on_cpu) for index in range(settings.slots)),
    ]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _SHOWN:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _nvidia(index: str) -> tuple[str | None, int | None]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", "-i", index]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        name, _, mebibytes = answer.strip().partition(",")
        return name, int(mebibytes) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None, None


class Flag(Protocol):
    """An event of `threading`, or a `SharedFlag` where another process sets it."""

    def is_set(self) -> bool:
        """Whether it was set."""
        ...

    def wait(self, timeout: float) -> bool:
        """Until it is set, ``timeout`` seconds at most; answers whether it is."""
        ...


class SharedFlag:
    """A flag of this process and of all it forks, by a pipe.

    An event of `multiprocessing` counts who waits for it, and setting it waits until all of them have woken: for
    ever, once one of them was killed while it waited. Nobody holds anything here, and a signal handler may set it.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def set(self) -> None:
        """Set it, for good."""
        with suppress(BlockingIOError):  # full of what was written before
            os.write(self._write, b"x")

    def is_set(self) -> bool:
        """See `Flag`."""
        return self.wait(0.0)

    def wait(self, timeout: float) -> bool:
        """See `Flag`."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
