"""What an optimization asked for, what it reuses and what its runs have measured: read by sampling and by solving."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import jobs
from store.tables import Job, Optimization, Revision, Run
from workers.claims.failures import JobError
from workers.jobs.accuracies import for_laws
from workers.jobs.reused_runs import describe_reuse, reuse_of

if TYPE_CHECKING:
    from mixing.question import Question
    from mixing.runs.evidence import RunEvidence

Document = dict[str, Any]


def describe_question(session: Session, optimization: Optimization) -> Document:
    """The domains with their tokens, what was asked for, every finished run, and the lost ones with their reasons."""
    query = (
        select(Run, Job)
        .join(Job, Job.subject == Run.id)
        .where(Job.owner == optimization.id, Job.kind == jobs.PROXY_RUN)
        .order_by(Job.position)
    )
    finished: list[Document] = []
    lost: list[Document] = []
    for run, run_job in session.execute(query):
        if run_job.state == jobs.SUCCEEDED and run.result is not None:
            finished.append(
                {
                    "id": run.id,
                    "mixture": run.weights,
                    "metrics": run.result["final"],
                    "noise": run.result["noise"],
                    "tokens": run.tokens,
                    "round": run.round,
                }
            )
        elif run_job.state in jobs.ENDED:
            lost.append({"run_id": run.id, "reason": f"{run_job.failure_code}: {run_job.failure_detail}"})
    return {
        **optimization.settings,
        "method": optimization.method,
        "seed": optimization.seed,
        "tokens": token_counts(optimization.revision),
        "proxy_tokens": (optimization.settings["proxy"] or {}).get("tokens"),
        "reuse": describe_reuse(session, optimization),
        "runs": finished,
        "lost": lost,
    }


def token_counts(revision: Revision) -> dict[str, int]:
    """Domain name -> N_j. Raises JobError naming a domain that has no count yet."""
    counts = {row.name: row.tokens for row in revision.domains}
    for name, tokens in counts.items():
        if tokens is None:
            raise JobError("data_missing", f"domain {name!r} has not been counted")
    return {name: tokens for name, tokens in counts.items() if tokens is not None}


def run_evidence(spec: Mapping[str, Any]) -> "tuple[RunEvidence, ...]":
    """The finished runs as the mathematics reads them; how much each trained is in units of the proxy's tokens."""
    from mixing.runs.evidence import RunEvidence

    return tuple(
        RunEvidence(
            id=run["id"],
            mixture=run["mixture"],
            metrics=for_laws(run["metrics"], spec["tasks"]),
            noise=run["noise"],
            tokens=(run["tokens"] or spec["proxy_tokens"]) / spec["proxy_tokens"],
            round=run["round"],
        )
        for run in spec["runs"]
    )


def question_of(spec: Mapping[str, Any]) -> "Question":
    """What was asked for, over the counted domains, with what it reuses."""
    from store.documents import OptimizationDocument

    # Under these two names the specification has what they came to: the runs themselves, and what is reused.
    document = OptimizationDocument.from_dict({**spec, "runs": 0, "reuse": None})
    return document.question(spec["tokens"], reuse_of(spec))
