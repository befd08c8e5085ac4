"""The published OpenAPI document: what FastAPI finds in the endpoints, and what holds for all of them.

Every refusal is a problem document, whoever refuses (the token check, the body limit, an endpoint), so that is said
here once and not at each endpoint.
"""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from service.http.errors import PROBLEM_CONTENT, ProblemView

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
