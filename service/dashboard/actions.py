"""Doing from a page what the API does: a form becomes the request of the API that it shows, sent within this process.

So the same scopes, limits, keys, checks and audit lines hold, whoever asks: the browser's cookie and what it says of
where it comes from go along, and are checked again. ``POST /do/v1/...`` takes the form's fields:

- ``body``, the JSON of the request;
- ``text:NAME`` and ``number:NAME``, members of it that were typed, dots for what is within; one that is empty takes
  the member out, so that the API's default holds, and ``none`` is JSON's null;
- ``domains:NAME`` and ``tasks:NAME``, a line for each: its name, its paths, and options as ``tokens=``, ``weight=``;
- ``key``, what two sendings of one form have in common: the second does nothing more;
- ``back``, where to go then; ``{made}`` in it is the id of what was created. What has a page is shown instead.
"""

import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

import httpx
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from service.dashboard.session import PageRoute, local
from service.dashboard.templating import page
from service.http.errors import ProblemView
from service.tokens import Scope
from store.problems import Invalid

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_KEPT = ("cookie", "host", "origin", "sec-fetch-site")
"""Of the browser's headers: who it is and where its form was."""
_SHOWN = ("/optimizations/", "/launches/")
"""Of what is created: what has a page under its address without ``/v1``."""
MOST_FIELDS = 100
_IN_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")


async def _may(request: Request) -> frozenset[Scope]:
    return request.state.principal.scopes


May = Annotated[frozenset[Scope], Depends(_may)]
"""What the one who looks at a page may do: no page has a button for more."""


@router.post("/do/v1/{path:path}")
async def act(path: str, request: Request) -> Response:
    """Send the form's request; then what it made, or the page it came from, or why it was refused."""
    fields = await form_of(request)
    back = local(fields.get("back", "/"))
    body = document_of(fields)
    answer = await send(request, f"/v1/{path}", body, key=fields.get("key"))
    if not answer.is_success:
        problem = ProblemView.model_validate_json(answer.content)
        return page("error.html", answer.status_code, title=problem.title, detail=problem.detail, back=back)
    made = answer.headers.get("location", "").removeprefix("/v1")
    there = back.replace("{made}", made.rpartition("/")[2])
    return RedirectResponse(made if made.startswith(_SHOWN) else there, HTTPStatus.SEE_OTHER)


async def send(
    request: Request, path: str, body: object, *, key: str | None = None, dry_run: bool = False
) -> httpx.Response:
    """The API's answer to a post of ``body`` by the one who sent ``request``, from where that came."""
    headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
    content = None if body is None else json.dumps(body)
    if content is not None:
        headers["content-type"] = "application/json"
    if key:
        headers["idempotency-key"] = hashlib.sha256(f"{key} {content}".encode()).hexdigest()
    client = (request.client.host, request.client.port) if request.client else ("unknown", 0)
    transport = httpx.ASGITransport(request.app, client=client)
    async with httpx.AsyncClient(transport=transport, base_url=str(request.base_url), timeout=None) as api:
        query = "?dry_run=true" if dry_run else ""
        return await api.post(quote(path) + query, content=content, headers=headers)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form as a browser sends it; raises Invalid for what no browser sends."""
    text = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise Invalid("bad_form", f"A form has at most {MOST_FIELDS} fields.") from error


def document_of(fields: Mapping[str, str]) -> Any:
    """The JSON that a form's fields are; None without any. Raises Invalid naming the field at fault."""
    try:
        document = json.loads(fields["body"]) if fields.get("body") else None
    except ValueError as error:
        raise Invalid("bad_json", f"The request is not JSON: {error}.", "body") from error
    for field, typed in fields.items():
        kind, _, name = field.partition(":")
        if not name:
            continue
        if not (document is None or isinstance(document, dict)):
            raise Invalid("bad_json", "The request is no JSON object.", "body")
        document = _with(document or {}, name.split("."), kind, typed.strip())
    return document


def _with(document: Mapping[str, Any], path: list[str], kind: str, typed: str) -> dict[str, Any]:
    first, *rest = path
    others = {name: value for name, value in document.items() if name != first}
    if rest:
        inner = document.get(first)
        within = _with(inner if isinstance(inner, dict) else {}, rest, kind, typed)
        return {**others, first: within} if within else others
    return {**others, first: _value(kind, first, typed)} if typed else others


def _value(kind: str, name: str, typed: str) -> object:
    if kind == "text":
        return typed
    if kind in _LISTED:
        return _lines(kind, name, typed)
    return None if typed.lower() == "none" else number_typed(name, typed)


_LISTED = {"domains": ("files", {"tokens"}), "tasks": ("path", {"weight", "metric", "family"})}
"""Of what is typed a line each, as ``name path option=value``: the member of the paths, and the options."""


def _lines(kind: str, name: str, typed: str) -> list[dict[str, Any]]:
    """Domains or tasks, one a line; raises Invalid naming the line."""
    member, options = _LISTED[kind]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(typed.splitlines(), 1):
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise Invalid("bad_line", f"{name}, line {number}: {error}.", name) from error
        if not words:
            continue
        row: dict[str, Any] = {"name": words[0]}
        paths: list[str] = []
        for word in words[1:]:
            option, is_option, value = word.partition("=")
            if is_option and option in options:
                row[option] = value if option in ("metric", "family") else number_typed(option, value)
            else:
                paths.append(word)
        if kind == "tasks" and len(paths) > 1:
            raise Invalid(
                "bad_line", f"{name}, line {number}: a task has one path, quote one with spaces.", name
            )
        if paths:
            row[member] = paths if kind == "domains" else paths[0]
        rows.append(row)
    return rows


def number_typed(name: str, typed: str) -> int | float:
    """The number somebody typed; raises Invalid naming the field, for no number and for a decimal comma."""
    plain = typed.replace(" ", "")
    if _IN_THOUSANDS.fullmatch(plain):  # any other comma may be a decimal one, and then 0,25 is not 25
        plain = plain.replace(",", "")
    try:
        number = int(plain) if plain.lstrip("+-").isdecimal() else float(plain)
    except ValueError as error:
        raise Invalid("bad_number", f"{name}: {typed[:100]!r} is not a number.", name) from error
    if not math.isfinite(number):
        raise Invalid("bad_number", f"{name}: {typed[:100]!r} is not a finite number.", name)
    return number
