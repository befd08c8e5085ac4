"""Who may speak to the service: the operator's token, made on first start, and the tokens of users.

The operator's is in the environment or in a file its owner alone can read, and may do everything. `service.tokens`
has the others; `require_token` is what every route of the API asks before it reads a body.

A write by cookie must come from one of this service's own pages. Browsers set ``Sec-Fetch-Site`` and ``Origin``
themselves; no page forges them. Programs that are no browsers send neither, and nobody can make them send a cookie.
"""

from urllib.parse import urlsplit

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from service.tokens import Authenticator, Principal, Scope
from store.problems import Forbidden, Unauthorized

COOKIE = "mixwright_session"


def principal_of(request: Request) -> Principal | None:
    """Who sent the request, by bearer token or else by cookie; kept in ``request.state.principal``.

    Raises TooManyAttempts for an address that has sent too many wrong tokens, and Forbidden for another site's write.
    Blocking: call it from a thread.
    """
    authenticator: Authenticator = request.app.state.authenticator
    secret = _bearer_token(request)
    if secret is None:
        principal = authenticator.by_cookie(request.cookies.get(COOKIE, ""))
    else:
        principal = authenticator.by_token(secret, client_address(request)) if secret else None
    return _accepted(request, principal)


def _bearer_token(request: Request) -> str | None:
    """The token of the header, empty when it is of another kind; None without the header."""
    header = request.headers.get("authorization")
    if not header:
        return None
    scheme, _, given = header.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _accepted(request: Request, principal: Principal | None) -> Principal | None:
    if principal is not None:
        # A cookie is sent by the browser whoever asks it to, so a write by cookie shows where it comes from.
        require_same_origin(request, proven=not request.headers.get("authorization"))
    request.state.principal = principal
    return principal


def _recent_principal(request: Request) -> Principal | None:
    """Who sent the request where that was looked up a moment ago; asks nobody, so a coroutine may call it."""
    authenticator: Authenticator = request.app.state.authenticator
    secret = _bearer_token(request)
    return _accepted(request, authenticator.recent(secret, client_address(request))) if secret else None


def client_address(request: Request) -> str:
    """The address that sent the request; a proxy's, unless it is one of MIXWRIGHT_TRUSTED_PROXIES."""
    return request.client.host if request.client else "unknown"


def with_scope(request: Request, principal: Principal | None, scope: Scope) -> Principal:
    """The principal of a request who may do this; raises as `require_token` does."""
    if principal is None:
        if _bearer_token(request):
            raise Unauthorized(
                "unauthorized", "This service does not know the token that was sent, or not any more."
            )
        raise Unauthorized("unauthorized", "Send the token as 'Authorization: Bearer <token>'.")
    if scope not in principal.scopes:
        raise Forbidden(
            "insufficient_scope",
            f"This needs a token of scope {scope.value!r}; {principal.name!r} has "
            f"{', '.join(sorted(principal.scopes)) or 'none'}.",
            scope=scope.value,
        )
    return principal


async def require_token(request: Request, write: Scope = Scope.WRITE) -> Principal:
    """Who sent the request, by its head alone: ``read`` is for looking, ``write`` for everything else.

    Raises Unauthorized without a valid token, Forbidden for one that may not do this.
    """
    principal = getattr(request.state, "principal", None) or _recent_principal(request)
    principal = principal or await run_in_threadpool(principal_of, request)
    return with_scope(request, principal, Scope.READ if request.method in SAFE_METHODS else write)


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def require_same_origin(request: Request, *, proven: bool) -> None:
    """Raise Forbidden for a write from another site's page, and, if ``proven``, for one that says nothing."""
    if request.method in SAFE_METHODS:
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none") or not _is_own(request, origin, site):
        raise Forbidden("cross_origin", f"Writes from the origin {origin or site!r} are not accepted.")
    if proven and origin is None and site is None:
        raise Forbidden("cross_origin", "A write by cookie must come from a page of this service.")


def _is_own(request: Request, origin: str | None, site: str | None) -> bool:
    if origin is None:
        return True
    own = f"{request.base_url.scheme}://{request.base_url.netloc}"
    # Behind a proxy that ends TLS and is not trusted to say so, only the scheme differs.
    return origin == own or (site == "same-origin" and urlsplit(origin).netloc == request.base_url.netloc)
