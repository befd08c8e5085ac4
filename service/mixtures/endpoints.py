"""``/v1/mixtures``."""

from fastapi import APIRouter, Response

from service.http.idempotency import IdempotentRequest, KeyHeader, do_once
from service.http.routes import ComputeDependency, DatabaseDependency, SettingsDependency, ThreadRoute, slow
from service.http.schemas import After, Limit, Page
from service.mixtures import service
from service.mixtures.lineage import LineageView, lineage_of
from service.mixtures.service import MixtureRequest, MixtureSummary, MixtureView

router = APIRouter(prefix="/v1/mixtures", tags=["mixtures"], route_class=ThreadRoute)


@router.post("", status_code=201, response_model=MixtureView)
def create_mixture(
    body: MixtureRequest, response: Response, database: DatabaseDependency, key: KeyHeader = None
) -> MixtureView:
    """Give a mixture made by hand, to launch it or to compare with."""
    mixture_id = do_once(
        database,
        IdempotentRequest("mixtures", key, body),
        lambda session: service.create_mixture(session, body),
    )
    response.headers["Location"] = f"/v1/mixtures/{mixture_id}"
    return get_mixture(mixture_id, database)


@router.get("")
def list_mixtures(
    database: DatabaseDependency, after: After = None, limit: Limit = 50
) -> Page[MixtureSummary]:
    """Every mixture, newest first."""
    with database.read() as session:
        return service.MIXTURES.page(session, after, limit)


@router.get("/{mixture_id}", response_model=MixtureView)
def get_mixture(mixture_id: str, database: DatabaseDependency) -> MixtureView:
    """One mixture with its weights and its evidence."""
    with database.read() as session:
        return service.describe_mixture(session, mixture_id)


@router.get("/{mixture_id}/lineage", response_model=LineageView)
@slow
def get_lineage(mixture_id: str, settings: SettingsDependency, compute: ComputeDependency) -> LineageView:
    """Where a mixture comes from: revisions, the maps between them, and every run, whether it counted and why."""
    return compute(lineage_of, settings, mixture_id)
