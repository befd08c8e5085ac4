"""Fitting the regression to the swarm's runs and solving for the mixture, with its evidence."""

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.question import JobQuestion
from store.settings import Settings
from store.tables import PROPOSED, Document, Job, MixtureRow, Optimization


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """What was asked for, every finished run by id, and the lost ones with their reasons."""
    return JobQuestion.of(session, session.get_one(Optimization, job.owner)).to_dict()


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Propose the mixture."""
    # The solver takes a second to import, and the worker, which never solves, need not wait for it.
    from mixing.answer.untrained import baseline, renormalised

    asked = JobQuestion.from_dict(spec)
    question = asked.question()
    if question.recipe is None:
        evidence = baseline(question)
    elif (ratios := asked.kept_ratios()) is not None:
        evidence = renormalised(question, ratios)
    else:
        from mixing.answer.proposal import propose

        evidence = asked.with_standard_errors(propose(question, asked.evidence()).to_dict())
    if asked.document.swarms:
        evidence["recipe"]["sampler"] = "as given"
    of_text = [{"code": "text", "message": said} for said in asked.warnings]
    evidence["warnings"] = [*evidence["warnings"], *of_text]
    evidence = asked.with_stop(evidence)
    return {"evidence": {**evidence, "runs_lost": list(asked.lost)}}


def store(session: Session, job: Job, result: Document) -> None:
    """Store the proposed mixture with its evidence, and the natural one to compare it with.

    What was proposed before an extension stays, by its number: it may be in use.
    """
    optimization = session.get_one(Optimization, job.owner)
    evidence = result["evidence"]
    query = select(MixtureRow).where(MixtureRow.optimization_id == optimization.id)
    made = {row.kind: row for row in session.scalars(query)}
    if (earlier := made.pop(PROPOSED, None)) is not None:
        earlier.kind = f"{PROPOSED}-{job.position}"
        session.flush()
    for kind, weights, carried in (
        (PROPOSED, evidence["weights"], evidence),
        ("natural", evidence["natural"], None),
    ):
        if kind in made:
            continue
        session.add(
            MixtureRow(
                revision_id=optimization.revision_id,
                optimization_id=optimization.id,
                kind=kind,
                weights=weights,
                evidence=carried,
            )
        )
