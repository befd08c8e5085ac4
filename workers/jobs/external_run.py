"""The full training run of a launch, by a program the operator configured (`store.settings`)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from sqlalchemy.orm import Session

from proxy_models.storage import write_json
from store.documents import LaunchDocument
from store.settings import BadLaunchers, Program, Settings, Torchrun, read_launchers
from store.tables import Document, Job, Launch, Run
from workers.claims.failures import JobError

ALLOWED_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""What every program is given of the worker's environment: no setting of ours, so no token and no address."""
TAIL_BYTES = 2000
POLL_SECONDS = 0.5


Kind = TypeVar("Kind", Program, Torchrun)


def configured(name: str, kind: type[Kind], settings: Settings) -> Kind:
    """The launcher of this machine's file; raises JobError where there is none of the name and kind."""
    try:
        launcher = read_launchers(settings.launchers).get(name)
    except BadLaunchers as error:
        raise JobError("bad_launchers", str(error)) from error
    if not isinstance(launcher, kind):
        raise JobError(
            "launcher_missing",
            f"the launcher {name!r} is not configured as a {kind.__name__} where this worker runs",
        )
    return launcher


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The command with its placeholders replaced, and the mixture it is for."""
    launch = session.get_one(Launch, job.owner)
    revision, asked = launch.mixture.revision, LaunchDocument.of(launch)
    launcher = configured(asked.launcher, Program, settings)
    directory = settings.artifacts / "launches" / launch.id
    about = {
        "launch_id": launch.id,
        "mixture_id": launch.mixture_id,
        "name": asked.name or launch.id,
        "target_tokens": asked.tokens,
        "seed": asked.seed,
        "domain_set": revision.domain_set.name,
        "revision": revision.number,
    }
    domains = {
        row.name: {
            "weight": launch.mixture.weights[row.name],
            "tokens": row.tokens,
            "files": row.files,
            **({"reading": row.reading} if row.reading else {}),
        }
        for row in revision.domains
    }
    paths = {"directory": str(directory), "mixture_file": str(directory / "mixture.json")}
    if launcher.formats:
        from exchange.formats import format_named

        for placeholder, name in launcher.formats.items():
            paths[placeholder] = str(directory / name / format_named(name).file)
    return {
        "arguments": launcher.arguments({name: str(value) for name, value in {**about, **paths}.items()}),
        "environment": [*ALLOWED_ENVIRONMENT, *launcher.environment],
        "stop_seconds": launcher.stop_seconds,
        "directory": str(directory),
        "mixture": {**about, "weights": launch.mixture.weights, "domains": domains},
        "exports": {
            "formats": list(launcher.formats.values()),
            "repetition_cap": asked.repetition_cap,
            "documents": {row.name: row.documents_of_tokens for row in revision.domains},
            **launcher.model_dump(include={"path", "sequence_length", "batch_rows"}),
        },
    }


def write_exports(directory: Path, mixture: Document, asked: Document) -> None:
    """The mixture in each format that the command names, in a folder of its name, with what the trainer draws of it.

    Raises InvalidExport for a mixture that a format cannot hold.
    """
    if not asked["formats"]:
        return
    from exchange.formats import export, write_files

    domains = mixture["domains"]
    run = {name: value for name, value in asked.items() if name != "formats"}
    for name in asked["formats"]:
        made = export(
            mixture["weights"],
            name,
            tokens={domain: known["tokens"] for domain, known in domains.items()},
            files={domain: known["files"] for domain, known in domains.items()},
            target_tokens=mixture["target_tokens"],
            seed=mixture["seed"],
            **run,
        )
        write_files(made.files, directory / name)
        write_json(directory / name / "realised.json", made.realised.to_dict())


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Write the mixture, run the program to its end, and answer its exit status."""
    write_json(Path(spec["directory"]) / "mixture.json", spec["mixture"])
    write_exports(Path(spec["directory"]), spec["mixture"], spec["exports"])
    started = time.monotonic()
    status, tail = run_program(spec)
    if status != 0:
        raise JobError("launcher_failed", ended_badly(spec, status, tail))
    return {"exit_status": status, "seconds": time.monotonic() - started}


def ended_badly(spec: Document, status: int, tail: str) -> str:
    """A sentence about a program that did not end with status 0."""
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"{spec['arguments'][0]} {how}; its log ends: {tail}"


def run_program(spec: Document, leave: Callable[[], bool] = lambda: False) -> tuple[int, str]:
    """Run the ``arguments`` in the ``directory`` to their end; answers the exit status and the end of the log.

    Of this process's environment they get what the ``environment`` names. ``leave`` is asked `POLL_SECONDS` apart;
    where it says yes the program is told to end, and has ``stop_seconds`` for that. Raises JobError where it cannot
    be started.
    """
    directory = Path(spec["directory"])
    environment = {name: os.environ[name] for name in spec["environment"] if name in os.environ}
    order = {name: spec[name] for name in ("arguments", "directory", "stop_seconds")}
    runner = subprocess.Popen(
        [sys.executable, "-m", "workers.execution.launcher"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert runner.stdin is not None
    assert runner.stdout is not None
    with runner:
        runner.stdin.write(json.dumps({**order, "environment": environment}) + "\n")
        runner.stdin.flush()
        while runner.poll() is None:
            if leave():
                break
            with suppress(subprocess.TimeoutExpired):
                runner.wait(POLL_SECONDS)
        runner.stdin.close()  # its lifeline
        answer = runner.stdout.read()
    if not answer:
        raise JobError("launcher_not_started", f"{spec['arguments'][0]} could not be started")
    return json.loads(answer)["exit_status"], _tail(directory / "log")


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").replace("\0", "").strip()


def store(session: Session, job: Job, result: Document) -> None:
    """Keep the exit status and the time; what the model is worth is measured elsewhere."""
    session.get_one(Run, job.subject).result = result
