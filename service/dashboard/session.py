"""Signing a browser in: by form, or by a link with ``?code=`` that is good once (`tokens.make_code`)."""

import gzip
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from service.dashboard.templating import page
from service.http.auth import (
    COOKIE,
    SAFE_METHODS,
    Authenticator,
    client_address,
    principal_of,
    require_same_origin,
)
from service.http.errors import field_path
from service.http.routes import ThreadRoute
from service.tokens import SESSION_SECONDS, Principal
from store.problems import Forbidden, Problem, TooManyAttempts

router = APIRouter(include_in_schema=False)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_UNKNOWN = "That is not a token of this service, or it is no longer valid."
_USED = "This link was used already, or is too old. Sign in with the token, which `mixwright token` prints."


class PageRoute(ThreadRoute):
    """A page: wants a signed-in browser, and says what went wrong as a page too."""

    def get_route_handler(self) -> _Handler:
        """The route's handler behind the sign-in and with its errors rendered."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                detour = await run_in_threadpool(_detour, request)
                return await _packed(request, await answer(request)) if detour is None else detour
            except Problem as error:
                title = HTTPStatus(error.status).phrase
                return _with(
                    error.headers, page("error.html", error.status, title=title, detail=error.detail)
                )
            except RequestValidationError as error:
                first = error.errors()[0]
                detail = f"{field_path(first['loc'])}: {first['msg']}"
                return page("error.html", 422, title="The address is not valid", detail=detail)

        return handle


WORTH_PACKING = 4096
"""Bytes of a page that is sent packed: less fits into the first round trip anyway."""


async def _packed(request: Request, response: Response) -> Response:
    """The page as a browser that takes gzip gets it. Nothing in a page is secret and guessed byte by byte."""
    is_wanted = "gzip" in request.headers.get("accept-encoding", "")
    if isinstance(response, HTMLResponse) and len(response.body) >= WORTH_PACKING:
        response.headers["vary"] = "Accept-Encoding"
        if is_wanted:
            response.body = await run_in_threadpool(gzip.compress, bytes(response.body), 6)
            response.headers["content-encoding"] = "gzip"
            response.headers["content-length"] = str(len(response.body))
    return response


def _detour(request: Request) -> Response | None:
    """What a request gets instead of its page: its clean address with a cookie, or the way to sign in."""
    code = request.query_params.get("code")
    if code is not None and request.method in SAFE_METHODS:
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Forbidden(
                "cross_origin", "A link on another site signs nobody in: open the address itself."
            )
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "code"]
        clean = request.url.path + (f"?{urlencode(rest)}" if rest else "")
        return _try(request, clean, lambda known: known.by_code(code, client_address(request)), _USED)
    if principal_of(request) is not None:
        return None
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method not in SAFE_METHODS:
        wanted = "/"  # what a form posts to is no page to come back to
    return RedirectResponse(f"/login?next={quote(wanted, safe='')}", HTTPStatus.SEE_OTHER)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """The form."""
    return _form(request, next)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Check the token; a body that is no form is a form without a token."""
    require_same_origin(request, proven=False)
    body = await request.body()
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8) if body.count(b"&") < 8 else {}
    wanted, given = fields.get("next", ["/"])[0], fields.get("token", [""])[0]
    secret = given.strip()

    def ask(authenticator: Authenticator) -> Principal | None:
        return authenticator.by_token(secret, client_address(request)) if secret else None

    return await run_in_threadpool(_try, request, wanted, ask, _UNKNOWN)


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the browser's session."""
    require_same_origin(request, proven=False)
    authenticator: Authenticator = request.app.state.authenticator
    authenticator.sign_out(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _try(
    request: Request, wanted: str, ask: Callable[[Authenticator], Principal | None], complaint: str
) -> Response:
    """Sign in whom the authenticator finds, or show the form with the reason why not."""
    try:
        principal = ask(request.app.state.authenticator)
    except TooManyAttempts as error:
        return _with(error.headers, _form(request, wanted, error.detail, error.status))
    if principal is None:
        return _form(request, wanted, complaint)
    request.state.principal = principal
    return _signed_in(request, principal, local(wanted))


def _signed_in(request: Request, principal: Principal, target: str) -> Response:
    response = RedirectResponse(target, HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        COOKIE,
        request.app.state.authenticator.sign_in(principal),
        max_age=SESSION_SECONDS,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _with(headers: Mapping[str, str] | None, response: Response) -> Response:
    response.headers.update(headers or {})
    return response


def _form(request: Request, wanted: str, complaint: str | None = None, status: int | None = None) -> Response:
    usual = HTTPStatus.UNAUTHORIZED if complaint else HTTPStatus.OK
    return page("login.html", status or usual, next=local(wanted), complaint=complaint)


def local(target: str) -> str:
    """``target`` when it is an address of this service, else the first page: no link leads elsewhere.

    Browsers read ``//host`` and ``/\\host`` as another site.
    """
    parts = urlsplit(target)
    is_path = target.startswith("/") and not target.startswith("//") and "\\" not in target
    is_clean = target.isprintable() and not parts.scheme and not parts.netloc
    return target if is_path and is_clean else "/"
