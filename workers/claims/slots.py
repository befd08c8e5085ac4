"""The slots of a machine: each does one order at a time on one device."""

import importlib.metadata
import os
import platform
import socket
import subprocess
from dataclasses import dataclass, field

import psutil

from store.jobs import TRAINING
from store.settings import Settings
from workers.jobs import KINDS

NOT_TRAINING = tuple(kind for kind in KINDS if kind not in TRAINING)
_SHOWN = ("mixwright", "torch", "transformers", "numpy")


def host_name() -> str:
    """This machine, as the store and the dashboard call it."""
    return socket.gethostname()


@dataclass(frozen=True)
class Slot:
    """One order at a time, of these kinds (None: any), on this device."""

    name: str
    device: str
    kinds: tuple[str, ...] | None

    @property
    def full_name(self) -> str:
        """The same after a restart, and on no other machine."""
        return f"{host_name()}/{self.name}"


def slots_of(settings: Settings) -> list[Slot]:
    """The slots of a machine: each accelerator trains and nothing else, the CPUs do everything else."""
    on_cpu = NOT_TRAINING if settings.accelerators else None
    return [
        *(Slot(device, device, TRAINING) for device in settings.accelerators),
        *(Slot(f"cpu-{index}", "cpu", on_cpu) for index in range(settings.slots)),
    ]


@dataclass(frozen=True)
class Machine:
    """What is known of a slot's device without loading torch."""

    device_name: str | None
    memory_bytes: int | None
    process: int = field(default_factory=os.getpid)
    versions: dict[str, str] = field(default_factory=lambda: _versions())


def machine_of(device: str) -> Machine:
    """Name and memory of the device; None where nothing tells."""
    if device.startswith("cuda"):
        return Machine(*_nvidia(device.partition(":")[2] or "0"))
    return Machine(_processor(), psutil.virtual_memory().total)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _SHOWN:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a kernel file, not a path of ours
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _nvidia(index: str) -> tuple[str | None, int | None]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", "-i", index]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        name, _, mebibytes = answer.strip().partition(",")
        return name, int(mebibytes) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None, None
