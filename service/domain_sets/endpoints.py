"""``/v1/domain-sets``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from sqlalchemy.orm import Session

from service.domain_sets import repository, revisions
from service.domain_sets.checks import check_tokenizer
from service.domain_sets.repository import retry_preparation, revision_of
from service.domain_sets.schemas import (
    DomainSetPlanView,
    DomainSetRequest,
    DomainSetView,
    RevisionPlanView,
    RevisionRequest,
    RevisionSummary,
    RevisionView,
)
from service.http.idempotency import Creation, IdempotentRequest, KeyHeader, do_once
from service.http.limits import check_domain_sets
from service.http.routes import (
    DatabaseDependency,
    ThreadRoute,
    slow,
)
from service.http.schemas import After, Limit, Page
from service.optimizations.schemas import TaskRequest
from service.training.checks import check_tasks
from store.tables import Revision

router = APIRouter(prefix="/v1/domain-sets", tags=["domain sets"], route_class=ThreadRoute)
Number = Annotated[int, Path(ge=1, lt=2**31, description="Of a revision, from 1.")]


@router.post(
    "",
    status_code=201,
    response_model=RevisionView | DomainSetPlanView,
    responses={200: {"model": DomainSetPlanView, "description": "With `dry_run`: what would be."}},
)
@slow
def create_domain_set(
    body: DomainSetRequest, creation: Annotated[Creation, Depends()]
) -> RevisionView | DomainSetPlanView:
    """Name a domain set and give its first revision; counting and tokenizing start at once."""
    settings, user = creation.settings, creation.user
    tokenizer = check_tokenizer(body.tokenizer, settings)
    domains = revisions.check_first_domains(body, settings, creation.compute)
    asked = [TaskRequest(**task.model_dump(exclude_unset=True), metric="bpb") for task in body.tasks]
    tasks = check_tasks(asked, settings)
    if creation.dry_run:
        creation.response.status_code = 200
        return DomainSetPlanView(domain_set=body.name, domains=[domain.view for domain in domains])

    def store(session: Session) -> str:
        check_domain_sets(session, settings, user)
        return revisions.create_domain_set(session, body, tokenizer, domains, tasks, user.name)

    revision_id = do_once(creation.database, IdempotentRequest("domain-sets", creation.key, body), store)
    return _created(creation, revision_id)


@router.get("")
def list_domain_sets(
    database: DatabaseDependency, after: After = None, limit: Limit = 50
) -> Page[DomainSetView]:
    """Every domain set, newest first."""
    with database.read() as session:
        return repository.DOMAIN_SETS.page(session, after, limit)


@router.get("/{name}", response_model=RevisionView)
def get_domain_set(name: str, database: DatabaseDependency) -> RevisionView:
    """The latest revision of a domain set."""
    with database.read() as session:
        return repository.describe_revision(session, revision_of(session, name))


@router.post(
    "/{name}/revisions",
    status_code=201,
    response_model=RevisionView | RevisionPlanView,
    responses={200: {"model": RevisionPlanView, "description": "With `dry_run`: what would be."}},
)
@slow
def create_revision(
    name: str, body: RevisionRequest, creation: Annotated[Creation, Depends()]
) -> RevisionView | RevisionPlanView:
    """Give the whole tree anew, or a patch; the answer names the parent and says what changed against it."""
    database, user = creation.database, creation.user.name
    request = IdempotentRequest(f"domain-sets/{name}/revisions", creation.key, body)
    with database.read() as session:
        made = None if creation.dry_run else request.earlier(session)
    if made is None:
        planned = revisions.plan_revision(database, name, body, creation.settings, creation.compute)
        if creation.dry_run:
            creation.response.status_code = 200
            return planned.view()
        made = do_once(database, request, lambda session: revisions.store_revision(session, planned, user))
    return _created(creation, made)


@router.get("/{name}/revisions")
def list_revisions(
    name: str, database: DatabaseDependency, after: After = None, limit: Limit = 50
) -> Page[RevisionSummary]:
    """Every revision of a domain set, newest first."""
    with database.read() as session:
        return repository.revision_page(session, name, after, limit)


@router.get("/{name}/revisions/{number:int}", response_model=RevisionView)
def get_revision(name: str, number: Number, database: DatabaseDependency) -> RevisionView:
    """One revision, its domains, and how far their preparation has come."""
    with database.read() as session:
        return repository.describe_revision(session, revision_of(session, name, number))


@router.post("/{name}/revisions/{number:int}:retry", status_code=202, response_model=RevisionView)
def retry_revision(
    name: str, number: Number, database: DatabaseDependency, key: KeyHeader = None
) -> RevisionView:
    """Prepare again what failed, after its files were put right."""
    request = IdempotentRequest(f"domain-sets/{name}/revisions/{number}:retry", key)
    do_once(database, request, lambda session: retry_preparation(session, name, number).id)
    return get_revision(name, number, database)


def _created(creation: Creation, revision_id: str) -> RevisionView:
    with creation.database.read() as session:
        view = repository.describe_revision(session, session.get_one(Revision, revision_id))
    creation.response.headers["Location"] = f"/v1/domain-sets/{view.domain_set}/revisions/{view.number}"
    return view
