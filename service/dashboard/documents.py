"""What the pages read: the documents of the API, made by the same functions."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain_sets.repository import revision_of
from service.domain_sets.views import describe_revision, set_page
from service.http.dependencies import DatabaseDependency, SettingsDependency
from service.http.pagination import page_rows
from service.launches.service import describe_launch, launch_page
from service.mixtures.lineage import describe_lineage
from service.mixtures.service import describe_mixture
from service.optimizations.listing import optimization_page
from service.optimizations.progress import describe
from service.optimizations.repository import optimization_with_id
from service.swarms.service import run_page
from service.training.device import worker_device
from service.workers.service import describe_workers
from store.settings import Settings
from store.tables import WorkerRow

Document = dict[str, Any]

LIST_LENGTH = 25
"""Rows of one page of a list."""
MOST_WORKERS = 100
MOST_LAUNCHES = 50
"""Launches shown with their optimization."""


def _json(view: BaseModel) -> Document:
    return view.model_dump(mode="json")


def _page(found: tuple[Sequence[BaseModel], str | None]) -> Document:
    views, following = found
    return {"items": [_json(view) for view in views], "next": following}


class Documents:
    """One consistent view of the store; every method answers what the API would (NotFound included)."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._settings = settings

    def domain_sets(self, after: str | None) -> Document:
        """A page of domain sets, newest first."""
        return _page(set_page(self._session, after, LIST_LENGTH))

    def revision(self, name: str, number: int | None) -> Document:
        """A revision of a domain set, the latest one when ``number`` is None."""
        return _json(describe_revision(self._session, revision_of(self._session, name, number)))

    def optimizations(self, after: str | None, domain_set: str | None = None) -> Document:
        """A page of optimizations, newest first; of one domain set if it is named."""
        return _page(optimization_page(self._session, after, LIST_LENGTH, domain_set))

    def optimization(self, optimization_id: str) -> Document:
        """An optimization and how far it has come."""
        row = optimization_with_id(self._session, optimization_id)
        return _json(describe(self._session, row, worker_device(self._settings)))

    def mixture(self, mixture_id: str) -> Document:
        """A mixture with its evidence."""
        return _json(describe_mixture(self._session, mixture_id))

    def lineage(self, mixture_id: str) -> Document:
        """Where a mixture comes from."""
        return _json(describe_lineage(self._session, mixture_id))

    def runs(self, swarm_id: str, after: str | None) -> Document:
        """A page of a swarm's runs, in the order they were sampled."""
        return _page(run_page(self._session, swarm_id, after, LIST_LENGTH))

    def workers(self, after: str | None) -> Document:
        """A page of workers, newest first."""
        rows, following = page_rows(self._session, select(WorkerRow), WorkerRow.id, after, MOST_WORKERS)
        return _page((describe_workers(self._session, rows), following))

    def launches(self, optimization_id: str | None = None, after: str | None = None) -> Document:
        """A page of launches, newest first; those of one optimization's mixtures if it is named."""
        limit = LIST_LENGTH if optimization_id is None else MOST_LAUNCHES
        return _page(launch_page(self._session, after, limit, optimization_id))

    def launch(self, launch_id: str) -> Document:
        """A launch, its progress and what was measured on it."""
        return _json(describe_launch(self._session, launch_id))


def open_documents(database: DatabaseDependency, settings: SettingsDependency) -> Iterator[Documents]:
    """FastAPI dependency: documents over one read transaction."""
    with database.read() as session:
        yield Documents(session, settings)


DocumentsDependency = Annotated[Documents, Depends(open_documents)]
