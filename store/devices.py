"""Whether the accelerators a worker is to train on are there, before it says that it is ready."""

import subprocess
import sys
from collections.abc import Sequence


class NoSuchDevice(RuntimeError):
    """A device that torch cannot use on this machine; the message says what to do."""


def require_devices(devices: Sequence[str]) -> None:
    """Raise NoSuchDevice unless torch can use all of them; another process is asked, for this one has no torch."""
    if not devices:
        return
    command = [sys.executable, "-m", "proxy_models.torch_device", *devices]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        complaint = (answer.stdout.strip() or answer.stderr.strip() or "torch cannot be loaded").splitlines()[
            -1
        ]
        raise NoSuchDevice(f"{complaint}; choose another with --device or MIXWRIGHT_DEVICE")
