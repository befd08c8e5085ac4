"""What torch knows of a device: its name, and its memory.

``python -m proxy_models.torch_device cuda:0 cuda:1`` says why one of them cannot be used, and ends with status 1.
"""

import sys
import time
from collections.abc import Sequence

import torch

from proxy_models.planning.calibration import Device
from proxy_models.planning.memory import available_memory, processor_name, total_memory


def this_device(device: str) -> Device:
    """What rates measured on the device by this process belong to."""
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else processor_name()
    return Device(name, kind, torch.__version__, torch.get_num_threads())


_PRODUCT_SIDE = {"cpu": 768, "cuda": 8192}
_PRODUCTS = 4


def product_flops(device: str, precision: str) -> float:
    """FLOPs a second that the best of a few large products reaches: what nothing trained here gets beyond.

    Of this process's threads and of what else the device does meanwhile; a data sheet's number is higher.
    """
    kind = torch.device(device).type
    side = _PRODUCT_SIDE.get(kind, _PRODUCT_SIDE["cuda"])
    matrix = torch.ones(side, side, device=device, dtype=getattr(torch, precision))
    seconds = []
    with torch.inference_mode():
        for _ in range(_PRODUCTS):
            began = time.perf_counter()
            product = matrix @ matrix
            product[0, 0].item()  # waits for an accelerator
            seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


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


def why_unusable(devices: Sequence[str]) -> str | None:
    """Why this process could not train on one of the accelerators ``devices``; None where it can on all of them."""
    names = ", ".join(devices)
    if not torch.backends.cuda.is_built():
        return (
            f"device {names}: torch {torch.__version__} is built for CPUs alone, install one built for CUDA"
        )
    for device in devices:
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            return f"device {device}: torch cannot use it ({str(error).splitlines()[0]})"
    return None


if __name__ == "__main__":
    complaint = why_unusable(sys.argv[1:])
    if complaint is not None:
        print(complaint)
        sys.exit(1)
