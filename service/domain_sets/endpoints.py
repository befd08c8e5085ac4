"""``/v1/domain-sets``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from sqlalchemy.orm import Session, joinedload

from service.domain_sets import adoptions, repository, revisions
from service.domain_sets.adoptions import AdoptionRequest, AdoptionView
from service.domain_sets.checks import check_tokenizer
from service.domain_sets.repository import retry_preparation
from service.domain_sets.schemas import (
    DomainSetPlanView,
    DomainSetRequest,
    DomainSetView,
    RevisionPlanView,
    RevisionRequest,
    RevisionSummary,
    RevisionView,
)
from service.http.idempotency import Changing, Creation, IdempotentRequest, KeyHeader, do_once
from service.http.limits import User, check_domain_sets
from service.http.routes import (
    JSON,
    ComputeDependency,
    DatabaseDependency,
    ThreadRoute,
    slow,
)
from service.http.schemas import After, Limit, Page
from service.optimizations.schemas import TaskRequest
from service.processes.computation import Computation
from service.training.checks import check_tasks
from store.engine import Database
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
) -> Response | DomainSetPlanView:
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
def get_domain_set(name: str, database: DatabaseDependency, compute: ComputeDependency) -> Response:
    """The latest revision of a domain set."""
    return _document(database, compute, name)


@router.post(
    "/{name}/revisions",
    status_code=201,
    response_model=RevisionView | RevisionPlanView,
    responses={200: {"model": RevisionPlanView, "description": "With `dry_run`: what would be."}},
)
@slow
def create_revision(
    name: str, body: RevisionRequest, creation: Annotated[Creation, Depends()]
) -> Response | RevisionPlanView:
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
def get_revision(
    name: str, number: Number, database: DatabaseDependency, compute: ComputeDependency
) -> Response:
    """One revision, its domains, and how far their preparation has come."""
    return _document(database, compute, name, number)


@router.post("/{name}/revisions/{number:int}:retry", status_code=202, response_model=RevisionView)
def retry_revision(
    name: str, number: Number, changing: Annotated[Changing, Depends()], compute: ComputeDependency
) -> Response:
    """Prepare again what failed, after its files were put right."""
    endpoint = f"domain-sets/{name}/revisions/{number}:retry"
    changing.once(endpoint, lambda session: retry_preparation(session, name, number))
    return _document(changing.database, compute, name, number, status=202)


@router.post("/{name}/adoptions", status_code=201)
def adopt_mixture(
    name: str, body: AdoptionRequest, database: DatabaseDependency, user: User, key: KeyHeader = None
) -> AdoptionView:
    """Mark a mixture as the one in use from now on; what the set's later answers are compared with."""
    made = do_once(
        database,
        IdempotentRequest(f"domain-sets/{name}/adoptions", key, body),
        lambda session: adoptions.adopt(session, name, body, user.name),
    )
    with database.read() as session:
        return adoptions.adoption_with_id(session, made)


@router.get("/{name}/adoptions")
def list_adoptions(
    name: str, database: DatabaseDependency, after: After = None, limit: Limit = 50
) -> Page[AdoptionView]:
    """The mixture in use, then those that were before it."""
    with database.read() as session:
        return adoptions.adoption_page(session, name, after, limit)


def _created(creation: Creation, revision_id: str) -> Response:
    with creation.database.read() as session:
        revision = session.get_one(Revision, revision_id, options=[joinedload(Revision.domain_set)])
    name, number = revision.domain_set.name, revision.number
    answer = _document(creation.database, creation.compute, name, number, status=201)
    answer.headers["Location"] = f"/v1/domain-sets/{name}/revisions/{number}"
    return answer


def _document(
    database: Database, compute: Computation, name: str, number: int | None = None, status: int = 200
) -> Response:
    """A revision as JSON; a wide one is made outside this process."""
    with database.read() as session:
        is_wide = repository.is_wide(session, name, number)
    document = compute.read(is_wide, repository.revision_document, database, name, number)
    return Response(document, status, media_type=JSON)
