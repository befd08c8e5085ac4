"""Launches: checked, stored, described and stopped."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from mixing.document import to_document
from proxy_models.families.start import StartFolder
from service.domain_sets.repository import counted_text, has_many_domains, require_usable
from service.http.limits import check_device_hours
from service.http.schemas import Listing
from service.launches.launchers import check_sight, exported, launcher_of, rendering_of, submissions_of
from service.launches.schemas import LaunchPlanView, LaunchRequest, LaunchView, ReadView
from service.launches.warnings import launch_warnings
from service.mixtures.service import check_repetition, mixture_with_id
from service.optimizations.cost import AskedSwarm, cost_view
from service.optimizations.schemas import TrainingRequest
from service.swarms.service import training_view
from service.tokens import Principal
from service.training.checks import (
    check_rows,
    check_tasks,
    check_tasks_elsewhere,
    check_training,
    check_vocabulary,
    require_corpus,
)
from service.training.device import WorkerDevice, check_memory, check_shared_memory
from store import jobs
from store.documents import (
    VERSION,
    EngineDocument,
    KeepingDocument,
    LaunchDocument,
    Measurements,
    SwarmDocument,
    TrainingDocument,
)
from store.launchers.base import BUILT_IN, Launcher, Trained
from store.launchers.callbacks import call_back, may_be_told
from store.launchers.scheduler import Scheduler
from store.problems import Conflict, Invalid, existing
from store.settings import Settings
from store.tables import Job, Launch, MixtureRow, Optimization, Run


@dataclass(frozen=True, slots=True)
class CheckedLaunch:
    """A launch in which everything that does not need the store was found to be good."""

    mixture_id: str
    document: LaunchDocument
    start: StartFolder | None = None
    launcher: Launcher | None = None


def check_launches(request: LaunchRequest, settings: Settings) -> list[CheckedLaunch]:
    """One, or one a budget; raises Invalid naming the field."""
    checked = []
    for field, one in request.each:
        try:
            checked.append(check_launch(one, settings))
        except Invalid as error:
            raise _of_budget(error, field) from error
    return checked


def _of_budget(error: Invalid, field: str) -> Invalid:
    return Invalid(error.code, error.detail, field) if error.field == "tokens" else error


def check_launch(request: LaunchRequest, settings: Settings) -> CheckedLaunch:
    """Validate size, training settings and task files. Raises Invalid naming the field."""
    named = request.model_dump(include={"launcher", "name", "seed", "callback"})
    assert request.tokens is not None, "there is one a launch"
    _check_callback(request, settings)
    launcher = launcher_of(request, settings)
    if launcher is not None and launcher.is_program:
        _check_program(request)
        training = TrainingDocument(tokens=request.tokens, repetition_cap=request.repetition_cap)
        tasks = check_tasks_elsewhere(request.tasks) if request.tasks else ()
        document = LaunchDocument(version=VERSION, **vars(training), **named, tasks=tasks)
        return CheckedLaunch(request.mixture_id, document, launcher=launcher)
    if request.size is None and request.architecture is None and request.start is None:
        raise Invalid("no_model", "Say what to train: a size, an architecture or a start.", "size")
    training, start = check_training(request, request.tokens, "", settings)
    engine = _check_engine(request, launcher)
    tasks = check_tasks(request.tasks, settings)
    paths = {f"tasks.{number}.path": task.path for number, task in enumerate(tasks)}
    check_sight(launcher, {**paths, "start": training.start or ""})
    keeping = None if request.keeping is None else KeepingDocument(**request.keeping.model_dump())
    document = LaunchDocument(
        version=VERSION, **vars(training), **named, engine=engine, keeping=keeping, tasks=tasks
    )
    return CheckedLaunch(request.mixture_id, document, start, launcher)


def _check_callback(request: LaunchRequest, settings: Settings) -> None:
    """Raise Invalid for an address the operator does not allow: nothing is sent wherever a request says."""
    if request.callback is None or may_be_told(request.callback, settings):
        return
    allowed = ", ".join(settings.callback_addresses) or "none; the operator sets MIXWRIGHT_CALLBACK_ORIGINS"
    raise Invalid(
        "callback_not_allowed",
        f"{request.callback!r} is of no origin that may be told: {allowed}.",
        "callback",
    )


_BUILT_IN_ONLY = (*TrainingRequest.model_fields, "engine", "keeping")


def _check_engine(request: LaunchRequest, launcher: Launcher | None) -> EngineDocument | None:
    """The engine as stored; raises Invalid where the batch cannot be dealt to the processes, or in pieces."""
    processes = 1 if launcher is None else launcher.world_size
    rows, left = divmod(request.batch_rows, processes)
    if left:
        raise Invalid(
            "batch_not_shared",
            f"{request.launcher!r} has {processes} processes, which cannot share batches of {request.batch_rows} rows"
            f" evenly; {max(1, rows) * processes} or {(rows + 1) * processes} they can.",
            "batch_rows",
        )
    if request.engine is None:
        return None if launcher is None else EngineDocument()
    piece = request.engine.micro_batch_rows
    if piece is not None and rows % piece:
        raise Invalid(
            "batch_not_shared",
            f"Pieces of {piece} rows do not divide the {rows} rows of each process.",
            "engine.micro_batch_rows",
        )
    return EngineDocument(**request.engine.model_dump())


def _check_program(request: LaunchRequest) -> None:
    """Raise Invalid for what only the built-in trainer has a use for."""
    for name in _BUILT_IN_ONLY:
        if name in request.model_fields_set:
            raise Invalid("not_built_in", f"A launcher has no use for {name!r}; leave it out.", name)


def fitting_launch(
    session: Session, checked: CheckedLaunch, device: WorkerDevice
) -> tuple[MixtureRow, LaunchDocument]:
    """The mixture and the settings of a launch that can be done.

    Raises a Problem: NotFound, NotReady, or Invalid for what does not fit the mixture or the workers' memory.
    """
    document, mixture = checked.document, mixture_with_id(session, checked.mixture_id)
    require_usable(session, mixture.revision)
    check_vocabulary(checked.start, mixture.revision.vocabulary_size, "start")
    # The sampler checks again, by counted rows, before its first step.
    check_repetition(mixture, document.tokens, document.repetition_cap)
    if not document.is_program:
        require_corpus(mixture.revision, "mixture_id")
        check_rows(document, sum(weight > 0 for weight in mixture.weights.values()), "")
    if document.launcher == BUILT_IN:
        check_memory(device, mixture.revision, document, "")
    elif isinstance(checked.launcher, Trained) and not document.is_program:
        check_shared_memory(device, mixture.revision, document, checked.launcher)
    if not document.tasks and mixture.optimization_id is not None:
        asked = SwarmDocument.of(session.get_one(Optimization, mixture.optimization_id))
        here = tuple(task for task in asked.tasks if task.path or document.is_program)
        document = replace(document, tasks=here, aggregate=asked.aggregate)
    exported(session, checked.launcher, mixture, document)
    return mixture, replace(document, warnings=tuple(launch_warnings(mixture, document)))


def plan_launch(
    session: Session, checked: CheckedLaunch, device: WorkerDevice, settings: Settings
) -> LaunchPlanView:
    """What the launch would read of each domain, and exactly what would be run; raises as `fitting_launch`."""
    mixture, document = fitting_launch(session, checked, device)
    rows = []
    for row in mixture.revision.domains:
        read = mixture.weights[row.name] * document.tokens
        rows.append(
            ReadView(
                name=row.name,
                weight=mixture.weights[row.name],
                available_tokens=row.tokens,
                tokens=read,
                epochs=read / row.tokens if row.tokens else None,
            )
        )
    return LaunchPlanView(
        mixture_id=mixture.id,
        mixture_kind=mixture.kind,
        launcher=document.launcher,
        tokens=document.tokens,
        settings=to_document(document),
        device_hours=_device_hours(session, mixture, document, device),
        warnings=list(document.warnings),
        domains=rows,
        run=rendering_of(session, checked.launcher, mixture, document, settings),
    )


def _device_hours(
    session: Session, mixture: MixtureRow, document: LaunchDocument, device: WorkerDevice
) -> float | None:
    """The estimate, on however many devices; None where nobody knows, as of a program of the operator's."""
    if document.is_program:
        return None
    text, tokens = counted_text(session, mixture.revision), document.whole_steps(document.tokens)
    cost = cost_view(AskedSwarm(mixture.revision, text, document, document.tasks, 1, tokens), device)
    return None if cost is None else cost.device_hours


def store_launches(
    session: Session,
    checked: Sequence[CheckedLaunch],
    device: WorkerDevice,
    settings: Settings,
    user: Principal,
) -> str:
    """Store launches that a user asked for together, each with its run and job; answers the first one's id.

    Raises as `fitting_launch`, and TooManyRequests where more device-hours would be under way than a user may have.
    """
    first: str | None = None
    for one in checked:
        mixture, document = fitting_launch(session, one, device)
        hours = _device_hours(session, mixture, document, device) or 0.0
        check_device_hours(session, settings, user, hours)
        launch = Launch(mixture_id=mixture.id, settings=to_document(document), device_hours=hours)
        session.add(launch)
        session.flush()
        first = first or launch.id
        if len(checked) > 1:
            launch.settings = to_document(replace(document, series=first))
        _queue(session, launch, mixture, _kind(one), user.name)
    assert first is not None, "there is one at least"
    return first


def _queue(session: Session, launch: Launch, mixture: MixtureRow, kind: str, user: str) -> None:
    document = LaunchDocument.of(launch)
    run = Run(
        launch_id=launch.id,
        position=0,
        tokens=document.tokens,
        seed=document.seed,
        weights=mixture.weights,
    )
    session.add(run)
    session.flush()
    session.add(jobs.new_job(kind, run.id, launch.id, user=user))


def _kind(checked: CheckedLaunch) -> str:
    if isinstance(checked.launcher, Scheduler):
        return jobs.SCHEDULED_RUN
    return jobs.EXTERNAL_RUN if checked.document.is_program else jobs.FULL_RUN


_QUERY = (
    select(
        Launch.id,
        Job.id.label("job_id"),
        Launch.mixture_id,
        MixtureRow.kind.label("mixture_kind"),
        MixtureRow.optimization_id,
        Run.id.label("run_id"),
        Job.state,
        Launch.settings,
        Job.progress,
        Run.result,
        Job.failure_code,
        Job.failure_detail,
        Launch.created_at,
    )
    .join(MixtureRow, MixtureRow.id == Launch.mixture_id)
    .join(Run, Run.launch_id == Launch.id)
    .join(Job, jobs.of_run())
)
_ONE = _QUERY.where(Launch.id == bindparam("id"))
_SERIES = _QUERY.where(Launch.settings["series"].as_string() == bindparam("series")).order_by(Launch.id)


def is_wide(session: Session, launch_id: str) -> bool:
    """Whether its mixture is over very many domains; not where there is no such launch."""
    mixture = select(Launch.mixture_id).where(Launch.id == launch_id).scalar_subquery()
    revision = select(MixtureRow.revision_id).where(MixtureRow.id == mixture)
    return has_many_domains(session, revision.scalar_subquery())


def describe_launch(session: Session, launch_id: str) -> LaunchView:
    """The launch with its run's state and measurements; raises NotFound."""
    row = existing(session.execute(_ONE, {"id": launch_id}).first(), "launch", launch_id)
    return _views(session, [row])[0]


def describe_series(session: Session, first: str) -> list[LaunchView]:
    """The launches that were asked for together, the first of them first."""
    return _views(session, session.execute(_SERIES, {"series": first}).all())


def _views(session: Session, rows: Sequence[Any]) -> list[LaunchView]:
    submissions = submissions_of(session, [row.job_id for row in rows])
    return [
        training_view(
            LaunchView,
            row,
            Measurements.of(row.result),
            warnings=row.settings.get("warnings", []),
            submissions=submissions.get(row.job_id, []),
            log=f"/v1/launches/{row.id}/log",
        )
        for row in rows
    ]


LAUNCHES = Listing(_QUERY, Launch.id, _views, MixtureRow.optimization_id == bindparam("optimization"))


def stop_launch(session: Session, launch_id: str) -> Launch:
    """Stop the launch's run at its next heartbeat."""
    launch = existing(session.get(Launch, launch_id), "launch", launch_id)
    _require_state(session, launch, jobs.LIVE, "already_ended", "Only a launch under way can be cancelled")
    jobs.cancel_jobs(session, launch.id)
    job = session.scalars(select(Job).where(Job.owner == launch.id)).one()
    session.refresh(job)
    if job.state == jobs.CANCELLED:  # nobody had it; otherwise whoever has tells of its end
        call_back(session, launch, job.user_name)
    return launch


def restart_launch(session: Session, launch_id: str, settings: Settings, user: Principal) -> Launch:
    """Go on with a failed or cancelled launch, from its last checkpoint; from now on as the user's who asks for that.

    Raises TooManyRequests where more device-hours would be under way than they may have.
    """
    launch = existing(session.get(Launch, launch_id), "launch", launch_id)
    ended_badly = (jobs.FAILED, jobs.CANCELLED)
    _require_state(session, launch, ended_badly, "not_ended", "Only a failed or cancelled launch is retried")
    check_device_hours(session, settings, user, launch.device_hours)
    jobs.requeue_jobs(session, launch.id, user=user.name)
    return launch


def _require_state(
    session: Session, launch: Launch, states: tuple[str, ...], code: str, sentence: str
) -> None:
    state = session.scalars(select(Job.state).where(Job.owner == launch.id)).one()
    if state not in states:
        raise Conflict(code, f"{sentence}; this one is {state}.")
