"""Routes: what endpoints are given, what they refuse of a query or a body, and in which thread they answer.

FastAPI runs a plain function in a thread, checks its answer in a second one and writes it to JSON on the event loop,
where every other request waits for it. A hop to a thread costs about as much as a query. `ThreadRoute` writes the
answer in the thread that made it, and reads a body's JSON strictly, once.
"""

import asyncio
import difflib
import functools
import inspect
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextvars import ContextVar
from time import thread_time
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from anyio.lowlevel import RunVar
from fastapi import Depends, Query, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from service.http.auth import require_token
from service.http.limits import SECONDS_A_REQUEST, SHORT_BYTES, SLOW_THREADS, Limits
from service.processes.computation import Computation
from service.tokens import Scope
from store.engine import Database
from store.problems import Invalid, Problem
from store.settings import Settings

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])

# Bodies that two readers would read differently are refused before anything reads them.
#
# JSON leaves open what a member named twice means, and Python's reader keeps the last: a weight given twice would
# be taken for the other one. It also reads nestings that no request has. NaN and Infinity are refused where they
# stand, by the request's model, which knows what they were meant for.

DEEPEST = 32
"""Levels of nesting; requests need five."""
_NO_TEXT = re.compile(rb"\\u(0000|[dD][89a-fA-F])")


class JsonRequest(Request):
    """A request whose JSON body is read here, once, or refused."""

    async def json(self) -> Any:
        """The document of the body. Raises Invalid naming the member at fault, ValueError for what is no JSON."""
        if not hasattr(self, "_document"):
            body = await self.body()
            is_long = len(body) > SHORT_BYTES  # then in a thread, so that the others do not wait
            self._document = await run_in_threadpool(read_json, body) if is_long else read_json(body)
        return self._document


def read_json(body: bytes) -> Any:
    """The document; raises Invalid for what is read in more than one way, ValueError for what is no JSON at all."""
    try:
        document = json.loads(body, object_pairs_hook=_object)
        _check_depth(document)
        if _NO_TEXT.search(body):
            _check_text(document)
        return document
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        if "digits" in str(error):  # Python's own limit of 4300 digits a number
            raise Invalid("bad_number", "The body holds a number of thousands of digits.") from error
        raise


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        shown = name[:200].encode("utf-8", "backslashreplace").decode()
        raise Invalid("duplicate_member", f"The member {shown!r} is given twice.", shown)
    return members


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_text(value: Any, field: str = "") -> None:
    """Raise Invalid naming the member whose text or name has a NUL or half a surrogate pair: no store keeps them."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Invalid("bad_text", f"{value[:200]!a} holds a NUL or half a surrogate pair.", field or None)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, field)
            _check_text(inner, f"{field}.{name[:200]}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_text(inner, f"{field}[{index}]")


def _too_deep() -> Invalid:
    return Invalid("too_deep", f"The body is nested over {DEEPEST} levels deep.")


JSON = "application/json"
_slow_threads: RunVar[anyio.CapacityLimiter] = RunVar("mixwright_slow_threads")


class ThreadRoute(APIRoute):
    """As `APIRoute`, for functions that answer a ``response_model``; coroutines are FastAPI's own to answer.

    Before FastAPI reads the body it is found who sent the request, that they may (``write`` is what it takes to do
    more than look), and that it is their turn.
    """

    write = Scope.WRITE

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        model = options.get("response_model")
        self._is_slow = endpoint in _slow_endpoints
        self.prefixes = _prefixes.get(endpoint, ())
        if not inspect.iscoroutinefunction(endpoint):
            if not (model is None or isinstance(model, DefaultPlaceholder)):
                endpoint = _answering(endpoint, TypeAdapter(model), options.get("status_code") or 200)
            endpoint = _timed(endpoint)
            endpoint = _in_slow_thread(endpoint) if self._is_slow else endpoint
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler for who may ask and has a turn, over a request whose JSON is read strictly."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            user = await require_token(request, self.write)
            limits: Limits = request.app.state.limits
            request = JsonRequest(request.scope, request.receive)
            try:
                async with limits.turn(user, request, self._is_slow) as patience:
                    request.state.patience = patience
                    _used.set(used := [])
                    try:
                        return await answer(request)
                    finally:
                        limits.charge(user, sum(used) / SECONDS_A_REQUEST)
            except HTTPException as error:
                if isinstance(error.__cause__, Problem):  # FastAPI's 400 for whatever reading a body raises
                    raise error.__cause__ from None
                raise

        return handle


_used: ContextVar[list[float]] = ContextVar("mixwright_used")
"""Seconds of a processor that the request has used in threads."""


def _timed(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint, which notes what it uses in the context that its thread has from the request."""

    @functools.wraps(endpoint)
    def answer(**named: Any) -> Any:
        began = thread_time()
        try:
            return endpoint(**named)
        finally:
            _used.get().append(thread_time() - began)

    return answer


_slow_endpoints: set[Callable[..., Any]] = set()


def slow(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Mark an endpoint that waits for files, stores or computations: it runs in one of `SLOW_THREADS`.

    However many of them wait, every other request has its thread and its connection; one that gets no place is
    refused (`service.http.limits`). Hold no session meanwhile.
    """
    _slow_endpoints.add(endpoint)
    return endpoint


_prefixes: dict[Callable[..., Any], tuple[str, ...]] = {}


def reads(*prefixes: str) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint that reads query parameters of these prefixes itself, and refuses those it does not know."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        _prefixes[endpoint] = prefixes
        return endpoint

    return mark


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
    route = request.scope["route"]
    declared = sorted(_query_names(route.dependant))
    prefixes = route.prefixes if isinstance(route, ThreadRoute) else ()
    for name, number in counts.items():
        shown = name[:64].encode("utf-8", "backslashreplace").decode()
        if name not in declared and not name.startswith(prefixes):
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
        # FastAPI gives one without a status to endpoints that set headers, by itself or within what they are given.
        given = (getattr(value, "response", value) for value in named.values())
        made = next((value for value in given if isinstance(value, Response)), Response(None, status))
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


async def _computation(request: Request) -> AsyncIterator[Computation]:
    """What the request computes; ended when its client leaves."""
    computation = Computation(request.app.state.computations, request.state.patience)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass  # the body, where nobody has read it
        computation.leave()

    watching = asyncio.create_task(watch())
    try:
        yield computation
    finally:
        watching.cancel()


ComputeDependency = Annotated[Computation, Depends(_computation, scope="function")]

DryRun = Annotated[bool, Query(description="Answer what would be, and store nothing.")]

RETRY_AFTER_SECONDS = "1"
