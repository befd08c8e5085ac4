"""The mixture in use: one of a domain set, by whose word and why, and those before it."""

from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from service.domain_sets.repository import domain_set_named
from service.http.schemas import Listing, Page, RequestModel, Time, view_of, views_of
from store.problems import Invalid, existing
from store.tables import Adoption, DomainSet, MixtureRow, Optimization, Revision


class AdoptionRequest(RequestModel):
    """Which mixture is in use from now on, and why."""

    mixture_id: str = Field(max_length=64)
    why: str = Field(min_length=1, max_length=2_000, description="For who asks in a year.")


class AdoptionView(BaseModel):
    """A mixture in use; the first of a domain set's list is, the others were."""

    id: str
    domain_set: str
    mixture_id: str
    kind: str
    name: str | None
    optimization_id: str | None
    revision: int = Field(description="The one that the mixture is over.")
    latest_revision: int
    newer_optimizations: int = Field(
        description="Of the domain set, that succeeded after it was put into use."
    )
    why: str
    user: str = Field(description="Whose token it was.")
    adopted_at: Time

    @property
    def is_stale(self) -> bool:
        """Whether the domain set has a revision that the mixture is not over."""
        return self.revision < self.latest_revision

    @property
    def called(self) -> str:
        """Its name, or what is known of it where it has none."""
        return self.name or f"the {self.kind} mixture of revision {self.revision}"


_newest = aliased(Revision)
_of_revision = aliased(Revision)
_LATEST = (
    select(func.max(_newest.number))
    .where(_newest.domain_set_id == Adoption.domain_set_id)
    .correlate(Adoption)
    .scalar_subquery()
)
_NEWER = (
    select(func.count())
    .select_from(Optimization)
    .join(_of_revision, _of_revision.id == Optimization.revision_id)
    .where(
        _of_revision.domain_set_id == Adoption.domain_set_id,
        Optimization.state == "succeeded",
        Optimization.finished_at > Adoption.created_at,
    )
    .correlate(Adoption)
    .scalar_subquery()
)


def _query() -> Select[*tuple[Any, ...]]:
    return (
        select(
            Adoption.id,
            DomainSet.name.label("domain_set"),
            Adoption.mixture_id,
            MixtureRow.kind,
            MixtureRow.name,
            MixtureRow.optimization_id,
            Revision.number.label("revision"),
            _LATEST.label("latest_revision"),
            _NEWER.label("newer_optimizations"),
            Adoption.why,
            Adoption.user_name.label("user"),
            Adoption.created_at.label("adopted_at"),
        )
        .join(DomainSet, DomainSet.id == Adoption.domain_set_id)
        .join(MixtureRow, MixtureRow.id == Adoption.mixture_id)
        .join(Revision, Revision.id == MixtureRow.revision_id)
    )


_ADOPTIONS = Listing(
    _query().where(DomainSet.name == bindparam("domain_set_name")), Adoption.id, views_of(AdoptionView)
)
_ONE = _query().where(Adoption.id == bindparam("id"))


def adopt(session: Session, name: str, request: AdoptionRequest, user: str) -> str:
    """Put a mixture into use; the id of the adoption. Raises NotFound, Invalid for another set's mixture."""
    domain_set = domain_set_named(session, name)
    mixture = existing(session.get(MixtureRow, request.mixture_id), "mixture", request.mixture_id)
    if mixture.revision.domain_set_id != domain_set.id:
        raise Invalid(
            "other_domain_set",
            f"The mixture {mixture.id} is over {mixture.revision.domain_set.name!r}, not over {name!r}.",
            "mixture_id",
        )
    row = Adoption(domain_set_id=domain_set.id, mixture_id=mixture.id, why=request.why, user_name=user)
    session.add(row)
    session.flush()
    return row.id


def adoption_with_id(session: Session, adoption_id: str) -> AdoptionView:
    """One of them; raises NotFound."""
    row = session.execute(_ONE, {"id": adoption_id}).first()
    return view_of(AdoptionView, existing(row, "adoption", adoption_id))


def adoption_page(session: Session, name: str, after: str | None, limit: int) -> Page[AdoptionView]:
    """Those of a domain set, the one in use first; raises NotFound."""
    page = _ADOPTIONS.page(session, after, limit, domain_set_name=name)
    if not page.items:
        domain_set_named(session, name)
    return page


def history(session: Session, name: str, limit: int) -> list[AdoptionView]:
    """The newest of a domain set that is there, the one in use first; none before there was one."""
    return _ADOPTIONS.page(session, None, limit, domain_set_name=name).items


def all_in_use(session: Session, most: int) -> list[AdoptionView]:
    """The one in use of each domain set that has one, the newest first."""
    latest = select(func.max(Adoption.id)).group_by(Adoption.domain_set_id)
    query = _query().where(Adoption.id.in_(latest)).order_by(Adoption.id.desc()).limit(most)
    return [view_of(AdoptionView, row) for row in session.execute(query)]


def in_use(session: Session, name: str) -> AdoptionView | None:
    """The one in use of a domain set that is there; None before there was one."""
    return next(iter(history(session, name, 1)), None)
