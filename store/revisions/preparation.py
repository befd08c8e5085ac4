"""How far a revision's preparation is, from its jobs: read by the API and waited for by the workers."""

from collections.abc import Mapping, Sequence

from store import jobs
from store.tables import Job, Revision


def preparation_state(states: Mapping[str, int], domains: int) -> str:
    """``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``.

    From how many of the preparation's jobs are in each of the ``states``, and how many domains the revision has.
    """
    for ended_badly in (jobs.FAILED, jobs.CANCELLED):
        if states.get(ended_badly):
            return ended_badly
    # One job for the tokenizer and one a domain; the latter are made when the tokenizer is there.
    if states.get(jobs.SUCCEEDED) == domains + 1:
        return jobs.SUCCEEDED
    return jobs.RUNNING if set(states) - {jobs.QUEUED} else jobs.QUEUED


def preparation_failure(revision: Revision, work: Sequence[Job]) -> tuple[str, str] | None:
    """Code and sentence of the first failed preparation job, naming the domain; None without one."""
    names = {row.id: repr(row.name) for row in revision.domains}
    for job in work:
        if job.state == jobs.FAILED and job.failure_code:
            detail = job.failure_detail or ""
            name = names.get(job.subject)
            if name is None:
                detail = f"The tokenizer: {detail}"
            elif name not in detail:
                detail = f"Domain {name}: {detail}"
            return job.failure_code, detail
    return None
