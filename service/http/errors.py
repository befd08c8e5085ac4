"""Failures of a request as ``application/problem+json`` (RFC 9457), with a stable ``code``."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from store.logs import bound_fields
from store.problems import Problem, unavailable

log = logging.getLogger("mixwright.web")
MEDIA_TYPE = "application/problem+json"
LONGEST_FIELD, LONGEST_MESSAGE, MOST_COMPLAINTS = 300, 1000, 20
"""What of a request that is wrong throughout is sent back."""
PROBLEM_CONTENT: dict[str, Any] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemView"}}}
"""What the OpenAPI document says of a refusal's body."""


class ProblemView(BaseModel):
    """A problem document; what it is about may add members, such as ``errors`` or ``names``."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = None
    request_id: str | None = None


def problem_response(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> JSONResponse:
    """One problem document, with the id of the request; members of ``extra`` that are None are left out."""
    body = {
        "type": f"urn:mixwright:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **{name: value for name, value in extra.items() if value is not None},
        **{name: value for name, value in bound_fields().items() if name == "request_id"},
    }
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every kind of failure of a request with a problem document.

    By coroutines, though they wait for nothing: what is refused costs no thread.
    """

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> JSONResponse:
        return problem_response(
            error.status, error.code, error.detail, error.headers, field=error.field, **error.extra
        )

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        complaints = [
            {
                "field": field_path(item["loc"])[:LONGEST_FIELD],
                "message": item["msg"][:LONGEST_MESSAGE],
                "code": item["type"],
            }
            for item in error.errors()[:MOST_COMPLAINTS]
        ]
        first = complaints[0]
        detail = f"{first['field']}: {first['message']}" if first["field"] else str(first["message"])
        return problem_response(422, "invalid_request", detail, field=first["field"], errors=complaints)

    @app.exception_handler(DBAPIError)
    @app.exception_handler(PoolTimeout)
    @app.exception_handler(OSError)
    async def _store(request: Request, error: Exception) -> JSONResponse:
        if (away := unavailable(error)) is None:
            raise error
        log.error("%s %s: %s", request.method, request.url.path, away.detail, exc_info=error)
        return await _problem(request, away)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).name.lower()
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": ", ".join(sorted(_methods_at(request.url.path, request.app)))}
        return problem_response(error.status_code, code, str(error.detail), headers)


def _methods_at(path: str, app: FastAPI) -> set[str]:
    """Every method there is at ``path``: the router itself names those of the first route that matches only."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    matching = [template for template in paths if compile_path(template)[0].match(path)]
    # ``/{id}`` matches ``/x:cancel`` too; the one with more of its own words is meant.
    closest = max(matching, key=lambda template: len(re.sub(r"{.*?}", "", template)), default=None)
    return {method.upper() for method in paths.get(closest or "", {})}


def field_path(location: tuple[Any, ...]) -> str:
    """``("body", "domains", 3, "name")`` as ``domains[3].name``."""
    path = ""
    for part in location[1:] if location and location[0] in ("body", "query", "path", "header") else location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
