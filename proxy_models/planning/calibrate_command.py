"""``python -m proxy_models.planning.calibrate_command ORDER``: measure, save, and print a line of JSON for each rate.

``ORDER`` is the JSON of a `CalibrationOrder`. What the command line of the service starts, which has no torch.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from proxy_models.backends.registry import available
from proxy_models.errors import ProxyError
from proxy_models.planning.calibrate import calibrate
from proxy_models.planning.calibration import CalibrationOrder, Rate
from proxy_models.planning.calibration_files import save
from proxy_models.torch_device import this_device
from proxy_models.training.step import keep_freed_memory


def main() -> None:
    """Carry out the order; a problem is the last line, ``{"problem": ...}``, and the exit status 1."""
    order = CalibrationOrder(**json.loads(sys.argv[1]))
    try:
        if order.device.startswith("cuda") and not torch.cuda.is_available():
            raise ProxyError("torch finds no GPU here; --device cpu measures the processor", "device")
        carry_out(order)
    except (ProxyError, RuntimeError) as error:  # torch's own complaints about a device are RuntimeErrors
        _say({"problem": str(error)})
        sys.exit(1)


def carry_out(order: CalibrationOrder) -> None:
    """Measure size after size as a worker would train it, on ``order.threads`` threads, and save each."""
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    names = available(order.device, order.compiled)
    _say({"device": asdict(this_device(order.device))})
    for size, model in order.models().items():

        def measured(rate: Rate, size: str = size) -> None:
            _say({"size": size, "rate": asdict(rate)})

        found = calibrate(model, order.training(), order.device, backends=names, measured=measured)
        save(Path(order.directory), found)


def _say(line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
