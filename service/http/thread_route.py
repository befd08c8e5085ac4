"""Routes whose answers are written to JSON in the thread that made them.

FastAPI runs a plain function in a thread, checks its answer in a second one and writes it to JSON on the event loop,
where every other request waits for it. A hop to a thread costs about as much as a query.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

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
