"""The published OpenAPI document, completed: every refusal, and which answer names what another request asks for.

Every refusal is a problem document, whoever refuses (the token check, the body limit, an endpoint), so it is told
here once and not at each endpoint. So are the links: a list's items, and what a create answers, have the names that
the addresses below theirs take.
"""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from service.http.errors import PROBLEM_CONTENT, ProblemView

Document = dict[str, Any]

_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_ALWAYS = (400, 401, 403, 422, 429, 503)
_BY_PATH = (404,)
_BY_WRITE = (404, 408, 409, 413)
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
    for path, method, answer in _answers(document):
        if links := dict(_links(document, path, method)):
            answer["links"] = links
    return document


_NAMES = {"/v1/domain-sets": "name", "/v1/pools": "name", "/v1/domain-sets/{name}/revisions": "number"}
"""By what the items of a list are asked for; others have an ``id``."""


def _answers(document: Document) -> Iterator[tuple[str, str, Document]]:
    """The good answer of every operation on a list, with JSON in it."""
    for path, item in document["paths"].items():
        for method in {"get", "post"} & item.keys():
            good = next(
                (answer for status, answer in item[method]["responses"].items() if status < "300"), None
            )
            if good is not None and path.startswith("/v1/") and "application/json" in good.get("content", {}):
                yield path, method, good


def _links(document: Document, path: str, method: str) -> Iterator[tuple[str, Document]]:
    """To every operation whose address is this one's with one more part, and what follows on that."""
    name = _NAMES.get(path, "id")
    listed = "get" in document["paths"][path]
    below = re.compile(re.escape(path) + r"/\{(\w+)\}[^{}]*")
    for other, item in document["paths"].items():
        if not (listed and (match := below.fullmatch(other))):
            continue
        # What a new domain set is answered with is its first revision.
        made = "domain_set" if path == "/v1/domain-sets" else name
        place = f"/items/0/{name}" if method == "get" else f"/{made}"
        given = {part: f"$request.path.{part}" for part in re.findall(r"\{(\w+)\}", path)}
        given[match[1]] = f"$response.body#{place}"
        for operation in (item[one] for one in _METHODS & item.keys()):
            yield operation["operationId"], {"operationId": operation["operationId"], "parameters": given}


def _operations(document: Document) -> Iterator[tuple[str, Document, bool]]:
    for path, item in document["paths"].items():
        for method in _METHODS & item.keys():
            yield path, item[method], method != "get"


def _problem(status: int) -> Document:
    return {"description": HTTPStatus(status).phrase, "content": PROBLEM_CONTENT}
