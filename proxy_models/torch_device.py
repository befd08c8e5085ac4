"""What torch knows of a device: its name, and its memory."""

import torch

from proxy_models.planning.calibration import Device
from proxy_models.planning.machine import available_memory, processor_name, total_memory


def this_device(device: str) -> Device:
    """What rates measured on the device by this process belong to."""
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else processor_name()
    return Device(name, kind, torch.__version__, torch.get_num_threads())


def free_memory(device: str) -> int:
    """Bytes that can be taken on the device now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory()


def memory_of(device: str) -> int:
    """Bytes of memory the device has in all."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return total_memory()
