"""The dashboard's addresses, and what its pages read: the documents of the API, made by the same functions.

A page about very many domains is made outside the web process (`Computation.read`), and its tables have an end.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange.formats import FORMATS
from mixing.document import from_document
from mixing.terms import ReusePlan
from service.dashboard import actions, asking, downloads, home, runs, session, trust, what_if
from service.dashboard.actions import May
from service.dashboard.charts import CURVE_POINTS, curves_of, effects_table
from service.dashboard.decision import decide, losers, winners
from service.dashboard.evidence import Evidence
from service.dashboard.home import LIST_LENGTH, After
from service.dashboard.next_steps import Answered, Step, next_steps
from service.dashboard.sentences import (
    changes_sentence,
    lineage_sentence,
    measured_verdict,
    progress_sentence,
    target_sentences,
)
from service.dashboard.sheets import MOST_LAUNCHES
from service.dashboard.tables import gain_groups, launch_groups, mixture_table
from service.dashboard.templating import ENVIRONMENT, page
from service.domain_sets import adoptions
from service.domain_sets.repository import (
    WIDE,
    describe_revision,
    is_wide,
    many_domains,
    revision_of,
)
from service.http.routes import ComputeDependency, DatabaseDependency, SettingsDependency, slow
from service.launches.comparison import (
    Comparison,
    compare,
    held_against,
    objective_bpb,
    objective_weights,
    with_objective,
)
from service.launches.metrics import thinned
from service.launches.service import LAUNCHES, describe_launch
from service.launches.service import is_wide as is_wide_launch
from service.mixtures.evaluation import gain_in_use
from service.mixtures.exports import ExportQuery, export_of
from service.mixtures.lineage import lineage_of
from service.mixtures.service import describe_mixture, mixture_with_id, summarize_mixture
from service.optimizations.cost import plan_sentences
from service.optimizations.progress import describe
from service.optimizations.service import OPTIMIZATIONS, optimization_with_id
from service.swarms.service import run_page
from service.training.device import worker_device
from service.workers import WORKERS
from store.documents import OptimizationDocument
from store.engine import Database
from store.jobs import LIVE, SUCCEEDED
from store.problems import Invalid, Problem
from store.settings import Settings
from store.tables import DomainSet, Optimization, Revision

Document = dict[str, Any]

MOST_WORKERS = 100
MOST_DOMAINS = WIDE
"""Rows of a table of domains."""


def _json(view: BaseModel) -> Document:
    return view.model_dump(mode="json")


def open_view(database: DatabaseDependency) -> Iterator[Session]:
    """FastAPI dependency: one consistent view of the store, which ends before the page is sent."""
    with database.read() as view:
        yield view


Store = Annotated[Session, Depends(open_view, scope="function")]


router = APIRouter(include_in_schema=False)
_pages = APIRouter(route_class=session.PageRoute, include_in_schema=False)


@_pages.get("/domain-sets/{name}")
@slow
def domain_set(
    name: str,
    database: DatabaseDependency,
    compute: ComputeDependency,
    may: May,
    revision: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    after: After = None,
    domains_after: After = None,
) -> Response:
    """One revision of a domain set and what was asked of the set."""
    with database.read() as store:
        wide = is_wide(store, name, revision)
    return compute.read(wide, _domain_set_page, database, name, revision, (after, domains_after), may)


def _domain_set_page(
    database: Database, name: str, revision: int | None, pages: tuple[str | None, str | None], may: May
) -> Response:
    after, domains_after = pages
    with database.read() as store:
        document = _json(describe_revision(store, revision_of(store, name, revision)))
        latest = revision_of(store, name, None).number if revision else document["number"]
        optimizations = _json(OPTIMIZATIONS.page(store, after, LIST_LENGTH, domain_set=name))
        adopted = adoptions.history(store, name, LIST_LENGTH)
    domains = document["domains"]
    names = [domain["name"] for domain in domains]
    first = names.index(domains_after) + 1 if domains_after in names else 0
    shown = domains[first : first + MOST_DOMAINS]
    return page(
        "domain_set.html",
        revision=document,
        domains=shown,
        domains_next=shown[-1]["name"] if first + len(shown) < len(domains) else None,
        latest=latest,
        changes=changes_sentence(document["changes"]),
        optimizations=optimizations,
        adopted=adopted,
        may=may,
        is_live=document["state"] in LIVE,
    )


@_pages.get("/optimizations/{optimization_id}")
@slow
def optimization(
    optimization_id: str,
    database: DatabaseDependency,
    settings: SettingsDependency,
    compute: ComputeDependency,
    may: May,
    runs_after: After = None,
) -> Response:
    """The mixture, its evidence, and the swarm behind it."""
    asked = select(DomainSet.name, many_domains(Revision.id)).join(Revision).join(Optimization)
    with database.read() as store:
        found = store.execute(asked.where(Optimization.id == optimization_id)).first()
        name, wide = found or ("", False)
        used = adoptions.in_use(store, name)
    over = used and compute(gain_in_use, settings, optimization_id, used.mixture_id)
    shown = (runs_after, used, over, may)
    return compute.read(wide, _optimization_page, database, settings, optimization_id, *shown)


def _optimization_page(
    database: Database,
    settings: Settings,
    optimization_id: str,
    runs_after: str | None,
    adopted: adoptions.AdoptionView | None,
    over: Document | None,
    may: May,
) -> Response:
    with database.read() as store:
        row = optimization_with_id(store, optimization_id)
        document = _json(describe(store, row, worker_device(settings)))
        swarm_id, mixture_id = document["swarm_id"], document["mixture_id"]
        mixture = _json(describe_mixture(store, mixture_id)) if mixture_id else None
        runs = (
            _json(run_page(store, swarm_id, runs_after, LIST_LENGTH))
            if swarm_id
            else {"items": [], "next": None}
        )
        launches = _json(LAUNCHES.page(store, None, MOST_LAUNCHES, optimization=optimization_id))["items"]
        used = mixture_with_id(store, adopted.mixture_id).weights if adopted else None
    view = _optimization_view(document, mixture, runs, launches, used)
    steps: list[Step] = []
    if mixture and mixture["evidence"]:
        answered = Answered(
            optimization_id=optimization_id,
            domain_set=document["domain_set"],
            revision=document["revision"],
            settings=OptimizationDocument.from_dict(document["settings"]),
            swarm_id=swarm_id,
            mixture_id=mixture["id"],
            natural_mixture_id=document["natural_mixture_id"],
            is_in_use=adopted is not None and adopted.mixture_id == mixture["id"],
            is_done=document["state"] == SUCCEEDED,
        )
        steps = next_steps(answered, Evidence.model_validate(mixture["evidence"]))
    shown = {"runs_after": runs_after, "adopted": adopted, "over": over, "steps": steps, "may": may}
    return page("optimization.html", **shown, **view)


def _optimization_view(
    optimization: Document,
    mixture: Document | None,
    runs: Document,
    launches: Sequence[Document],
    used: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What the template shows of the API's documents; ``mixture`` is None before there is one.

    The template formats and decides nothing else. ``answer`` is the proposed mixture with its evidence, ``measured``
    what the launches found beside it, ``reuse`` the plan of what is frozen, trained and reused: each None without.
    """
    evidence = mixture["evidence"] if mixture else None
    settings = optimization["settings"]
    measured = _measured(evidence, launches) if evidence else None
    comparison = measured["comparison"] if measured else None
    to_know = optimization["to_know"]
    return {
        "optimization": optimization,
        "sentence": progress_sentence(optimization),
        "is_live": any(document["state"] in LIVE for document in (optimization, *launches)),
        "answer": answer_view(evidence, to_know, comparison, used) if evidence else None,
        "measured": measured,
        "reuse": _reuse(settings["reuse"]) if settings.get("reuse") else None,
        "runs": with_objective(runs["items"], settings),
        "runs_next": runs["next"],
        "launches": launch_groups(with_objective(launches)),
        "launched": len(launches),
        "formats": FORMATS,
    }


def _reuse(settings: Document) -> dict[str, Any]:
    plan = from_document(ReusePlan, settings["plan"])
    groups = [
        (name, sorted(ratios.items(), key=lambda item: (-item[1], item[0])))
        for name, ratios in sorted(plan.groups.items())
    ]
    return {
        "plan": plan,
        "mixture_id": settings["mixture"],
        "sentences": list(plan_sentences(plan)),
        "groups": groups,
        "domains": len(plan.recomputed) + sum(len(members) for _, members in groups),
    }


def answer_view(
    evidence: Document,
    to_know: Document | None = None,
    measured: Comparison | None = None,
    used: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What `_decision.html` and `_answer.html` show of a mixture's evidence.

    ``to_know`` is what it costs to know the transfer to its target, ``measured`` what launches found, ``used`` the
    weights of the mixture in use.
    """
    told = Evidence.model_validate(evidence)
    domains = sorted(evidence["domains"], key=lambda domain: (-domain["weight"], domain["name"]))
    return {
        "evidence": evidence,
        "told": told,
        "decision": decide(told, measured),
        "losers": losers(told),
        "winners": winners(told),
        "mixture": mixture_table(told, used),
        "gains": gain_groups(told, measured),
        "objective_tasks": [task for task in evidence["tasks"] if task["weight"] > 0],
        "watched_tasks": [task for task in evidence["tasks"] if task["weight"] <= 0],
        "target": target_sentences(evidence, to_know),
        "effects": effects_table(evidence, [domain["name"] for domain in domains]),
    }


def _measured(evidence: Document, launches: Sequence[Document]) -> dict[str, Any] | None:
    comparison = compare(evidence, launches)
    if comparison is None:
        return None
    return {
        "comparison": comparison,
        "verdict": measured_verdict(comparison),
    }


@_pages.get("/mixtures/{mixture_id}/lineage")
@slow
def lineage(mixture_id: str, settings: SettingsDependency, compute: ComputeDependency) -> Response:
    """Where a mixture comes from, down to any run."""
    return compute(_lineage_page, settings, mixture_id)


def _lineage_page(settings: Settings, mixture_id: str) -> Response:
    document = _json(lineage_of(settings, mixture_id))
    return page("lineage.html", lineage=document, sentence=lineage_sentence(document))


@_pages.get("/mixtures/{mixture_id}/export")
@slow
def export(
    mixture_id: str,
    database: DatabaseDependency,
    compute: ComputeDependency,
    query: Annotated[ExportQuery, Depends()],
) -> Response:
    """The files a trainer reads, what it will draw of them, and what else can be asked for."""
    with database.read() as view:
        mixture, target = summarize_mixture(mixture_with_id(view, mixture_id)), query.target_tokens
        if target is None and mixture.optimization_id is not None:
            target = optimization_with_id(view, mixture.optimization_id).settings["target_tokens"]
    try:
        made, refusal = _json(export_of(database, compute, mixture_id, query)), None
    except Problem as error:
        if error.status != Invalid.status:
            raise
        made, refusal = None, error
    return page(
        "export.html",
        HTTPStatus.OK if refusal is None else HTTPStatus(refusal.status),
        mixture=mixture,
        query=query,
        target_tokens=target,
        formats=FORMATS,
        made=made,
        refusal=refusal,
    )


@_pages.get("/workers")
def workers(store: Store, may: May, after: After = None) -> Response:
    """The machines that do the work."""
    return page(
        "workers.html", workers=_json(WORKERS.page(store, after, MOST_WORKERS)), may=may, is_live=True
    )


@_pages.get("/launches/{launch_id}")
@slow
def launch(launch_id: str, database: DatabaseDependency, compute: ComputeDependency, may: May) -> Response:
    """A full training run and what was measured on its model."""
    with database.read() as store:
        wide = is_wide_launch(store, launch_id)
    return compute.read(wide, _launch_page, database, launch_id, may)


def _launch_page(database: Database, launch_id: str, may: May) -> Response:
    with database.read() as store:
        document = _json(describe_launch(store, launch_id))
        mixture = _json(describe_mixture(store, document["mixture_id"]))
        series = [view.model_dump() for view in thinned(store, document["run_id"], CURVE_POINTS)]
        held = _json(held_against(store, launch_id))
    return page(
        "launch.html",
        curves=curves_of(series, objective_weights(document)),
        held=held,
        launch=document,
        may=may,
        mixture=mixture,
        most_domains=MOST_DOMAINS,
        objective=objective_bpb(document["metrics"], document["settings"]),
        weights=objective_weights(document),
        is_live=document["state"] in LIVE,
    )


router.include_router(session.router)
router.include_router(home.router)
router.include_router(actions.router)
router.include_router(asking.router)
router.include_router(runs.router)
router.include_router(what_if.router)
router.include_router(trust.router)
router.include_router(downloads.router)
router.include_router(_pages)


# An answer as one page that needs no service: the dashboard's, with its style in it.

_STYLE = Path(__file__).parent / "static" / "dashboard.css"


def standalone_page(evidence: dict[str, Any], title: str) -> str:
    """HTML of a mixture's evidence, as `mixing.answer.proposal.Proposal.to_dict` has it."""
    style = b64encode(_STYLE.read_bytes()).decode("ascii")
    return ENVIRONMENT.get_template("standalone.html").render(
        answer=answer_view(evidence), measured=None, title=title, style=style
    )
