"""What goes wrong in a request, as ``application/problem+json`` (RFC 9457) with a stable ``code``.

- Problem
  - NotFound             404  nothing has that id
  - Conflict             409  the request contradicts what is already there
  - NotReady             409  what the request needs is still being prepared
    - NotCounted         409  it will be: ask again (``Retry-After``)
  - Invalid              422  a field is wrong; ``field`` names it
  - BodyTooLarge         413
  - Unauthorized         401
  - Forbidden            403
  - TooManyAttempts      429
  - Unavailable          503  a store of corpora or artifacts does not answer (``Retry-After``)
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from mixing.errors import MixingError
from store.logs import bound_fields

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


class Problem(Exception):
    """A request that cannot be done, with what is at fault and what to do about it."""

    status: int = 500
    headers: Mapping[str, str] | None = None

    def __init__(self, code: str, detail: str, field: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.field = field
        self.extra = extra


class NotFound(Problem):
    """Nothing has the id that was asked for."""

    status = 404

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"{what.replace(' ', '_')}_not_found", f"There is no {what} {name!r}.")


class Conflict(Problem):
    """The request contradicts what is already stored."""

    status = 409


class NotReady(Problem):
    """What the request needs is still being prepared, or its preparation failed."""

    status = 409


class NotCounted(NotReady):
    """The domains are still being counted: the same request will do later."""

    headers = MappingProxyType({"Retry-After": "5"})


class Invalid(Problem):
    """A field of the request is wrong."""

    status = 422


class Unavailable(Problem):
    """Something the service itself needs does not answer; the same request may do later."""

    status = 503
    headers = MappingProxyType({"Retry-After": "5"})


class BodyTooLarge(Problem):
    """The body is longer than the operator allows."""

    status = 413


class Unauthorized(Problem):
    """No token, or one this service does not know."""

    status = 401
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    """The request comes from somewhere it may not come from."""

    status = 403


class TooManyAttempts(Problem):
    """Too many wrong tokens came from one address."""

    status = 429

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(
            "too_many_attempts",
            f"Too many wrong tokens came from this address; try again in {wait_seconds} s.",
        )
        self.headers = MappingProxyType({"Retry-After": str(wait_seconds)})


def invalid(error: MixingError, field: str | None = None) -> Invalid:
    """The mathematics' own complaint about an input, as an answer to the request that sent it."""
    return Invalid(error.code, str(error), field or error.field, names=list(error.names))


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
    """Answer every kind of failure of a request with a problem document."""

    @app.exception_handler(Problem)
    def _problem(_request: Request, error: Problem) -> JSONResponse:
        return problem_response(
            error.status, error.code, error.detail, error.headers, field=error.field, **error.extra
        )

    @app.exception_handler(RequestValidationError)
    def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
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

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
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
