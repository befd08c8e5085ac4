"""The full training run of a launch, by a program the operator configured (`store.settings`)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from proxy_models.storage import write_json
from store.documents import LaunchDocument
from store.settings import BadLaunchers, Settings, read_launchers
from store.tables import Document, Job, Launch, Run
from workers.claims.failures import JobError

ALLOWED_ENVIRONMENT = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
"""What every program is given of the worker's environment: no setting of ours, so no token and no address."""
TAIL_BYTES = 2000


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The command with its placeholders replaced, and the mixture it is for."""
    launch = session.get_one(Launch, job.owner)
    revision, asked = launch.mixture.revision, LaunchDocument.of(launch)
    try:
        launcher = read_launchers(settings.launchers).get(asked.launcher)
    except BadLaunchers as error:
        raise JobError("bad_launchers", str(error)) from error
    if launcher is None:
        raise JobError(
            "launcher_missing", f"the launcher {asked.launcher!r} is not configured where this worker runs"
        )
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
    return {
        "arguments": launcher.arguments({name: str(value) for name, value in {**about, **paths}.items()}),
        "environment": [*ALLOWED_ENVIRONMENT, *launcher.environment],
        "stop_seconds": launcher.stop_seconds,
        "directory": str(directory),
        "mixture": {**about, "weights": launch.mixture.weights, "domains": domains},
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Write the mixture, run the program to its end, and answer its exit status."""
    directory = Path(spec["directory"])
    write_json(directory / "mixture.json", spec["mixture"])
    environment = {name: os.environ[name] for name in spec["environment"] if name in os.environ}
    order = {**spec, "environment": environment}
    started = time.monotonic()
    runner = subprocess.Popen(
        [sys.executable, "-m", "workers.execution.launcher"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert runner.stdin is not None
    assert runner.stdout is not None
    with runner, runner.stdin as order_pipe:
        order_pipe.write(json.dumps(order) + "\n")
        order_pipe.flush()
        answer = runner.stdout.read()
    tail = _tail(directory / "log")
    if not answer:
        raise JobError("launcher_not_started", f"{spec['arguments'][0]} could not be started")
    status = json.loads(answer)["exit_status"]
    if status != 0:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        raise JobError("launcher_failed", f"{spec['arguments'][0]} {how}; its log ends: {tail}")
    return {"exit_status": status, "seconds": time.monotonic() - started}


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").replace("\0", "").strip()


def store(session: Session, job: Job, result: Document) -> None:
    """Keep the exit status and the time; what the model is worth is measured elsewhere."""
    session.get_one(Run, job.subject).result = result
