"""The full training run of a launch, by a program the operator configured (`store.launchers.base`)."""

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
from store.launchers import BadLaunchers, read_launchers
from store.launchers.base import Commanded, Launcher, Program
from store.launchers.scheduler import LOG
from store.launchers.work import exports_of, work_of
from store.lifeline import tail
from store.series import keep_metrics, latest_metrics, measured_names
from store.settings import Settings
from store.tables import Document, Job, Launch, Run
from workers.claims.failures import JobError
from workers.jobs.launch_results import collect

TAIL_BYTES = 2000
POLL_SECONDS = 0.5


Kind = TypeVar("Kind", bound=Launcher)


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
    launch, run = session.get_one(Launch, job.owner), session.get_one(Run, job.subject)
    document = LaunchDocument.of(launch)
    launcher = configured(document.launcher, Program, settings)
    work = work_of(run, launch.mixture, document, launcher, settings)
    rendering = launcher.render(work)
    return {
        "arguments": rendering.arguments,
        "environment": rendering.environment,
        "stop_seconds": launcher.stop_seconds,
        "directory": rendering.directory,
        "mixture": work.mixture,
        "exports": exports_of(session, launcher, launch.mixture, document),
        "results": results_of(launcher, launch, document),
    }


def results_of(launcher: Launcher, launch: Launch, document: LaunchDocument) -> Document:
    """What `workers.jobs.launch_results.collect` has to know."""
    known = {
        "names": list(dict.fromkeys([document.name or launch.id, launch.id])),
        "tasks": measured_names(document, launch.mixture.revision),
    }
    if not isinstance(launcher, Commanded):
        return {**known, "tokens_per_step": 1, "results": [], "metrics": {}}  # it has no directory of ours
    return {
        **known,
        "tokens_per_step": launcher.sequence_length * launcher.batch_rows,
        **launcher.model_dump(include={"results", "metrics"}),
    }


def write_exports(directory: Path, mixture: Document, exports: Document) -> None:
    """The mixture in each format that the command names, in a folder of its name, with what the trainer draws of it.

    ``exports`` is of `store.launchers.work.exports_of`. Raises InvalidExport for a mixture that a format cannot
    hold.
    """
    if not exports:
        return
    from exchange.formats import export, write_files

    for name, known in exports.items():
        made = export(mixture["weights"], name, **known)
        write_files(made.files, directory / name)
        write_json(directory / name / "realised.json", made.realised.to_dict())


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Write the mixture, run the program to its end, and answer its exit status."""
    write_json(Path(spec["directory"]) / "mixture.json", spec["mixture"])
    write_exports(Path(spec["directory"]), spec["mixture"], spec["exports"])
    started = time.monotonic()
    status, tail = run_program(spec)
    if status != 0:
        raise JobError("launcher_failed", ended_badly(spec["arguments"][0], status, tail))
    ended = {"exit_status": status, "seconds": time.monotonic() - started}
    return {**ended, **collect(Path(spec["directory"]), spec["results"])}


def ended_badly(program: str, status: int, tail: str) -> str:
    """A sentence about a program that did not end with status 0."""
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"{program} {how}; its log ends: {tail}"


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
    return json.loads(answer)["exit_status"], tail(directory / LOG, TAIL_BYTES).strip()


def store(session: Session, job: Job, result: Document) -> None:
    """Keep the exit status, the time, and what was measured: by its files, and by what it posted meanwhile."""
    run, launch = session.get_one(Run, job.subject), session.get_one(Launch, job.owner)
    keep_metrics(session, run.id, result.pop("metrics", ()))
    known = measured_names(LaunchDocument.of(launch), launch.mixture.revision)
    curves = {name: one.value for name, one in latest_metrics(session, run.id).items() if name in known}
    posted = (run.result or {}).get("final", {})
    run.result = {**result, "final": {**curves, **result.get("final", {}), **posted}}
