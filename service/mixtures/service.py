"""Storing and describing mixtures."""

from typing import Any

from sqlalchemy.orm import Session, joinedload

from mixing.errors import MixingError
from mixing.mixture import Mixture
from service.database.models import MixtureRow, Revision
from service.domain_sets.repository import revision_of
from service.errors import NotFound, invalid
from service.mixtures.schemas import MixtureRequest, MixtureSummary, MixtureView


def mixture_with_id(session: Session, mixture_id: str) -> MixtureRow:
    """The mixture with its revision and domain set; raises NotFound."""
    row = session.get(
        MixtureRow,
        mixture_id,
        options=[joinedload(MixtureRow.revision).joinedload(Revision.domain_set)],
    )
    if row is None:
        raise NotFound("mixture", mixture_id)
    return row


def create_mixture(session: Session, request: MixtureRequest) -> str:
    """Store a mixture made by hand; raises Invalid naming the domain whose weight is wrong."""
    revision = revision_of(session, request.domain_set, request.revision)
    try:
        mixture = Mixture.of(request.weights)
        mixture.align([row.name for row in revision.domains])
    except MixingError as error:
        raise invalid(error, "weights") from error
    row = MixtureRow(
        revision_id=revision.id, kind="custom", name=request.name, weights=mixture.as_dict(), evidence=None
    )
    session.add(row)
    session.flush()
    return row.id


def summarize_mixture(row: MixtureRow) -> MixtureSummary:
    """A mixture in a list."""
    return MixtureSummary.model_validate(_summary(row))


def describe_mixture(row: MixtureRow) -> MixtureView:
    """A mixture with its weights and evidence."""
    return MixtureView.model_validate({**_summary(row), "weights": row.weights, "evidence": row.evidence})


def _summary(row: MixtureRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "optimization_id": row.optimization_id,
        "domain_set": row.revision.domain_set.name,
        "revision": row.revision.number,
        "kind": row.kind,
        "name": row.name,
        "created_at": row.created_at,
    }
