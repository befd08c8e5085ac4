"""What the pages read: the documents of the API, made by the same functions."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from service.database.models import DomainSet, Launch, MixtureRow, Optimization, Revision, WorkerRow
from service.dependencies import DatabaseDependency, SettingsDependency
from service.domain_sets.repository import revision_of
from service.domain_sets.views import describe_revision, summarize_set
from service.launches.service import describe_launch, launch_with_id
from service.mixtures.lineage import describe_lineage
from service.mixtures.service import describe_mixture, mixture_with_id
from service.optimizations.progress import describe, summarize
from service.optimizations.repository import optimization_with_id
from service.pagination import page_of, page_rows
from service.settings import Settings
from service.swarms.service import run_page, summarize_run
from service.worker_device import worker_device
from service.workers_view.service import describe_workers

Document = dict[str, Any]

LIST_LENGTH = 25
"""Rows of one page of a list."""
MOST_WORKERS = 100
MOST_LAUNCHES = 50
"""Launches shown with their optimization."""


def _json(view: BaseModel) -> Document:
    return view.model_dump(mode="json")


class Documents:
    """One consistent view of the store; every method answers what the API would (NotFound included)."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self._session = session
        self._settings = settings

    def domain_sets(self, after: str | None) -> Document:
        """A page of domain sets, newest first."""
        rows, following = page_rows(self._session, select(DomainSet), DomainSet.id, after, LIST_LENGTH)
        return page_of(rows, following, lambda row: _json(summarize_set(self._session, row)))

    def revision(self, name: str, number: int | None) -> Document:
        """A revision of a domain set, the latest one when ``number`` is None."""
        return _json(describe_revision(self._session, revision_of(self._session, name, number)))

    def optimizations(self, after: str | None, domain_set: str | None = None) -> Document:
        """A page of optimizations, newest first; of one domain set if it is named."""
        query = select(Optimization).options(
            joinedload(Optimization.revision).joinedload(Revision.domain_set)
        )
        if domain_set is not None:
            query = query.where(Optimization.revision.has(Revision.domain_set.has(name=domain_set)))
        rows, following = page_rows(self._session, query, Optimization.id, after, LIST_LENGTH)
        return page_of(rows, following, lambda row: _json(summarize(row)))

    def optimization(self, optimization_id: str) -> Document:
        """An optimization and how far it has come."""
        row = optimization_with_id(self._session, optimization_id)
        return _json(describe(self._session, row, worker_device(self._settings)))

    def mixture(self, mixture_id: str) -> Document:
        """A mixture with its evidence."""
        return _json(describe_mixture(mixture_with_id(self._session, mixture_id)))

    def lineage(self, mixture_id: str) -> Document:
        """Where a mixture comes from."""
        return _json(describe_lineage(self._session, mixture_id))

    def runs(self, swarm_id: str, after: str | None) -> Document:
        """A page of a swarm's runs, in the order they were sampled."""
        rows, following = run_page(self._session, swarm_id, after, LIST_LENGTH)
        return page_of(rows, following, lambda row: _json(summarize_run(*row)))

    def workers(self, after: str | None) -> Document:
        """A page of workers, newest first."""
        rows, following = page_rows(self._session, select(WorkerRow), WorkerRow.id, after, MOST_WORKERS)
        views = describe_workers(self._session, rows)
        return {"items": [_json(view) for view in views], "next": following}

    def launches(self, optimization_id: str | None = None, after: str | None = None) -> Document:
        """A page of launches, newest first; those of one optimization's mixtures if it is named."""
        query = select(Launch)
        limit = LIST_LENGTH
        if optimization_id is not None:
            query = query.join(MixtureRow).where(MixtureRow.optimization_id == optimization_id)
            limit = MOST_LAUNCHES
        rows, following = page_rows(self._session, query, Launch.id, after, limit)
        return page_of(rows, following, lambda row: _json(describe_launch(self._session, row)))

    def launch(self, launch_id: str) -> Document:
        """A launch, its progress and what was measured on it."""
        return _json(describe_launch(self._session, launch_with_id(self._session, launch_id)))


def open_documents(database: DatabaseDependency, settings: SettingsDependency) -> Iterator[Documents]:
    """FastAPI dependency: documents over one read transaction."""
    with database.read() as session:
        yield Documents(session, settings)


DocumentsDependency = Annotated[Documents, Depends(open_documents)]
