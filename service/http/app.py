"""The web application: resources, dashboard, and what guards them."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from service import changes, planning, workers
from service.changes import Changes
from service.dashboard import pages
from service.domain_sets import endpoints as domain_sets
from service.http.auth import Authenticator
from service.http.errors import PROBLEM_CONTENT, ProblemView, install_error_handlers
from service.http.guards import Admission, BodyLimit, DataRootsOnly, PlainHead, SecurityHeaders
from service.http.limits import Limits
from service.http.routes import known_query
from service.launches import endpoints as launches
from service.launches import record as launch_record
from service.mixtures import endpoints as mixtures
from service.mixtures import held_out
from service.observability import health, metrics
from service.observability.health import Pulse, Readiness
from service.observability.requests import RequestLog, request_telemetry
from service.optimizations import endpoints as optimizations
from service.processes.address import load_token
from service.processes.computation import Computations
from service.swarms import endpoints as swarms
from store.engine import CONNECTIONS, Database
from store.settings import Settings
from store.tracing import configure_tracing

STATIC = Path(__file__).parents[1] / "dashboard" / "static"


def create_app(settings: Settings) -> FastAPI:
    """The application over ``settings``; the database must be migrated already.

    Raises UnprotectedBind when it would listen beyond this machine without a token.
    """
    database = Database(settings.resolved_database_url)
    readiness = Readiness(database, settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # A thread that waits for a connection would only take one from a request that could be answered.
        anyio.to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS
        yield
        readiness.close()
        app.state.authenticator.close()
        database.close()

    # The interactive pages of FastAPI load their scripts from elsewhere; the document itself is published.
    app = FastAPI(
        title="Mixwright",
        version="1",
        description="Finds the data mixture for pretraining a language model, with its evidence.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry=request_telemetry(configure_tracing("web")),
    )
    app.state.settings = settings
    app.state.database = database
    app.state.readiness, app.state.pulse = readiness, Pulse()
    app.state.computations = Computations(settings)
    app.state.limits = Limits(settings)
    app.state.streams, app.state.changes = Counter(), Changes(database)
    app.state.registry = metrics.make_registry(database)
    app.state.authenticator = Authenticator(
        load_token(settings), database, wrong_tokens=settings.wrong_tokens
    )
    install_error_handlers(app)
    _add_routes(app)
    _add_middleware(app, settings)
    return app


def _add_routes(app: FastAPI) -> None:
    query = Depends(known_query)
    resources = (domain_sets, optimizations, swarms, mixtures, planning, workers, launches)
    routers = [each.router for each in (*resources, launch_record, held_out, changes, health, metrics, pages)]
    for router in (launches.results, *routers):
        app.include_router(router, dependencies=[query])
    publish(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added sees a request first: any answer is named, counted, guarded and in the log."""
    app.add_middleware(DataRootsOnly, settings=settings)
    app.add_middleware(BodyLimit, limit=settings.body_limit_bytes)
    app.add_middleware(PlainHead, names=_host_names(settings))
    app.add_middleware(Admission, limits=app.state.limits)
    app.add_middleware(RequestLog, registry=app.state.registry, pulse=app.state.pulse)
    app.add_middleware(SecurityHeaders)


def _host_names(settings: Settings) -> list[str]:
    """Names of the service: this machine's, the one it binds, and what the operator adds."""
    extra = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
    return ["127.0.0.1", "localhost", settings.host, *extra]


# The published OpenAPI document, completed: every refusal, and which answer names what another request asks for.
#
# Every refusal is a problem document, whoever refuses (the token check, the body limit, an endpoint), so it is told
# here once and not at each endpoint. So are the links: a list's items, and what a create answers, have the names that
# the addresses below theirs take.

Document = dict[str, Any]

_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_ALWAYS = (400, 401, 403, 422, 429, 503)
_BY_PATH = (404,)
_BY_WRITE = (404, 408, 409, 413)
_REPLACED = ("HTTPValidationError", "ValidationError")
"""FastAPI's own form of a refusal, which this service does not use."""


def publish(app: FastAPI) -> None:
    """Let ``app`` publish the completed document."""
    made = app.openapi

    def complete() -> Document:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(made())
        return app.openapi_schema

    app.openapi = complete  # pyright: ignore[reportAttributeAccessIssue] - as FastAPI's own pages say


def _completed(document: Document) -> Document:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in _REPLACED:
        schemas.pop(name, None)
    schemas["ProblemView"] = ProblemView.model_json_schema(ref_template="#/components/schemas/{model}")
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operation, is_write in _operations(document):
        responses = operation["responses"]
        if not path.startswith("/v1/"):
            responses.pop("422", None)
            continue
        operation["security"] = [{"token": []}]
        statuses = {*_ALWAYS, *(_BY_PATH if "{" in path else ()), *(_BY_WRITE if is_write else ())}
        # The runs of a swarm, the launches of an optimization: named in the query.
        statuses |= {404} if operation.get("parameters") else set()
        responses.update({str(status): _problem(status) for status in sorted(statuses)})
    for path, method, answer in _answers(document):
        if links := dict(_links(document, path, method)):
            answer["links"] = links
    return document


_NAMES = {"/v1/domain-sets": "name", "/v1/pools": "name", "/v1/domain-sets/{name}/revisions": "number"}
"""By what the items of a list are asked for; others have an ``id``."""


def _answers(document: Document) -> Iterator[tuple[str, str, Document]]:
    """The good answer of every operation on a list, with JSON in it."""
    for path, item in document["paths"].items():
        for method in {"get", "post"} & item.keys():
            good = next(
                (answer for status, answer in item[method]["responses"].items() if status < "300"), None
            )
            if good is not None and path.startswith("/v1/") and "application/json" in good.get("content", {}):
                yield path, method, good


def _links(document: Document, path: str, method: str) -> Iterator[tuple[str, Document]]:
    """To every operation whose address is this one's with one more part, and what follows on that."""
    name = _NAMES.get(path, "id")
    listed = "get" in document["paths"][path]
    below = re.compile(re.escape(path) + r"/\{(\w+)\}[^{}]*")
    for other, item in document["paths"].items():
        if not (listed and (match := below.fullmatch(other))):
            continue
        # What a new domain set is answered with is its first revision.
        made = "domain_set" if path == "/v1/domain-sets" else name
        place = f"/items/0/{name}" if method == "get" else f"/{made}"
        given = {part: f"$request.path.{part}" for part in re.findall(r"\{(\w+)\}", path)}
        given[match[1]] = f"$response.body#{place}"
        for operation in (item[one] for one in _METHODS & item.keys()):
            yield operation["operationId"], {"operationId": operation["operationId"], "parameters": given}


def _operations(document: Document) -> Iterator[tuple[str, Document, bool]]:
    for path, item in document["paths"].items():
        for method in _METHODS & item.keys():
            yield path, item[method], method != "get"


def _problem(status: int) -> Document:
    return {"description": HTTPStatus(status).phrase, "content": PROBLEM_CONTENT}
