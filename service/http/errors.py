"""Failures of a request as ``application/problem+json`` (RFC 9457), with a stable ``code``.

Every refusal is such a document, whoever refuses (the token check, the body limit, an endpoint), so the OpenAPI
document is told so here once and not at each endpoint.
"""

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from store.logs import bound_fields
from store.problems import Problem

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


Document = dict[str, Any]

_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_ALWAYS = (400, 401, 403, 422, 429)
_BY_PATH = (404,)
_BY_WRITE = (404, 409, 413)
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
    return document


def _operations(document: Document) -> Iterator[tuple[str, Document, bool]]:
    for path, item in document["paths"].items():
        for method in _METHODS & item.keys():
            yield path, item[method], method != "get"


def _problem(status: int) -> Document:
    return {"description": HTTPStatus(status).phrase, "content": PROBLEM_CONTENT}
