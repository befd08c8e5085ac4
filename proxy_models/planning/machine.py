"""This machine's processor and memory, as a process may use them. Free of torch."""

import platform
from pathlib import Path

import psutil

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")


def processor_name() -> str:
    """The processor's own name."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def total_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory in all: the machine's, or its container's where that has a limit."""
    limit = _number(cgroup / "memory.max")
    total = psutil.virtual_memory().total
    return total if limit is None else min(total, limit)


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can be taken now; of a container's limit what is neither used nor given back on demand."""
    available = psutil.virtual_memory().available
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or used is None:
        return available
    return min(available, max(0, limit - used + _inactive_file(cgroup / "memory.stat")))


def _number(path: Path) -> int | None:
    """What a file of the version 2 control groups says; None where there is none, or no limit (``max``)."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_file(path: Path) -> int:
    """Bytes of the page cache that the kernel drops before it refuses anybody memory."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
