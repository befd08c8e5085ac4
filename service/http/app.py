"""The web application: resources, dashboard, and what guards them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from service import planning, workers
from service.dashboard import pages
from service.domain_sets import endpoints as domain_sets
from service.http.errors import install_error_handlers
from service.http.guards import BodyLimit, DataRootsOnly, PlainHead, SecurityHeaders
from service.http.limits import Limits
from service.http.openapi import publish
from service.http.routes import known_query
from service.launches import endpoints as launches
from service.mixtures import endpoints as mixtures
from service.observability import health, metrics
from service.observability.health import Pulse, Readiness
from service.observability.requests import RequestLog, request_telemetry
from service.optimizations import endpoints as optimizations
from service.processes.address import load_token
from service.processes.computation import Computations
from service.swarms import endpoints as swarms
from service.tokens import Authenticator
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
    for resource in (*resources, health, metrics, pages):
        app.include_router(resource.router, dependencies=[query])
    publish(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added sees a request first: any answer is named, counted, guarded and in the log."""
    app.add_middleware(DataRootsOnly, settings=settings)
    app.add_middleware(BodyLimit, limit=settings.body_limit_bytes)
    app.add_middleware(PlainHead, names=_host_names(settings))
    app.add_middleware(RequestLog, registry=app.state.registry, pulse=app.state.pulse)
    app.add_middleware(SecurityHeaders)


def _host_names(settings: Settings) -> list[str]:
    """Names of the service: this machine's, the one it binds, and what the operator adds."""
    extra = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
    return ["127.0.0.1", "localhost", settings.host, *extra]
