"""``/v1/swarms`` and ``/v1/runs``."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from proxy_models.export.exported_file import tar_pieces, tar_size
from service.http.dependencies import DatabaseDependency, SettingsDependency
from service.http.errors import PROBLEM_CONTENT
from service.http.pagination import After, Limit, Page
from service.http.thread_route import ThreadRoute
from service.swarms import service
from service.swarms.model_files import model_files
from service.swarms.schemas import MetricView, RunSummary, RunView, SwarmView

router = APIRouter(prefix="/v1", tags=["swarms and runs"], route_class=ThreadRoute)
Cursor = Annotated[str | None, Query(max_length=300, description="The `next` of the page before.")]


@router.get("/swarms", response_model=Page[SwarmView])
def list_swarms(database: DatabaseDependency, after: After = None, limit: Limit = 50) -> dict[str, object]:
    """Every swarm, newest first."""
    with database.read() as session:
        views, following = service.swarm_page(session, after, limit)
        return {"items": views, "next": following}


@router.get("/swarms/{swarm_id}", response_model=SwarmView)
def get_swarm(swarm_id: str, database: DatabaseDependency) -> SwarmView:
    """One swarm, its runs counted by state."""
    with database.read() as session:
        return service.describe_swarm(session, swarm_id)


@router.get("/runs", response_model=Page[RunSummary])
def list_runs(
    database: DatabaseDependency,
    swarm: Annotated[str | None, Query(max_length=64)] = None,
    after: Cursor = None,
    limit: Limit = 50,
) -> dict[str, object]:
    """Runs in the order they were sampled, of one swarm if ``swarm`` is given."""
    with database.read() as session:
        views, following = service.run_page(session, swarm, after, limit)
        return {"items": views, "next": following}


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
def get_model(run_id: str, database: DatabaseDependency, settings: SettingsDependency) -> StreamingResponse:
    """The trained model and its tokenizer as a tar archive of a Hugging Face folder."""
    with database.read() as session:
        files = model_files(session, settings, run_id)
    # The pieces come from a plain generator, which is read in a thread: no other request waits for the disk.
    return StreamingResponse(
        tar_pieces(files, run_id),
        media_type="application/x-tar",
        headers={
            "Content-Length": str(tar_size(files, run_id)),
            "Content-Disposition": f'attachment; filename="{run_id}.tar"',
        },
    )


@router.get("/runs/{run_id}/metrics", response_model=Page[MetricView])
def list_metrics(
    run_id: str, database: DatabaseDependency, after: Cursor = None, limit: Limit = 200
) -> dict[str, object]:
    """Every evaluation kept of a run, in order."""
    with database.read() as session:
        views, following = service.metric_page(session, run_id, after, limit)
        return {"items": views, "next": following}
