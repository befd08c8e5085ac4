"""What the web processes of one port use of the machine together.

They know of each other from the directory in which prometheus_client keeps what each of them counts.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own variable: with it, counts are kept in files there; read when it is imported."""


def shared_directory() -> Path | None:
    """Where this web process counts together with others; None for the only one."""
    directory = os.environ.get(SHARED_DIRECTORY)
    return Path(directory) if directory else None


class WebProcesses(Collector):
    """CPU time and memory, summed over the processes that live, under the names one process has them by."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering looks at no process."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The families, now."""
        seconds, memory, number = 0.0, 0, 0
        for pid in _living():
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    used = process.cpu_times()
                    memory += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
            seconds += used.user + used.system
            number += 1
        yield GaugeMetricFamily("mixwright_web_processes", "Processes that answer on this port.", number)
        yield CounterMetricFamily("process_cpu_seconds", "CPU time of the web processes that live.", seconds)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Their resident memory, added up.", memory)


def _living() -> set[int]:
    directory = shared_directory()
    # A gauge's file is taken away when its process has ended; `livesum` is the mode of
    # `service.observability.metrics`.
    files = directory.glob("gauge_livesum_*.db") if directory else ()
    return {int(file.stem.rpartition("_")[2]) for file in files}
