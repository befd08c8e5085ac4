"""Creating by a form: what is typed is planned first, and only the plan has the button that begins it.

The form is sent to its own page, which asks the API what would be (``dry_run``) and shows that beside the request.
"""

import shlex
from typing import Any

from fastapi import APIRouter, Request, Response

from mixing.methods import METHODS
from proxy_models.config import PUBLISHED_SIZES, SIZES
from service.dashboard.actions import May, document_of, form_of, send
from service.dashboard.session import PageRoute
from service.dashboard.templating import page
from service.domain_sets.repository import DOMAIN_SETS, describe_revision, revision_of
from service.http.errors import ProblemView
from service.http.routes import DatabaseDependency
from store.problems import Invalid
from store.tables import Revision

router = APIRouter(route_class=PageRoute, include_in_schema=False)
MOST_SETS = 200
Fields = dict[str, str]
DOMAIN_SET: Fields = {"number:tokenizer.vocabulary_size": "4096", "number:held_out_fraction": "0.02"}
OPTIMIZATION: Fields = {
    "text:method": "mixwright",
    "number:repetition_cap": "4",
    "text:proxy.size": "nano-0.1M",
    "number:proxy.tokens": "524288",
}
"""What the forms begin with."""


async def _planned(request: Request, template: str, known: dict[str, Any]) -> Response:
    """The form again with what was typed, and what would be made of it or why it is refused."""
    fields = await form_of(request)
    try:
        body = document_of(fields)
    except Invalid as refused:
        return page(template, refused.status, fields=fields, refusal=refused.detail, **known)
    answer = await send(request, known["path"], body, dry_run=True)
    if not answer.is_success:
        problem = ProblemView.model_validate_json(answer.content)
        return page(template, answer.status_code, fields=fields, refusal=problem.detail, body=body, **known)
    return page(template, fields=fields, plan=answer.json(), body=body, **known)


def _of_set(may: May) -> dict[str, Any]:
    return {"may": may, "path": "/v1/domain-sets", "name": None, "here": "/new/domain-set"}


@router.get("/new/domain-set")
def new_domain_set(may: May) -> Response:
    """A form for a domain set."""
    return page("new_domain_set.html", fields=DOMAIN_SET, **_of_set(may))


@router.post("/new/domain-set")
async def plan_domain_set(request: Request, may: May) -> Response:
    """What it would be."""
    return await _planned(request, "new_domain_set.html", _of_set(may))


def _of_revision(name: str, may: May) -> dict[str, Any]:
    path, here = f"/v1/domain-sets/{name}/revisions", f"/domain-sets/{name}/revise"
    return {"may": may, "path": path, "name": name, "here": here}


@router.get("/domain-sets/{name}/revise")
def revise(name: str, database: DatabaseDependency, may: May) -> Response:
    """The same form with the domains that there are."""
    with database.read() as store:
        row: Revision = revision_of(store, name, None)
        domains = describe_revision(store, row).domains
    lines = [
        shlex.join(
            [one.name, *one.files, *([f"tokens={one.declared_tokens}"] if one.declared_tokens else [])]
        )
        for one in domains
    ]
    fields = {"domains:domains": "\n".join(lines)}
    return page("new_domain_set.html", fields=fields, **_of_revision(name, may))


@router.post("/domain-sets/{name}/revise")
async def plan_revision(name: str, request: Request, may: May) -> Response:
    """What the next revision would be."""
    return await _planned(request, "new_domain_set.html", _of_revision(name, may))


def _of_optimization(database: DatabaseDependency, may: May) -> dict[str, Any]:
    with database.read() as store:
        sets = [view.name for view in DOMAIN_SETS.page(store, None, MOST_SETS).items]
    return {
        "may": may,
        "path": "/v1/optimizations",
        "here": "/new/optimization",
        "sets": sets,
        "methods": sorted(METHODS),
        "sizes": [*SIZES, *PUBLISHED_SIZES],
    }


@router.get("/new/optimization")
def new_optimization(database: DatabaseDependency, may: May, domain_set: str = "") -> Response:
    """A form for an optimization."""
    fields = {**OPTIMIZATION, "text:domain_set": domain_set}
    return page("new_optimization.html", fields=fields, **_of_optimization(database, may))


@router.post("/new/optimization")
async def plan_optimization(request: Request, database: DatabaseDependency, may: May) -> Response:
    """What it would train and cost."""
    return await _planned(request, "new_optimization.html", _of_optimization(database, may))
