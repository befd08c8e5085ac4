"""Whether a browser says that a request comes from one of this service's own pages.

Browsers set ``Sec-Fetch-Site`` and ``Origin`` themselves; no page can forge them. Programs that are no browsers send
neither, and nobody can make them send a cookie.
"""

from urllib.parse import urlsplit

from fastapi import Request

from store.problems import Forbidden

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
