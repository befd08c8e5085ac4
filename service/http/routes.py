"""Routes: what endpoints are given, what they refuse of a query or a body, and in which thread they answer.

FastAPI runs a plain function in a thread, checks its answer in a second one and writes it to JSON on the event loop,
where every other request waits for it. A hop to a thread costs about as much as a query. `ThreadRoute` writes the
answer in the thread that made it, and reads a body's JSON strictly, once.
"""

import difflib
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import anyio.to_thread
from anyio.lowlevel import RunVar
from fastapi import Depends, Query, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from service.http.strict_json import JsonRequest
from store.engine import Database
from store.problems import Invalid, Problem
from store.settings import Settings

JSON = "application/json"
SLOW_THREADS = 8
"""Of requests that wait for files, stores or child processes; the others have threads that these never take."""
_slow_threads: RunVar[anyio.CapacityLimiter] = RunVar("mixwright_slow_threads")


class ThreadRoute(APIRoute):
    """As `APIRoute`, for functions that answer a ``response_model``; coroutines are FastAPI's own to answer."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        model = options.get("response_model")
        if not inspect.iscoroutinefunction(endpoint):
            is_slow = endpoint in _slow_endpoints
            if not (model is None or isinstance(model, DefaultPlaceholder)):
                endpoint = _answering(endpoint, TypeAdapter(model), options.get("status_code") or 200)
            endpoint = _in_slow_thread(endpoint) if is_slow else endpoint
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler over a request whose JSON is read strictly."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await answer(JsonRequest(request.scope, request.receive))
            except HTTPException as error:
                if isinstance(error.__cause__, Problem):  # FastAPI's 400 for whatever reading a body raises
                    raise error.__cause__ from None
                raise

        return handle


_slow_endpoints: set[Callable[..., Any]] = set()


def slow(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Mark an endpoint that waits for files, stores or child processes: it runs in one of `SLOW_THREADS`.

    However many of them wait, every other request has its thread and its connection. Hold no session meanwhile.
    """
    _slow_endpoints.add(endpoint)
    return endpoint


def _in_slow_thread(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    async def answer(**named: Any) -> Any:
        limiter = _slow_threads.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(SLOW_THREADS)
            _slow_threads.set(limiter)
        return await anyio.to_thread.run_sync(functools.partial(endpoint, **named), limiter=limiter)

    return answer


async def known_query(request: Request) -> None:
    """FastAPI dependency: raise Invalid for a query parameter that the route does not declare, or has twice.

    ``?dryrun=true`` would start what ``?dry_run=true`` only plans.
    """
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if not counts:
        return
    declared = sorted(_query_names(request.scope["route"].dependant))
    for name, number in counts.items():
        shown = name[:64].encode("utf-8", "backslashreplace").decode()
        if name not in declared:
            nearest = difflib.get_close_matches(shown.lower(), declared, 1, 0.0)
            advice = f"did you mean {nearest[0]!r}?" if nearest else "this address takes none."
            raise Invalid("unknown_parameter", f"There is no query parameter {shown!r}: {advice}", shown)
        if number > 1:
            raise Invalid("duplicate_parameter", f"The query parameter {shown!r} is given twice.", shown)


def _query_names(dependant: Dependant) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_query_names(inner) for inner in dependant.dependencies))


def _answering(
    endpoint: Callable[..., Any], adapter: TypeAdapter[Any], status: int
) -> Callable[..., Response]:
    @functools.wraps(endpoint)
    def answer(**named: Any) -> Response:
        view = endpoint(**named)
        if isinstance(view, Response):
            return view
        body = adapter.dump_json(adapter.validate_python(view))
        # FastAPI gives one without a status to endpoints that set headers.
        made = next(
            (value for value in named.values() if isinstance(value, Response)), Response(None, status)
        )
        headers = {name: value for name, value in made.headers.items() if name != "content-length"}
        return Response(body, made.status_code or status, headers, media_type=JSON)

    return answer


# Coroutines, though they wait for nothing: FastAPI calls a plain function in a thread, which costs more than a query.
async def _database(request: Request) -> Database:
    return request.app.state.database


async def _settings(request: Request) -> Settings:
    return request.app.state.settings


DatabaseDependency = Annotated[Database, Depends(_database)]
SettingsDependency = Annotated[Settings, Depends(_settings)]

DryRun = Annotated[bool, Query(description="Answer what would be, and store nothing.")]

RETRY_AFTER_SECONDS = "1"
