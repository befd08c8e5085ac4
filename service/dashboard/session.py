"""Signing a browser in: by form, or by a link with ``?token=`` that is cleaned at once."""

import hmac
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from service.auth import COOKIE, is_authorized, session_cookie
from service.dashboard.templating import page
from service.errors import Problem, field_path

router = APIRouter(include_in_schema=False)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A page: wants a signed-in browser, and says what went wrong as a page too."""

    def get_route_handler(self) -> _Handler:
        """The route's handler behind the sign-in and with its errors rendered."""
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            detour = _detour(request)
            if detour is not None:
                return detour
            try:
                return await answer(request)
            except Problem as error:
                return page(
                    "error.html", error.status, title=HTTPStatus(error.status).phrase, detail=error.detail
                )
            except RequestValidationError as error:
                first = error.errors()[0]
                detail = f"{field_path(first['loc'])}: {first['msg']}"
                return page("error.html", 422, title="The address is not valid", detail=detail)

        return handle


def _detour(request: Request) -> Response | None:
    """What a request gets instead of its page: its clean address with a cookie, or the way to sign in."""
    given = request.query_params.get("token")
    if given is not None:
        if not _is_token(request, given):
            return _form(request, request.url.path, "This link's token is not the one of this service.")
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        clean = request.url.path + (f"?{urlencode(rest)}" if rest else "")
        return _signed_in(request, _local(clean))
    if is_authorized(request, request.app.state.token):
        return None
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(wanted, safe='')}", HTTPStatus.SEE_OTHER)


@router.get("/login")
def show_login(request: Request, next: str = "/") -> Response:
    """The form."""
    return _form(request, next)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Check the token; a body that is no form is a form without a token."""
    body = await request.body()
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8) if body.count(b"&") < 8 else {}
    wanted = fields.get("next", ["/"])[0]
    if not _is_token(request, fields.get("token", [""])[0].strip()):
        return _form(request, wanted, "That is not the token of this service.")
    return _signed_in(request, _local(wanted))


@router.post("/logout")
def log_out() -> Response:
    """Forget the browser's session."""
    response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


def _is_token(request: Request, given: str) -> bool:
    return hmac.compare_digest(given.encode(), request.app.state.token.encode())


def _signed_in(request: Request, target: str) -> Response:
    response = RedirectResponse(target, HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store"})
    response.set_cookie(
        COOKIE,
        session_cookie(request.app.state.token),
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _form(request: Request, wanted: str, complaint: str | None = None) -> Response:
    status = HTTPStatus.UNAUTHORIZED if complaint else HTTPStatus.OK
    return page("login.html", status, next=_local(wanted), complaint=complaint)


def _local(target: str) -> str:
    """``target`` when it is an address of this service, else the first page: no link leads elsewhere.

    Browsers read ``//host`` and ``/\\host`` as another site.
    """
    parts = urlsplit(target)
    is_path = target.startswith("/") and not target.startswith("//") and "\\" not in target
    is_clean = target.isprintable() and not parts.scheme and not parts.netloc
    return target if is_path and is_clean else "/"
