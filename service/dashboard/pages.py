"""The dashboard's addresses."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.dashboard import session
from service.dashboard.documents import DocumentsDependency
from service.dashboard.lineage_page import changes_sentence, lineage_page
from service.dashboard.optimization_page import LIVE, objective_bpb, objective_weights, optimization_page
from service.dashboard.templating import page

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
    for one in launches["items"]:
        one["objective"] = objective_bpb(one["metrics"], one["settings"])
    return page(
        "overview.html",
        domain_sets=documents.domain_sets(sets_after),
        optimizations=optimizations,
        launches=launches,
        is_live=any(one["state"] in LIVE for one in (*optimizations["items"], *launches["items"])),
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
    view = optimization_page(
        document,
        documents.mixture(mixture_id) if mixture_id else None,
        documents.runs(swarm_id, runs_after) if swarm_id else {"items": [], "next": None},
        documents.launches(optimization_id)["items"],
    )
    return page("optimization.html", view=view, runs_after=runs_after, is_live=view.is_live)


@_pages.get("/mixtures/{mixture_id}/lineage")
def lineage(mixture_id: str, documents: DocumentsDependency) -> Response:
    """Where a mixture comes from, down to any run."""
    return page("lineage.html", view=lineage_page(documents.lineage(mixture_id)))


@_pages.get("/workers")
def workers(documents: DocumentsDependency, after: After = None) -> Response:
    """The machines that do the work."""
    return page("workers.html", workers=documents.workers(after), is_live=True)


@_pages.get("/launches/{launch_id}")
def launch(launch_id: str, documents: DocumentsDependency) -> Response:
    """A full training run and what was measured on its model."""
    document = documents.launch(launch_id)
    weights = objective_weights(document)
    return page(
        "launch.html",
        launch=document,
        mixture=documents.mixture(document["mixture_id"]),
        objective=objective_bpb(document["metrics"], document["settings"]),
        weights=weights,
        is_live=document["state"] in LIVE,
    )


router.include_router(session.router)
router.include_router(_pages)
