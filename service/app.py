"""The web application: resources, dashboard, and what guards them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from service import health
from service.auth import load_token, require_token
from service.dashboard import pages
from service.database.engine import Database
from service.domain_sets import endpoints as domain_sets
from service.errors import install_error_handlers
from service.launches import endpoints as launches
from service.limits import BodyLimit
from service.mixtures import endpoints as mixtures
from service.optimizations import endpoints as optimizations
from service.security_headers import SecurityHeaders
from service.settings import Settings
from service.swarms import endpoints as swarms

STATIC = Path(__file__).parent / "dashboard" / "static"


def create_app(settings: Settings) -> FastAPI:
    """The application over ``settings``; the database must be migrated already.

    Raises UnprotectedBind when it would listen beyond this machine without a token.
    """
    database = Database(settings.resolved_database_url)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
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
    )
    app.state.settings = settings
    app.state.database = database
    app.state.token = load_token(settings)
    install_error_handlers(app)
    for router in (
        domain_sets.router,
        optimizations.router,
        swarms.router,
        mixtures.router,
        launches.router,
    ):
        app.include_router(router, dependencies=[Depends(require_token)])
    app.include_router(health.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(BodyLimit, limit=settings.body_limit_bytes)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_host_names(settings))
    return app


def _host_names(settings: Settings) -> list[str]:
    """Names a request may call this service by: a page elsewhere cannot rebind its own name to it."""
    extra = [name.strip() for name in settings.allowed_hosts.split(",") if name.strip()]
    return ["127.0.0.1", "localhost", settings.host, *extra]
