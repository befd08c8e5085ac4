"""Whether a revision can be used, and preparing again what failed."""

from sqlalchemy.orm import Session

from service.domain_sets.repository import jobs_of, revision_of
from store import jobs
from store.problems import Conflict, NotReady
from store.revisions.preparation import preparation_failure, preparation_state
from store.tables import Revision


def require_usable(session: Session, revision: Revision) -> None:
    """Raise NotReady when the revision's preparation failed; one still under way is fine, jobs wait for it."""
    work = jobs_of(session, revision.id)
    if preparation_state(revision, work) in (jobs.FAILED, jobs.CANCELLED):
        code, detail = preparation_failure(revision, work) or ("revision_cancelled", "it was cancelled.")
        raise NotReady(
            code,
            f"Revision {revision.number} of {revision.domain_set.name!r} cannot be used: {detail}",
            "revision",
        )


def retry_preparation(session: Session, name: str, number: int) -> Revision:
    """Queue the failed parts of a revision's preparation again, for when its files were put right."""
    revision = revision_of(session, name, number)
    if jobs.requeue_jobs(session, revision.id) == 0:
        raise Conflict("nothing_to_retry", f"No part of revision {number} of {name!r} has failed.")
    return revision
