"""Fitting the regression to the swarm's runs and solving for the mixture, with its evidence."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_models.run_spec import HELD_OUT_PREFIX
from service.database import jobs
from service.database.models import Job, MixtureRow, Optimization, Run
from service.settings import Settings
from workers.jobs.revision_domains import token_counts

Document = dict[str, Any]


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """Every finished run by id, the lost ones with their reasons, and the objective."""
    optimization = session.get_one(Optimization, job.subject)
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
            result = run.result
            finished.append(
                {
                    "id": run.id,
                    "mixture": run.weights,
                    "metrics": result["final"],
                    "noise": result["noise"],
                }
            )
        else:
            lost.append({"run_id": run.id, "reason": f"{run_job.failure_code}: {run_job.failure_detail}"})
    wanted = ("target_tokens", "repetition_cap", "kl_weight", "tasks")
    return {
        "method": optimization.method,
        "seed": optimization.seed,
        "tokens": token_counts(optimization.revision),
        "runs": finished,
        "lost": lost,
        **{name: optimization.settings[name] for name in wanted},
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Propose the mixture."""
    # The solver takes a second to import, and the worker, which never solves, need not wait for it.
    from mixing.domains import Domains
    from mixing.evidence import RunEvidence
    from mixing.mixture import Mixture
    from mixing.proposal import ProposalRequest, propose

    proposal = propose(
        ProposalRequest(
            method=spec["method"],
            domains=Domains.of(spec["tokens"]),
            runs=tuple(
                RunEvidence(run["id"], Mixture.of(run["mixture"]), run["metrics"], run["noise"])
                for run in spec["runs"]
            ),
            objective=_objective(spec),
            target_tokens=spec["target_tokens"],
            repetition_cap=spec["repetition_cap"],
            kl_weight=spec["kl_weight"],
            seed=spec["seed"],
        )
    )
    return {"evidence": {**proposal.to_dict(), "runs_lost": spec["lost"]}}


def _objective(spec: Document) -> dict[str, float]:
    """The tasks' weights; without tasks every domain's held-out slice counts the same."""
    if spec["tasks"]:
        return {task["name"]: float(task["weight"]) for task in spec["tasks"]}
    return {f"{HELD_OUT_PREFIX}{name}": 1.0 for name in spec["tokens"]}


def store(session: Session, job: Job, result: Document) -> None:
    """Store the proposed mixture with its evidence, and the natural one to compare it with."""
    optimization = session.get_one(Optimization, job.subject)
    evidence = result["evidence"]
    for kind, weights, carried in (
        ("proposed", evidence["weights"], evidence),
        ("natural", evidence["natural"], None),
    ):
        session.add(
            MixtureRow(
                revision_id=optimization.revision_id,
                optimization_id=optimization.id,
                kind=kind,
                weights=weights,
                evidence=carried,
            )
        )
