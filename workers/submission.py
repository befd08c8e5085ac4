"""One submission of a launch: handed over once, and what came of it, by the scheduler's word and by the disk's."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proxy_models.storage import write_atomically
from proxy_models.training.run_files import FAILURE
from store.documents import LaunchDocument
from store.launchers.base import Work
from store.launchers.scheduler import (
    LOG,
    STARTED,
    Scheduler,
    Standing,
    exit_status_in,
    started_by,
    submission_directory,
)
from store.lifeline import tail
from store.settings import Settings
from store.tables import Document
from workers.claims.failures import WORKER_LOST, Failure
from workers.jobs.external_run import TAIL_BYTES, write_exports
from workers.jobs.training import unchanged_start

CANCELLED = "cancelled"
TRY_AGAIN = 75
"""How the built-in trainer ends that was told to, with a checkpoint (`proxy_models.training.full_run`)."""
RESULT = "result.json"


def handed_over(launcher: Scheduler, work: Work, launch: LaunchDocument, exports: Document) -> str:
    """Hand a submission over unless the scheduler has it already; answers the scheduler's id.

    ``exports`` is what `write_exports` takes. Raises `SchedulerAway`, `Refused`, and what is wrong with the launch.
    """
    directory = submission_directory(work)
    there = started_by(directory) or launcher.find(work.name)
    if there is not None:
        return there
    unchanged_start(launch)
    (work.run_directory / FAILURE).unlink(missing_ok=True)
    if work.order is None:
        write_exports(work.directory, dict(work.mixture), exports)
    rendering = launcher.render(work)
    for path, content in rendering.files.items():
        write_atomically(Path(path), content.encode())
    directory.mkdir(parents=True, exist_ok=True)
    return launcher.submit(rendering, work.name)


def withdrawn(work: Work) -> str | None:
    """See to it that a submission that nobody knows to be handed over never begins; who has begun it, if one has."""
    directory = submission_directory(work)
    directory.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), (directory / STARTED).open("x", encoding="utf-8") as file:
        file.write(CANCELLED)  # what is still on its way finds that another was first, and ends
    begun = started_by(directory)
    return None if begun == CANCELLED else begun


@dataclass(frozen=True)
class Outcome:
    """How a submission ended: a ``result`` to store, or the ``failure``, or neither where it was cancelled."""

    result: Document | None = None
    failure: Failure | None = None
    exit_status: int | None = None


def collected(work: Work, standing: Standing | None, is_cancelled: bool, settings: Settings) -> Outcome:
    """What came of a submission that has ended, or that its scheduler has forgotten (``standing`` None)."""
    status = exit_status_in(submission_directory(work))
    if status is None and standing is not None:
        status = standing.exit_status
    if work.order is not None and (result := _trained(work, settings)) is not None:
        return Outcome(result, exit_status=status)
    if work.order is None and status == 0 and (standing is None or not (standing.lost or standing.cancelled)):
        return Outcome({"exit_status": 0}, exit_status=0)
    if is_cancelled:
        return Outcome(exit_status=status)
    return Outcome(failure=_failure(work, standing, status), exit_status=status)


def _failure(work: Work, standing: Standing | None, status: int | None) -> Failure:
    said = "its scheduler does not know it any more" if standing is None else standing.said
    failure_file = work.run_directory / FAILURE
    if work.order is not None and failure_file.exists():
        return Failure(**json.loads(failure_file.read_bytes()))
    if standing is not None and standing.cancelled:
        return Failure("cancelled_at_scheduler", f"{work.name}: {said}", retryable=False)
    if (standing is None and status is None) or (standing is not None and standing.lost):
        return Failure(WORKER_LOST, f"{work.name}: {said}", retryable=True)
    if work.order is not None and status in (TRY_AGAIN, 128 + 15):
        return Failure(
            WORKER_LOST, f"{work.name} was told to end, and has a checkpoint: {said}", retryable=True
        )
    how = f"ended with status {status}" if status is not None else said
    end = tail(work.directory / LOG, TAIL_BYTES).strip()
    return Failure("launcher_failed", f"{work.name} {how}; its log ends: {end}", False)


def _trained(work: Work, settings: Settings) -> Document | None:
    """The built-in trainer's result, as `workers.jobs.training.store` takes it; None where there is none."""
    path, kept = work.run_directory / RESULT, settings.store
    if kept is not None and not path.exists() and kept.published(path) is not None:
        kept.fetch(path)
    try:
        result = json.loads(path.read_bytes())["result"]
    except FileNotFoundError:
        return None
    if kept is not None:
        result["model_path"] = kept.address_of(work.run_directory / "model")
    return result
