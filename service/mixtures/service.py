"""Storing and describing mixtures."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Select, Text, bindparam, cast, select
from sqlalchemy.orm import Session, joinedload

from mixing.domains import Mixture
from mixing.errors import MixingError
from mixing.limits import BINDING
from service.domain_sets.repository import revision_of
from service.http.schemas import Listing, Name, RequestModel, Time, Weights, view_of, views_of
from store.problems import Invalid, existing, invalid
from store.revisions.shared_text import shared_sets, unique_shares
from store.tables import DomainSet, MixtureRow, Revision


class MixtureRequest(RequestModel):
    """A mixture made by hand, or the one now in use: every domain of the revision with its weight."""

    domain_set: Name
    revision: int | None = Field(default=None, ge=1, lt=2**31)
    name: Name
    weights: Weights = Field(min_length=1, max_length=20_000)


class MixtureSummary(BaseModel):
    """A mixture in a list."""

    id: str
    optimization_id: str | None
    domain_set: str
    revision: int
    kind: str
    name: str | None
    created_at: Time


class MixtureView(MixtureSummary):
    """Weights by domain name; a proposed mixture carries its evidence."""

    weights: Weights
    evidence: dict[str, Any] | None


def mixture_with_id(session: Session, mixture_id: str) -> MixtureRow:
    """The mixture with its revision and domain set; raises NotFound."""
    options = [joinedload(MixtureRow.revision).joinedload(Revision.domain_set)]
    return existing(session.get(MixtureRow, mixture_id, options=options), "mixture", mixture_id)


def create_mixture(session: Session, request: MixtureRequest) -> str:
    """Store a mixture made by hand; raises Invalid naming the domain whose weight is wrong."""
    revision = revision_of(session, request.domain_set, request.revision)
    try:
        mixture = Mixture.of(request.weights, over=[row.name for row in revision.domains])
    except MixingError as error:
        raise invalid(error, "weights") from error
    row = MixtureRow(
        revision_id=revision.id, kind="custom", name=request.name, weights=mixture.as_dict(), evidence=None
    )
    session.add(row)
    session.flush()
    return row.id


def check_repetition(mixture: MixtureRow, tokens: int | None, cap: float | None) -> None:
    """Raise Invalid for a training run that reads a domain more often than the cap; None for what is not known."""
    if tokens is not None and cap is not None:
        check_epochs(mixture.revision, mixture.weights, tokens, cap)


def check_epochs(revision: Revision, weights: Mapping[str, float], tokens: int, cap: float) -> None:
    """As `check_repetition`, of any weights over the domains of a revision."""
    shares = unique_shares(revision)
    read: dict[str, float] = {}
    for row in revision.domains:
        weight = float(weights[row.name])
        if row.tokens is None or weight == 0.0:
            continue
        read[row.name] = epochs = weight * tokens / (row.tokens * shares.get(row.name, 1.0))
        if epochs > cap * (1 + BINDING):
            raise Invalid(
                "over_cap",
                f"Domain {row.name!r} has {row.tokens} tokens; a weight of {weight:.4f} within {tokens} "
                f"tokens reads them {epochs:.2f} times, over the cap of {cap:g}.",
                "repetition_cap",
            )
    for names in shared_sets(revision):
        epochs = sum(read.get(name, 0.0) for name in names)
        if epochs > cap * (1 + BINDING):
            raise Invalid(
                "over_cap",
                f"Domains {', '.join(map(repr, names))} hold the same text, which {tokens} tokens of this"
                f" mixture read {epochs:.2f} times, over the cap of {cap:g}.",
                "repetition_cap",
            )


def summarize_mixture(row: MixtureRow) -> MixtureSummary:
    """A mixture in a list; the row comes with its revision and domain set."""
    revision = row.revision
    return view_of(MixtureSummary, row, domain_set=revision.domain_set.name, revision=revision.number)


_SUMMARY = (
    MixtureRow.id,
    MixtureRow.optimization_id,
    DomainSet.name.label("domain_set"),
    Revision.number.label("revision"),
    MixtureRow.kind,
    MixtureRow.name,
    MixtureRow.created_at,
)


def _with_revision(*columns: Any) -> Select[*tuple[Any, ...]]:
    return (
        select(*columns)
        .join(Revision, Revision.id == MixtureRow.revision_id)
        .join(DomainSet, DomainSet.id == Revision.domain_set_id)
    )


MIXTURES = Listing(_with_revision(*_SUMMARY), MixtureRow.id, views_of(MixtureSummary))
_STORED = (MixtureRow.weights, MixtureRow.evidence)
_ONE, _ONE_AS_STORED = (
    _with_revision(*_SUMMARY, *columns).where(MixtureRow.id == bindparam("id"))
    for columns in (_STORED, [cast(column, Text).label(column.key) for column in _STORED])
)


def describe_mixture(session: Session, mixture_id: str) -> MixtureView:
    """A mixture with its weights and evidence; raises NotFound."""
    row = existing(session.execute(_ONE, {"id": mixture_id}).first(), "mixture", mixture_id)
    return view_of(MixtureView, row)


def mixture_document(session: Session, mixture_id: str) -> bytes:
    """JSON of the same: weights and evidence, which may be megabytes, as they are stored, read by nobody."""
    row = existing(session.execute(_ONE_AS_STORED, {"id": mixture_id}).first(), "mixture", mixture_id)
    summary = view_of(MixtureSummary, row).model_dump_json()
    document = f'{summary.removesuffix("}")},"weights":{row.weights},"evidence":{row.evidence or "null"}}}'
    return document.encode()
