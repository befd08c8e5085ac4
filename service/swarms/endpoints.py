"""``/v1/swarms`` and ``/v1/runs``, and the trained model of a run as the files of a Hugging Face folder."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from proxy_models.errors import DataMissing
from proxy_models.export import ExportedFile, exported_model, tar_pieces, tar_size
from proxy_models.stores.local_copies import Hold
from service.domain_sets.repository import revision_of
from service.http.errors import PROBLEM_CONTENT
from service.http.idempotency import IdempotentRequest, Making, do_once
from service.http.limits import check_swarms
from service.http.routes import ComputeDependency, DatabaseDependency, SettingsDependency, ThreadRoute, slow
from service.http.schemas import After, Limit, Page
from service.mixtures.exports import ExportQuery
from service.swarms import results, service
from service.swarms.brought import read_brought, store_swarm
from service.swarms.exports import exported_swarm, tar_of
from service.swarms.results import ReadResults
from service.swarms.schemas import ResultsRequest, ResultsView, SwarmRequest, SwarmView
from service.swarms.service import MetricView, RunSummary, RunView, run_with_id
from store import jobs
from store.documents import LaunchDocument, SwarmDocument
from store.engine import Database
from store.files import store_problems
from store.problems import Conflict
from store.settings import Settings
from store.tables import Launch, Optimization, Revision, Run, Swarm

router = APIRouter(prefix="/v1", tags=["swarms and runs"], route_class=ThreadRoute)
Cursor = Annotated[str | None, Query(max_length=300, description="The `next` of the page before.")]


@router.post("/swarms", status_code=201, response_model=SwarmView)
@slow
def create_swarm(body: SwarmRequest, making: Annotated[Making, Depends()]) -> SwarmView:
    """Bring runs that were sampled and trained elsewhere, to optimize over them."""
    database, settings, user = making.database, making.settings, making.user
    request = IdempotentRequest("swarms", making.key, body)
    with database.read() as session:
        made = request.earlier(session)
        revision = revision_of(session, body.domain_set, body.revision)
        domains = [row.name for row in revision.domains]
    if made is None:
        brought = making.compute(read_brought, settings, body, domains)

        def store(session: Session) -> str:
            check_swarms(session, settings, user)
            return store_swarm(session, session.get_one(Revision, revision.id), body, brought, user.name)

        made = do_once(database, request, store)
    making.response.headers["Location"] = f"/v1/swarms/{made}"
    return get_swarm(made, database)


@router.post("/swarms/{swarm_id}/results", response_model=ResultsView)
@slow
def add_results(
    swarm_id: str,
    body: ResultsRequest,
    database: DatabaseDependency,
    settings: SettingsDependency,
    compute: ComputeDependency,
) -> ResultsView:
    """Results of runs that are trained elsewhere, as they come; sent again they change nothing."""
    read = ReadResults(body.results)
    if body.files:
        with database.read() as session:
            given = results.swarm_of(session, swarm_id)
            names = [name for run, _ in given.runs for name in (run.id, run.name) if name]
            tasks = [] if given.document is None else [task.name for task in given.document.tasks]
        read = compute(results.read_files, settings, body, names, tasks)
    with database.write() as session:
        taken = results.take_results(session, settings, swarm_id, body, read.results)
    return ResultsView(
        swarm=get_swarm(swarm_id, database),
        taken=taken.views,
        unchanged=taken.unchanged,
        left_out=list(read.left_out),
    )


@router.get("/swarms")
def list_swarms(database: DatabaseDependency, after: After = None, limit: Limit = 50) -> Page[SwarmView]:
    """Every swarm, newest first."""
    with database.read() as session:
        return service.SWARMS.page(session, after, limit)


@router.get("/swarms/{swarm_id}", response_model=SwarmView)
def get_swarm(swarm_id: str, database: DatabaseDependency) -> SwarmView:
    """One swarm, its runs counted by state."""
    with database.read() as session:
        return service.describe_swarm(session, swarm_id)


@router.get(
    "/swarms/{swarm_id}/export",
    response_class=Response,
    responses={
        200: {
            "content": {"application/x-tar": {}},
            "description": "A folder `<swarm id>/` of a folder a run.",
        },
        409: {"content": PROBLEM_CONTENT, "description": "Nothing waits for results."},
    },
)
@slow
def export_swarm(
    swarm_id: str,
    database: DatabaseDependency,
    compute: ComputeDependency,
    query: Annotated[ExportQuery, Depends()],
    waiting: Annotated[bool, Query(description="Only runs whose results are not in.")] = False,
) -> Response:
    """A configuration a run for the trainer that trains them elsewhere, and what it will draw of every domain."""
    with database.read() as session:
        swarm = exported_swarm(session, swarm_id, query, waiting)
    return Response(
        compute(tar_of, swarm, query.format),
        media_type="application/x-tar",
        headers={"Content-Disposition": f'attachment; filename="{swarm_id}.tar"'},
    )


@router.get("/runs")
def list_runs(
    database: DatabaseDependency,
    swarm: Annotated[str | None, Query(max_length=64)] = None,
    after: Cursor = None,
    limit: Limit = 50,
) -> Page[RunSummary]:
    """Runs in the order they were sampled, of one swarm if ``swarm`` is given."""
    with database.read() as session:
        return service.run_page(session, swarm, after, limit)


@router.get("/runs/{run_id}", response_model=RunView)
def get_run(run_id: str, database: DatabaseDependency) -> RunView:
    """One run: its mixture, what it really read, and what was measured on it."""
    with database.read() as session:
        return service.describe_run(session, run_id)


@router.get(
    "/runs/{run_id}/model",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/x-tar": {}}, "description": "A folder `<run id>/` of the model."},
        409: {"content": PROBLEM_CONTENT, "description": "The run has not succeeded, or its model is gone."},
        503: {"content": PROBLEM_CONTENT, "description": "The artifact store does not answer."},
    },
)
@slow
def get_model(run_id: str, database: DatabaseDependency, settings: SettingsDependency) -> StreamingResponse:
    """The trained model and its tokenizer as a tar archive of a Hugging Face folder."""
    files = model_files(database, settings, run_id)
    # The pieces come from a plain generator, which is read in a thread: no other request waits for the disk.
    return StreamingResponse(
        tar_pieces(files, run_id),
        media_type="application/x-tar",
        headers={
            "Content-Length": str(tar_size(files, run_id)),
            "Content-Disposition": f'attachment; filename="{run_id}.tar"',
        },
    )


@router.get("/runs/{run_id}/metrics")
def list_metrics(
    run_id: str, database: DatabaseDependency, after: Cursor = None, limit: Limit = 200
) -> Page[MetricView]:
    """Every evaluation kept of a run, in order."""
    with database.read() as session:
        return service.metric_page(session, run_id, after, limit)


def model_files(database: Database, settings: Settings, run_id: str) -> tuple[ExportedFile, ...]:
    """Reads the model's header only; the files are read when they are written or sent.

    They are fetched where they are only in the artifact store, and stay here as long as the answer lives. No session
    is open meanwhile.

    Raises:
        NotFound: no such run.
        Conflict: it has not succeeded, or its files are gone.
        Unavailable: the artifact store does not answer.
    """
    with database.read() as session:
        run, job = run_with_id(session, run_id)
        if job.state != jobs.SUCCEEDED:
            raise Conflict(
                "run_not_succeeded",
                f"Only a run that has succeeded has a model; this one is {job.state}.",
            )
        if job.attempt == 0:
            raise Conflict("trained_elsewhere", "The run was trained elsewhere; its model is there.")
        tokenizer_path, context_length = _trained_on(session, run)
    place = settings.artifacts / "runs" / run_id / "model"
    try:
        with store_problems():
            held, tokenizer = _fetched(settings, place, tokenizer_path)
        files = exported_model(place, tokenizer, context_length)
        return tuple(replace(file, pieces=partial(_pieces, held, file.pieces)) for file in files)
    except DataMissing as error:
        raise Conflict(
            "model_missing", f"The run has succeeded, but its model cannot be read any more: {error}"
        ) from error


def _fetched(settings: Settings, place: Path, tokenizer: str) -> tuple[list[Hold], str]:
    """What must not be cleared away while the model is read, and where the tokenizer lies here."""
    store = settings.store
    if store is None:
        return [], tokenizer
    local = store.local_path(tokenizer)
    held = [store.obtain(path) for path in (place, local) if path is not None]
    return [hold for hold in held if hold is not None], str(local or tokenizer)


def _pieces(held: list[Hold], pieces: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """The pieces of a file; whoever has them has ``held``, so that nobody clears the file away before."""
    assert held is not None
    return pieces()


def _trained_on(session: Session, run: Run) -> tuple[str, int]:
    """The tokenizer of the tokens that the run read, and how many of them it read at once."""
    if run.launch_id is not None:
        launch = session.get_one(Launch, run.launch_id)
        return launch.mixture.revision.tokenizer_path or "", LaunchDocument.of(launch).sequence_length
    swarm = session.get_one(Swarm, run.swarm_id)
    optimization = session.get_one(Optimization, swarm.optimization_id)
    proxy = SwarmDocument.of(optimization).proxy
    assert proxy is not None, "what has runs has a proxy"
    return optimization.revision.tokenizer_path or "", proxy.sequence_length
