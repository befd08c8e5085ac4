"""The one Jinja environment: everything is escaped, nothing undefined passes silently."""

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.dashboard import decision, formatting, sentences
from service.optimizations.cost import time_source
from service.tokens import Scope

_HERE = Path(__file__).parent
_FILTERS = (
    formatting.quantity,
    formatting.size,
    formatting.flops,
    formatting.count,
    formatting.percent,
    formatting.bpb,
    formatting.signed,
    formatting.decimals,
    formatting.plain,
    formatting.duration,
    formatting.moment,
    formatting.ago,
    formatting.interval,
    formatting.model_name,
    formatting.rounding,
    formatting.unit_of,
    formatting.signed_percent,
    sentences.changes_sentence,
    sentences.why_not_counted,
    time_source,
)


def scope_of(path: str) -> Scope:
    """What it takes to post to an address of the API."""
    return Scope.LAUNCH if path.startswith("/v1/launches") else Scope.WRITE


def _static(name: str) -> str:
    """The address of a static file; its content is part of it, so an old copy is never used for a new one."""
    digest = hashlib.sha256((_HERE / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({shown.__name__: shown for shown in _FILTERS})
    names = ("dashboard.css", "refresh.js", "tables.js", "what_if.js", "favicon.svg")
    environment.globals.update(
        gain_words=decision.gain_words,
        between_words=decision.between_words,
        scope_of=scope_of,
        objective_unit=formatting.objective_unit,
        unit_of_metric=formatting.unit_of_metric,
        static={name: _static(name) for name in names},
    )
    return environment


ENVIRONMENT = _environment()


def page(template: str, status: int = HTTPStatus.OK, /, **values: Any) -> HTMLResponse:
    """The rendered page; no cache keeps it, because signing out must mean something."""
    html = ENVIRONMENT.get_template(template).render(**values)
    return HTMLResponse(html, status, headers={"Cache-Control": "no-store"})
