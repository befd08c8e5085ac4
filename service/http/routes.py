"""Routes: what endpoints are given, and answers that are written to JSON in the thread that made them.

FastAPI runs a plain function in a thread, checks its answer in a second one and writes it to JSON on the event loop,
where every other request waits for it. A hop to a thread costs about as much as a query.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from store.engine import Database
from store.settings import Settings

JSON = "application/json"


class ThreadRoute(APIRoute):
    """As `APIRoute`, for functions that answer a ``response_model``.

    Functions that are given the response, to set its headers, are FastAPI's own to answer; so are coroutines.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        model = options.get("response_model")
        if inspect.isclass(model) and not (inspect.iscoroutinefunction(endpoint) or _sets_headers(endpoint)):
            endpoint = _answering(endpoint, TypeAdapter(model), options.get("status_code") or 200)
        super().__init__(path, endpoint, **options)


def _sets_headers(endpoint: Callable[..., Any]) -> bool:
    return any(one.annotation is Response for one in inspect.signature(endpoint).parameters.values())


def _answering(
    endpoint: Callable[..., Any], adapter: TypeAdapter[Any], status: int
) -> Callable[..., Response]:
    @functools.wraps(endpoint)
    def answer(*given: Any, **named: Any) -> Response:
        found = endpoint(*given, **named)
        if isinstance(found, Response):
            return found
        return Response(adapter.dump_json(adapter.validate_python(found)), status, media_type=JSON)

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
