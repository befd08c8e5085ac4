"""``mixwright calibrate``: the measuring is a child process's, for this one has no torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from proxy_models.config import DEFAULT_VOCABULARY_SIZE, FLOAT32, PRECISIONS
from proxy_models.errors import NotEnoughMemory, ProxyError
from proxy_models.planning.calibration import (
    Calibration,
    CalibrationOrder,
    Device,
    SwarmSize,
    WavePlan,
    choose,
    file_of,
    table_of,
)
from service.cli import complaint_of, data_option, settings_with, table
from store.lifeline import ONE_THREAD

RUNS = 64
"""Of the swarm the table tells the choice for."""
PROXY_TOKENS = 2**19
"""Each of its runs trains; a longer one makes up for more preparation."""


@click.command()
@click.option("--size", "sizes", multiple=True, help="Size of the proxy; several may be named.  [nano-0.1M]")
@click.option("--sequence-length", type=click.IntRange(16, 32_768), default=128, show_default=True)
@click.option("--batch-rows", type=click.IntRange(1, 4096), default=8, show_default=True)
@click.option("--vocabulary-size", type=click.IntRange(1), default=DEFAULT_VOCABULARY_SIZE, show_default=True)
@click.option("--precision", type=click.Choice(PRECISIONS), default=FLOAT32, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1.  [MIXWRIGHT_DEVICE, cpu]")
@click.option(
    "--compiled/--no-compiled",
    default=False,
    show_default=True,
    help="Measure torch.compile too: tens of seconds a size, minutes on a busy machine.",
)
@data_option
def calibrate(sizes: tuple[str, ...], device: str | None, data_directory: Path | None, **shape: Any) -> None:
    """Measure how fast this device trains proxies, for the cost of swarms and the choice of backend."""
    settings = settings_with(device=device, data_directory=data_directory)
    order = CalibrationOrder(
        str(settings.calibrations), sizes or ("nano-0.1M",), device=settings.device, **shape
    )
    with complaint_of(ProxyError):
        order.models()  # an unknown size is refused before anything starts
        measured = _measured(order)
    for size in order.sizes:
        step = order.training().tokens_per_step
        click.echo(f"\n{size}, {order.precision}, steps of {step} tokens, on {measured.device}\n")
        click.echo(_rates(order, size, measured))
        click.echo(_chosen(order, size, measured))
    click.echo(f"Saved in {file_of(settings.calibrations, measured.device)}")


def _measured(order: CalibrationOrder) -> Calibration:
    """What the file of the device holds when the child is done. Raises ProxyError with the child's complaint."""
    device = None
    for line in _lines(order):
        if "problem" in line:
            raise ProxyError(line["problem"])
        if "device" in line:
            device = Device(**line["device"])
        else:
            click.echo(f"{line['size']}: {line['rate']['backend']} x {line['rate']['members']}", err=True)
    found = None if device is None else table_of(Path(order.directory), device)
    if found is None:
        raise ProxyError("the measuring process ended without a result; its message stands above")
    return found


def _lines(order: CalibrationOrder) -> Iterator[dict[str, Any]]:
    """The child's lines as they come. Its standard error is this process's own."""
    command = [sys.executable, "-m", "proxy_models.planning.calibrate", json.dumps(asdict(order))]
    environment = {**os.environ, **ONE_THREAD}  # as workers have it: rates on other threads are other rates
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            child.terminate()


def _rates(order: CalibrationOrder, size: str, calibration: Calibration) -> str:
    rates = calibration.near(order.models()[size], order.training())
    rows = [
        (rate.backend, str(rate.members), f"{rate.tokens_per_second:,.0f}", f"{rate.startup_seconds:.1f} s")
        for rate in sorted(rates, key=lambda rate: (rate.backend, rate.members))
    ]
    return table(("BACKEND", "MODELS", "TOKENS/S", "TO START"), rows)


def _chosen(order: CalibrationOrder, size: str, calibration: Calibration) -> str:
    training = order.training(max(PROXY_TOKENS, order.training().tokens))
    swarm = SwarmSize(order.models()[size], training, RUNS)
    try:
        choice: WavePlan = choose(swarm, calibration)
    except NotEnoughMemory as error:
        return str(error)
    together = f"up to {choice.rate.members} together" if choice.rate.members > 1 else "one at a time"
    return (
        f"For {RUNS} runs of {training.tokens:,} tokens: {choice.rate.backend}, {together}, "
        f"in {len(choice.waves)} waves, {choice.seconds:,.0f} s of worker time.\n"
    )
