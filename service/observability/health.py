"""``/healthz`` (the process answers) and ``/readyz`` (what it needs answers too). Neither wants a token."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from service.http.errors import PROBLEM_CONTENT, problem_response
from service.observability.readiness import Readiness

router = APIRouter(tags=["health"])


class Ready(BaseModel):
    """Every check with ``ok``, or with what a running process can live with."""

    database: str
    broker: str
    storage: str
    artifact_store: str | None = None


def _readiness(request: Request) -> Readiness:
    return request.app.state.readiness


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The web process is alive."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Ready,
    response_model_exclude_none=True,
    responses={503: {"content": PROBLEM_CONTENT, "description": "What cannot be used."}},
)
def readyz(readiness: Annotated[Readiness, Depends(_readiness)]) -> Ready | JSONResponse:
    """Database (and its schema), broker, storage and artifact store can be used; 503 naming what cannot."""
    checks = readiness.checks()
    broken = {name: check.detail for name, check in checks.items() if not check.is_good}
    lines = {name: check.detail for name, check in checks.items()}
    if not broken:
        return Ready(**lines)
    detail = "; ".join(f"{name}: {line}" for name, line in broken.items())
    return problem_response(503, "not_ready", detail, {"Retry-After": "5"}, checks=lines)
