"""Who trains a launch: the launcher it names, what that would run, and what is heard of it afterwards."""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.errors import MixingError
from proxy_models.stores.object_path import is_address
from service.launches.schemas import LaunchRequest, RenderingView, ReportRequest, SubmissionView
from store.documents import LaunchDocument
from store.launchers import BadLaunchers, read_launchers
from store.launchers.base import BUILT_IN, Commanded, Launcher
from store.launchers.scheduler import ENDED, LOG, Scheduler
from store.launchers.work import exports_of, work_of
from store.problems import Conflict, Invalid, existing, invalid
from store.settings import Settings
from store.tables import Job, Launch, MixtureRow, Run, Submission, database_now


def launcher_of(request: LaunchRequest, settings: Settings) -> Launcher | None:
    """The launcher asked for, None for the built-in trainer as it is.

    Raises Invalid where nobody configured it, or where it is known that it could not do anything.
    """
    if request.launcher == BUILT_IN:
        return None
    try:
        known = read_launchers(settings.launchers)
    except BadLaunchers as error:
        raise Invalid(
            "bad_launchers", "The operator's file of launchers has an error.", "launcher"
        ) from error
    if request.launcher not in known:
        names = ", ".join(map(repr, (BUILT_IN, *sorted(known))))
        raise Invalid("unknown_launcher", f"There is no {request.launcher!r}; there are {names}.", "launcher")
    launcher = known[request.launcher]
    # A team's web process need not have what its dispatcher and its workers have.
    missing = [] if settings.uses_broker else [name for name in launcher.needs if shutil.which(name) is None]
    if missing:
        raise Invalid(
            "launcher_without_program",
            f"{', '.join(missing)} cannot be run here; install what the launcher needs, or correct its table.",
            "launcher",
        )
    check_sight(launcher, {"launcher": str(settings.data_directory)})
    return launcher


def check_sight(launcher: Launcher | None, paths: Mapping[str, str]) -> None:
    """Raise Invalid for the field of a local path that is known not to be on the launcher's nodes."""
    if not isinstance(launcher, Scheduler):
        return
    for field, path in paths.items():
        if path and not is_address(path) and launcher.hidden(path):
            raise Invalid(
                "not_on_nodes",
                f"The launcher's nodes see {', '.join(launcher.seen_places)} and not {path}; keep it there, or have"
                " them see it and say so in the launcher's table.",
                field,
            )


def exported(
    session: Session, launcher: Launcher | None, mixture: MixtureRow, document: LaunchDocument
) -> dict[str, str]:
    """Content by path, below the launch's directory, of the formats that the launcher's command names.

    Raises Invalid for one that cannot hold the mixture, or lacks files, so that a launch does not wait to fail.
    """
    if not isinstance(launcher, Commanded) or not launcher.format_files:
        return {}
    from exchange.formats import export

    files = {}
    for name, known in exports_of(session, launcher, mixture, document).items():
        try:
            made = export(mixture.weights, name, **known)
        except MixingError as error:
            refused = invalid(error, "mixture_id")
            written = "; have its token files written first, or the launcher say a `path`"
            refused.detail = f"As {name}: {refused.detail}{written if error.field == 'paths' else ''}"
            raise refused from error
        files |= {f"{name}/{file}": content for file, content in made.files.items()}
    return files


def rendering_of(
    session: Session,
    launcher: Launcher | None,
    mixture: MixtureRow,
    document: LaunchDocument,
    settings: Settings,
) -> RenderingView | None:
    """Exactly what a launcher would run; None for the built-in trainer, which a worker is."""
    if launcher is None:
        return None
    run = Run(
        id=f"run_{0:024x}",
        launch_id=f"launch_{0:024x}",
        tokens=document.tokens,
        seed=document.seed,
        weights=mixture.weights,
    )
    work = work_of(run, mixture, document, launcher, settings)
    rendering = launcher.render(work)
    beside = exported(session, launcher, mixture, document)
    files = {**rendering.files, **{f"{work.directory}/{path}": text for path, text in beside.items()}}
    return RenderingView.model_validate(replace(rendering, files=files), from_attributes=True)


def submissions_of(session: Session, job_ids: Sequence[str]) -> Mapping[str, list[SubmissionView]]:
    """The submissions of each job that has any, in order."""
    rows = select(Submission).where(Submission.job_id.in_(job_ids)).order_by(Submission.number)
    views: defaultdict[str, list[SubmissionView]] = defaultdict(list)
    for row in session.scalars(rows):
        views[row.job_id].append(SubmissionView.model_validate(row, from_attributes=True))
    return views


def log_of(session: Session, settings: Settings, launch_id: str) -> Path:
    """The file a launch's program, or the processes of its trainer, write to; raises NotFound where there is none."""
    existing(session.get(Launch, launch_id), "launch", launch_id)
    run_id = session.scalars(select(Run.id).where(Run.launch_id == launch_id)).one()
    places = (settings.artifacts / "launches" / launch_id / LOG, settings.artifacts / "runs" / run_id / LOG)
    return existing(next((path for path in places if path.is_file()), None), "log of the launch", launch_id)


def note_report(session: Session, launch_id: str, report: ReportRequest) -> None:
    """Keep what was posted back of a submission; its follower reads it at once.

    Raises NotFound, and Conflict where the submission has ended.
    """
    existing(session.get(Launch, launch_id), "launch", launch_id)
    named = select(Submission).join(Job, Job.id == Submission.job_id)
    named = named.where(Job.owner == launch_id, Submission.name == report.submission)
    row = session.scalars(named.with_for_update(of=Submission)).first()
    submission = existing(row, "submission", report.submission)
    if submission.state == ENDED:
        raise Conflict("already_ended", f"{submission.name} has ended; nothing can be said of it any more.")
    submission.reported = report.model_dump(exclude={"submission"}, exclude_none=True)
    submission.due_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
