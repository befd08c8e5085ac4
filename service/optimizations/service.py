"""Creating, cancelling and retrying optimizations."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from mixing.domains import Domains
from mixing.errors import MixingError
from mixing.methods import Method, method_named
from mixing.repetition import check_target_reachable
from service.database import jobs
from service.database.clock import database_now
from service.database.models import Optimization, Revision
from service.domain_sets.repository import revision_of
from service.domain_sets.service import require_usable
from service.errors import Conflict, Invalid, invalid
from service.optimizations.repository import optimization_with_id
from service.optimizations.schemas import OptimizationRequest
from service.settings import Settings
from service.training_settings import check_tasks, check_training


@dataclass(frozen=True, slots=True)
class CheckedOptimization:
    """A request in which everything that does not need the store was found to be good."""

    request: OptimizationRequest
    method: Method
    tasks: list[dict[str, object]]


def check_request(request: OptimizationRequest, settings: Settings) -> CheckedOptimization:
    """Validate method, proxy and task files. Raises Invalid naming the field."""
    try:
        method = method_named(request.method)
    except MixingError as error:
        raise invalid(error, "method") from error
    if not method.trains_runs:
        raise Invalid(
            "method_without_runs",
            f"The method {method.name!r} trains nothing; POST its weights to /v1/mixtures instead.",
            "method",
        )
    if request.runs is not None and request.runs > settings.max_runs:
        raise Invalid("too_many_runs", f"At most {settings.max_runs} runs.", "runs")
    check_training(request.proxy, request.proxy.tokens, "proxy.")
    return CheckedOptimization(request, method, check_tasks(request.tasks, settings))


def create_optimization(session: Session, checked: CheckedOptimization) -> str:
    """Store the optimization; the workers take it from there. Answers its id."""
    request, method = checked.request, checked.method
    revision = revision_of(session, request.domain_set, request.revision)
    require_usable(session, revision)
    domains = len(revision.domains)
    runs = request.runs if request.runs is not None else method.default_runs(domains)
    needed = method.minimum_runs(domains)
    if runs < needed:
        raise Invalid(
            "too_few_runs",
            f"{method.title} over {domains} domains needs at least {needed} runs to fit its regression "
            f"({method.default_runs(domains)} are usual); {runs} were asked for.",
            "runs",
            needed=needed,
        )
    cap = request.repetition_cap if request.repetition_cap is not None else method.repetition_cap
    _check_target(revision, request.target_tokens, cap)
    row = Optimization(
        revision_id=revision.id,
        method=method.name,
        seed=request.seed,
        settings={
            "runs": runs,
            "target_tokens": request.target_tokens,
            "repetition_cap": cap,
            "kl_weight": request.kl_weight if request.kl_weight is not None else method.kl_weight,
            "strengths": list(request.strengths),
            "proxy": request.proxy.model_dump(),
            "tasks": checked.tasks,
        },
    )
    session.add(row)
    session.flush()
    return row.id


def _check_target(revision: Revision, target_tokens: int, cap: float | None) -> None:
    """Refuse at once a target no mixture reaches; with counts still missing, sampling the swarm checks it."""
    counts = {row.name: row.tokens for row in revision.domains}
    known = {name: tokens for name, tokens in counts.items() if tokens is not None}
    if len(known) < len(counts):
        return
    try:
        check_target_reachable(Domains.of(known), target_tokens, cap)
    except MixingError as error:
        raise invalid(error, "target_tokens") from error


def cancel(session: Session, optimization_id: str) -> Optimization:
    """Stop the optimization: nothing new starts, what runs ends at its next heartbeat, what is stored stays."""
    row = optimization_with_id(session, optimization_id)
    if row.state in jobs.ENDED:
        raise Conflict("already_ended", f"The optimization has {row.state} already.")
    jobs.cancel_jobs(session, row.id)
    row.state = jobs.CANCELLED
    _touch(row)
    return row


def retry(session: Session, optimization_id: str) -> Optimization:
    """Go on with a failed or cancelled optimization; runs that finished are kept, not trained again."""
    row = optimization_with_id(session, optimization_id)
    if row.state not in (jobs.FAILED, jobs.CANCELLED):
        raise Conflict(
            "not_ended", f"Only a failed or cancelled optimization is retried; this is {row.state}."
        )
    require_usable(session, row.revision)
    jobs.requeue_jobs(session, row.id)
    row.state = jobs.QUEUED
    row.failure_code = row.failure_detail = None
    _touch(row)
    return row


def _touch(row: Optimization) -> None:
    row.updated_at = database_now()  # pyright: ignore[reportAttributeAccessIssue] - an SQL expression, set on flush
