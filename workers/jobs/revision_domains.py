"""What a prepared revision's domains were counted to."""

from store.tables import Revision
from workers.claims.failures import JobError


def token_counts(revision: Revision) -> dict[str, int]:
    """Domain name -> N_j. Raises JobError naming a domain that has no count yet."""
    counts = {row.name: row.tokens for row in revision.domains}
    for name, tokens in counts.items():
        if tokens is None:
            raise JobError("data_missing", f"domain {name!r} has not been counted")
    return {name: tokens for name, tokens in counts.items() if tokens is not None}
