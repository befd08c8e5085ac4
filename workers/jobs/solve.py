"""Fitting the regression to the swarm's runs and solving for the mixture, with its evidence."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from store.settings import Settings
from store.tables import Job, MixtureRow, Optimization
from workers.jobs.accuracies import with_standard_errors
from workers.jobs.reused_runs import kept_ratios
from workers.jobs.swarm_evidence import describe_question, question_of, run_evidence

Document = dict[str, Any]


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """What was asked for, every finished run by id, and the lost ones with their reasons."""
    return describe_question(session, session.get_one(Optimization, job.owner))


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Propose the mixture."""
    # The solver takes a second to import, and the worker, which never solves, need not wait for it.
    from mixing.answer.untrained import baseline, renormalised

    question = question_of(spec)
    if question.recipe is None:
        return {"evidence": {**baseline(question), "runs_lost": []}}
    if (ratios := kept_ratios(spec)) is not None:
        return {"evidence": {**renormalised(question, ratios), "runs_lost": []}}

    from mixing.answer.proposal import propose

    evidence = with_standard_errors(propose(question, run_evidence(spec)).to_dict(), spec)
    return {"evidence": {**evidence, "runs_lost": spec["lost"]}}


def store(session: Session, job: Job, result: Document) -> None:
    """Store the proposed mixture with its evidence, and the natural one to compare it with."""
    optimization = session.get_one(Optimization, job.owner)
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
