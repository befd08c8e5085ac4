"""The dashboard's addresses, and what its pages read: the documents of the API, made by the same functions."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from service.dashboard import session
from service.dashboard.charts import MOST_ROWS, effects_table, gain_chart, mixture_chart
from service.dashboard.comparison import compare, objective_bpb, objective_weights, with_objective
from service.dashboard.sentences import (
    changes_sentence,
    lineage_sentence,
    measured_verdict,
    predicted_verdict,
    progress_sentence,
)
from service.dashboard.templating import page
from service.domain_sets.repository import DOMAIN_SETS, describe_revision, revision_of
from service.http.routes import DatabaseDependency, SettingsDependency
from service.launches import LAUNCHES, describe_launch
from service.mixtures.lineage import describe_lineage
from service.mixtures.service import describe_mixture
from service.optimizations import service as optimizations
from service.optimizations.cost import plan_sentences
from service.optimizations.progress import describe
from service.swarms.service import run_page
from service.training.device import worker_device
from service.workers import WORKERS
from store.jobs import LIVE
from store.settings import Settings

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
        return _json(DOMAIN_SETS.page(self._session, after, LIST_LENGTH))

    def revision(self, name: str, number: int | None) -> Document:
        """A revision of a domain set, the latest one when ``number`` is None."""
        return _json(describe_revision(self._session, revision_of(self._session, name, number)))

    def optimizations(self, after: str | None, domain_set: str | None = None) -> Document:
        """A page of optimizations, newest first; of one domain set if it is named."""
        page = optimizations.OPTIMIZATIONS.page(self._session, after, LIST_LENGTH, domain_set=domain_set)
        return _json(page)

    def optimization(self, optimization_id: str) -> Document:
        """An optimization and how far it has come."""
        row = optimizations.optimization_with_id(self._session, optimization_id)
        return _json(describe(self._session, row, worker_device(self._settings)))

    def mixture(self, mixture_id: str) -> Document:
        """A mixture with its evidence."""
        return _json(describe_mixture(self._session, mixture_id))

    def lineage(self, mixture_id: str) -> Document:
        """Where a mixture comes from."""
        return _json(describe_lineage(self._session, mixture_id))

    def runs(self, swarm_id: str, after: str | None) -> Document:
        """A page of a swarm's runs, in the order they were sampled."""
        return _json(run_page(self._session, swarm_id, after, LIST_LENGTH))

    def workers(self, after: str | None) -> Document:
        """A page of workers, newest first."""
        return _json(WORKERS.page(self._session, after, MOST_WORKERS))

    def launches(self, optimization_id: str | None = None, after: str | None = None) -> Document:
        """A page of launches, newest first; those of one optimization's mixtures if it is named."""
        limit = LIST_LENGTH if optimization_id is None else MOST_LAUNCHES
        return _json(LAUNCHES.page(self._session, after, limit, optimization=optimization_id))

    def launch(self, launch_id: str) -> Document:
        """A launch, its progress and what was measured on it."""
        return _json(describe_launch(self._session, launch_id))


def open_documents(database: DatabaseDependency, settings: SettingsDependency) -> Iterator[Documents]:
    """FastAPI dependency: documents over one read transaction, which ends before the page is sent."""
    with database.read() as session:
        yield Documents(session, settings)


DocumentsDependency = Annotated[Documents, Depends(open_documents, scope="function")]


router = APIRouter(include_in_schema=False)
_pages = APIRouter(route_class=session.PageRoute, include_in_schema=False)
After = Annotated[str | None, Query(max_length=300)]


@_pages.get("/")
def overview(
    documents: DocumentsDependency,
    sets_after: After = None,
    after: After = None,
    launches_after: After = None,
) -> Response:
    """Domain sets, optimizations and launches, newest first."""
    optimizations = documents.optimizations(after)
    launches = documents.launches(after=launches_after)
    shown = (*optimizations["items"], *launches["items"])
    return page(
        "overview.html",
        domain_sets=documents.domain_sets(sets_after),
        optimizations=optimizations,
        launches={**launches, "items": with_objective(launches["items"])},
        is_live=any(document["state"] in LIVE for document in shown),
    )


@_pages.get("/domain-sets/{name}")
def domain_set(
    name: str,
    documents: DocumentsDependency,
    revision: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    after: After = None,
) -> Response:
    """One revision of a domain set and what was asked of the set."""
    document = documents.revision(name, revision)
    latest = documents.revision(name, None)["number"] if revision else document["number"]
    return page(
        "domain_set.html",
        revision=document,
        latest=latest,
        changes=changes_sentence(document["changes"]),
        optimizations=documents.optimizations(after, name),
        is_live=document["state"] in LIVE,
    )


@_pages.get("/optimizations/{optimization_id}")
def optimization(optimization_id: str, documents: DocumentsDependency, runs_after: After = None) -> Response:
    """The mixture, its evidence, and the swarm behind it."""
    document = documents.optimization(optimization_id)
    swarm_id, mixture_id = document["swarm_id"], document["mixture_id"]
    view = _optimization_page(
        document,
        documents.mixture(mixture_id) if mixture_id else None,
        documents.runs(swarm_id, runs_after) if swarm_id else {"items": [], "next": None},
        documents.launches(optimization_id)["items"],
    )
    return page("optimization.html", runs_after=runs_after, **view)


def _optimization_page(
    optimization: Document, mixture: Document | None, runs: Document, launches: Sequence[Document]
) -> dict[str, Any]:
    """What the template shows of the API's documents; ``mixture`` is None before there is one.

    The template formats and decides nothing else. ``answer`` is the proposed mixture with its evidence, ``measured``
    what the launches found beside it, ``reuse`` the plan of what is frozen, trained and reused: each None without.
    """
    evidence = mixture["evidence"] if mixture else None
    settings = optimization["settings"]
    return {
        "optimization": optimization,
        "sentence": progress_sentence(optimization),
        "is_live": any(document["state"] in LIVE for document in (optimization, *launches)),
        "answer": answer_view(evidence) if evidence else None,
        "measured": _measured(evidence, launches) if evidence else None,
        "reuse": _reuse(settings["reuse"]) if settings.get("reuse") else None,
        "runs": with_objective(runs["items"], settings),
        "runs_next": runs["next"],
        "launches": with_objective(launches),
    }


def _reuse(settings: Document) -> dict[str, Any]:
    plan = settings["plan"]
    groups = [
        (name, sorted(ratios.items(), key=lambda item: (-item[1], item[0])))
        for name, ratios in sorted(plan["groups"].items())
    ]
    return {
        "plan": plan,
        "mixture_id": settings["mixture"],
        "sentences": list(plan_sentences(plan)),
        "groups": groups,
    }


def answer_view(evidence: Document) -> dict[str, Any]:
    """What `_answer.html` shows of a mixture's evidence."""
    domains = sorted(evidence["domains"], key=lambda domain: (-domain["weight"], domain["name"]))
    return {
        "evidence": evidence,
        "domains": domains,
        "objective_tasks": [task for task in evidence["tasks"] if task["weight"] > 0],
        "watched_tasks": [task for task in evidence["tasks"] if task["weight"] <= 0],
        "verdict": predicted_verdict(evidence),
        "chart": mixture_chart(domains),
        "undrawn": max(len(domains) - MOST_ROWS, 0),
        "effects": effects_table(evidence, [domain["name"] for domain in domains]),
    }


def _measured(evidence: Document, launches: Sequence[Document]) -> dict[str, Any] | None:
    comparison = compare(evidence, launches)
    if comparison is None:
        return None
    return {
        "comparison": comparison,
        "verdict": measured_verdict(comparison),
        "chart": gain_chart(comparison),
    }


@_pages.get("/mixtures/{mixture_id}/lineage")
def lineage(mixture_id: str, documents: DocumentsDependency) -> Response:
    """Where a mixture comes from, down to any run."""
    document = documents.lineage(mixture_id)
    return page("lineage.html", lineage=document, sentence=lineage_sentence(document))


@_pages.get("/workers")
def workers(documents: DocumentsDependency, after: After = None) -> Response:
    """The machines that do the work."""
    return page("workers.html", workers=documents.workers(after), is_live=True)


@_pages.get("/launches/{launch_id}")
def launch(launch_id: str, documents: DocumentsDependency) -> Response:
    """A full training run and what was measured on its model."""
    document = documents.launch(launch_id)
    return page(
        "launch.html",
        launch=document,
        mixture=documents.mixture(document["mixture_id"]),
        objective=objective_bpb(document["metrics"], document["settings"]),
        weights=objective_weights(document),
        is_live=document["state"] in LIVE,
    )


router.include_router(session.router)
router.include_router(_pages)
