"""``mixwright doctor``: what the installation and the service need, looked at one by one, and what to do about it."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli import data_option, json_option, print_json, settings_with

if TYPE_CHECKING:
    from store.settings import Settings

GOOD, WARNING, BAD = "ok", "warning", "problem"
_NEEDED = ("torch", "transformers", "fastapi", "sqlalchemy", "uvicorn", "numpy", "scipy", "pyarrow")
_ROOMY = 10 * 2**30
_LEAST = 256 * 2**20
"""As `/readyz` has it: below it a checkpoint may not fit."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, what was seen, and what to do where it is not well."""

    what: str
    state: str
    seen: str
    advice: str = ""


@click.command(
    epilog="Example: mixwright doctor --data /srv/mixwright.  Status 1 where something has to be done."
)
@json_option
@data_option
def doctor(as_json: bool, data_directory: Path | None) -> None:
    """Look at the installation, devices, database, broker, stores and disk, and say what to do."""
    settings = settings_with(data_directory=data_directory)
    findings = [finding for look in LOOKS for finding in _looked(look, settings)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            advice = f"\n{'':20}-> {finding.advice}" if finding.advice else ""
            click.echo(f"{finding.state:8} {finding.what:10} {finding.seen}{advice}")
    if any(finding.state == BAD for finding in findings):
        sys.exit(1)


def _looked(look: Callable[["Settings"], Iterator[Finding]], settings: "Settings") -> Iterator[Finding]:
    """What a look finds; a look that fails is a finding itself."""
    try:
        yield from look(settings)
    except Exception as error:
        yield Finding(look.__name__.strip("_"), BAD, f"{type(error).__name__}: {error}"[:300])


def _installation(_: "Settings") -> Iterator[Finding]:
    version = importlib.metadata.version("mixwright")
    yield Finding("package", GOOD, f"mixwright {version}, Python {sys.version.split()[0]}")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        said = f"{', '.join(missing)} cannot be imported"
        yield Finding("packages", BAD, said, "install mixwright again: `make setup`")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _NEEDED if name not in missing]
    yield Finding("packages", GOOD, ", ".join(versions))


def _devices(settings: "Settings") -> Iterator[Finding]:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("processors", GOOD, f"{cpus} CPUs, {settings.slots} slots")
    if not settings.accelerators and shutil.which("nvidia-smi"):
        said, advice = "there is nvidia-smi, and the jobs run on the CPU", "set MIXWRIGHT_DEVICE=cuda"
        yield Finding("devices", WARNING, said, f"{advice}, or serve with --device cuda")
        return
    from store.settings import require_devices

    require_devices(settings.accelerators)
    yield Finding("devices", GOOD, f"jobs run on {settings.device}")
    tables = sorted(settings.calibrations.glob("*.json")) if settings.calibrations.is_dir() else []
    if not tables:
        yield Finding(
            "calibration", WARNING, "no device was measured: costs are unknown", "run `mixwright calibrate`"
        )


def _data(settings: "Settings") -> Iterator[Finding]:
    directory = settings.data_directory
    if not directory.is_dir():
        yield Finding(
            "data", WARNING, f"there is no {directory}", "`mixwright serve` makes it; or name it with --data"
        )
    else:
        yield Finding("data", GOOD, str(directory))
    place = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    state = BAD if free < _LEAST else WARNING if free < _ROOMY else GOOD
    advice = (
        "" if state == GOOD else "shards and checkpoints need room: free some, or move the data directory"
    )
    yield Finding("disk", state, f"{free / 2**30:.1f} GiB free at {place}", advice)
    for root in settings.roots:
        if isinstance(root, Path) and not root.is_dir() and root != settings.roots[-1]:
            yield Finding("data roots", BAD, f"there is no {root}", "correct MIXWRIGHT_DATA_ROOTS")


_ADVICE = {
    "database": "start it and run `mixwright migrate`, or set MIXWRIGHT_DATABASE_URL",
    "broker": "start Redis, or set MIXWRIGHT_BROKER_URL",
    "storage": "let the service's user own it, and free some room",
    "artifact_store": "correct MIXWRIGHT_ARTIFACT_STORE, or what it needs to be reached",
}


def _needs(settings: "Settings") -> Iterator[Finding]:
    """What `/readyz` looks at: database, broker, storage, artifact store."""
    from contextlib import closing

    from sqlalchemy import make_url

    from service.observability.health import Readiness
    from store.engine import Database
    from store.schema import sqlite_file

    url = settings.resolved_database_url
    file = sqlite_file(url)
    if file is not None and not file.exists():
        yield Finding("database", WARNING, f"there is none at {file} yet", "`mixwright serve` makes it")
        return
    where = {"database": make_url(url).render_as_string(hide_password=True), "broker": "", "storage": ""}
    with closing(Database(url)) as database, closing(Readiness(database, settings)) as readiness:
        for name, check in readiness.checks().items():
            seen = f"{where.get(name, settings.artifact_store)} {check.detail}".strip()
            yield Finding(name, GOOD if check.is_good else BAD, seen, "" if check.is_good else _ADVICE[name])


def _launchers(settings: "Settings") -> Iterator[Finding]:
    from store.launchers import BadLaunchers, read_launchers
    from store.launchers.pool import Pool
    from store.launchers.scheduler import Scheduler

    try:
        launchers = read_launchers(settings.launchers)
    except BadLaunchers as error:
        yield Finding("launchers", BAD, str(error), "correct the file that MIXWRIGHT_LAUNCHERS names")
        return
    if not launchers:
        yield Finding("launchers", GOOD, "none beside the built-in trainer")
    for name, launcher in launchers.items():
        missing = [program for program in launcher.needs if shutil.which(program) is None]
        if missing:
            where = "the dispatcher" if isinstance(launcher, Scheduler) else "the workers"
            advice = f"install it here, or see that {where} of another machine have it"
            yield Finding("launchers", WARNING, f"{name}: no {', '.join(missing)} on this machine", advice)
        elif isinstance(launcher, Scheduler) and launcher.hidden(str(settings.data_directory)):
            seen = ", ".join(launcher.seen_places)
            yield Finding("launchers", BAD, f"{name}: its nodes see {seen}", "keep the data directory there")
        elif (
            isinstance(launcher, Pool)
            and launcher.workers
            and settings.resolved_database_url.startswith("sqlite")
        ):
            advice = "use PostgreSQL where its workers run on other machines"
            yield Finding("launchers", WARNING, f"{name}: SQLite is for workers of this machine", advice)
        else:
            yield Finding("launchers", GOOD, name)


def _service(settings: "Settings") -> Iterator[Finding]:
    import httpx

    from service.processes.address import ServiceRecord

    record = ServiceRecord.read(settings.data_directory)
    if record is None:
        yield Finding(
            "service", WARNING, "none runs for this data directory", "start it with `mixwright serve`"
        )
        return
    try:
        answer = httpx.get(f"{record.url}/readyz", timeout=10)
    except httpx.HTTPError as error:
        said = f"{record.url} does not answer ({type(error).__name__})"
        yield Finding("service", BAD, said, "look at its log, and start it again")
        return
    if answer.is_success:
        yield Finding("service", GOOD, f"ready at {record.url}")
    else:
        said = f"{record.url} is not ready: {_said(answer.json())}"
        yield Finding("service", BAD, said, "see the other lines")


def _said(document: Any) -> str:
    return str(document.get("detail", document))[:200] if isinstance(document, dict) else str(document)[:200]


LOOKS = (_installation, _devices, _data, _needs, _launchers, _service)
