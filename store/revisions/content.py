"""Which text a revision's domains are, as far as it is known: the keys that changes and lineages are found by."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from mixing.change.revision import Leaf
from store import jobs
from store.tables import DomainRow, Job, Revision

FILES = "files:"
"""Before a key of files that nobody has counted: equal ones are the same text, different ones say nothing."""


def is_counted(key: str | None) -> bool:
    """Whether a key is of the text itself, so that another one of its kind is another text."""
    return key is not None and not key.startswith(FILES)


def content_keys(session: Session, rows: Sequence[DomainRow]) -> dict[str, str | None]:
    """Domain name -> key of its text, for rows of one domain set.

    It is what counting found; else what was found of the same shard or the same unchanged files in another revision;
    else ``files:`` and their hash; None where nothing is known.
    """
    uncounted = [row for row in rows if row.content_hash is None]
    # Of other sets nothing is taken over: what pre-tokenized files say depends on the set's tokenizer.
    by_shard = _known(session, uncounted, DomainRow.shard_directory)
    by_files = _known(session, uncounted, DomainRow.files_hash)
    return {
        row.name: row.content_hash
        or by_shard.get(row.shard_directory or "")
        or by_files.get(row.files_hash or "")
        or (f"{FILES}{row.files_hash}" if row.files_hash else None)
        for row in rows
    }


def _known(
    session: Session, rows: Iterable[DomainRow], column: InstrumentedAttribute[str | None]
) -> dict[str, str]:
    """Value of ``column`` -> content, from counted rows of the same set that share one of the rows' values."""
    rows = list(rows)
    values = sorted({value for row in rows if (value := getattr(row, column.key)) is not None})
    if not values:
        return {}
    return known_contents(session, column, values, Revision.domain_set_id == rows[0].revision.domain_set_id)


def known_contents(
    session: Session,
    column: InstrumentedAttribute[str | None],
    values: Sequence[str],
    within: ColumnElement[bool],
) -> dict[str, str]:
    """Value of ``column`` -> content, of the counted domains that have one of ``values``."""
    query = (
        select(column, DomainRow.content_hash)
        .join(Revision, Revision.id == DomainRow.revision_id)
        .where(within, column.in_(values), DomainRow.content_hash.is_not(None))
        .distinct()
    )
    return {value: content for value, content in session.execute(query) if value and content}


def leaves_of(session: Session, revision: Revision) -> dict[str, Leaf]:
    """The revision's domains as the mathematics sees them."""
    return leaves(revision.domains, content_keys(session, revision.domains))


def leaves(rows: Iterable[DomainRow], keys: Mapping[str, str | None]) -> dict[str, Leaf]:
    """Tokens and key by domain name."""
    return {row.name: Leaf(row.tokens, keys[row.name]) for row in rows}


# How far a revision's preparation is, from its jobs: read by the API and waited for by the workers.


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
