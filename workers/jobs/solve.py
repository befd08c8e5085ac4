"""Fitting the regression to the swarm's runs and solving for the mixture, with its evidence."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from store.settings import Settings
from store.tables import Job, MixtureRow, Optimization
from workers.jobs.accuracies import with_standard_errors
from workers.jobs.reused_runs import kept_ratios, reuse_of
from workers.jobs.swarm_evidence import (
    constraints_of,
    describe_question,
    guard_rails_of,
    objective_of,
    run_evidence,
)

if TYPE_CHECKING:
    from mixing.answer.untrained import BaselineRequest

Document = dict[str, Any]


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """What was asked for, every finished run by id, and the lost ones with their reasons."""
    return describe_question(session, session.get_one(Optimization, job.owner))


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Propose the mixture."""
    # The solver takes a second to import, and the worker, which never solves, need not wait for it.
    if spec["recipe"] is None:
        from mixing.answer.untrained import baseline

        return {"evidence": {**baseline(_baseline_asked(spec)), "runs_lost": []}}
    if (ratios := kept_ratios(spec)) is not None:
        from mixing.answer.untrained import renormalised

        return {"evidence": {**renormalised(_baseline_asked(spec), ratios), "runs_lost": []}}

    from mixing.answer.proposal import propose
    from mixing.domains import Domains
    from mixing.methods import Recipe
    from mixing.question import ProposalRequest

    proposal = propose(
        ProposalRequest(
            method=spec["method"],
            domains=Domains.of(spec["tokens"]),
            runs=run_evidence(spec),
            objective=objective_of(spec),
            target_tokens=spec["target_tokens"],
            repetition_cap=spec["repetition_cap"],
            kl_weight=spec["kl_weight"],
            seed=spec["seed"],
            recipe=Recipe(**spec["recipe"]),
            constraints=constraints_of(spec),
            guard_rails=guard_rails_of(spec),
            repetition_price=spec["repetition_price"],
            proxy_tokens=spec["proxy_tokens"],
            reuse=reuse_of(spec),
        )
    )
    evidence = with_standard_errors(proposal.to_dict(), spec)
    return {"evidence": {**evidence, "runs_lost": spec["lost"]}}


def _baseline_asked(spec: Document) -> "BaselineRequest":
    from mixing.answer.untrained import BaselineRequest
    from mixing.domains import Domains

    return BaselineRequest(
        spec["method"],
        Domains.of(spec["tokens"]),
        spec["target_tokens"],
        spec["repetition_cap"],
        spec["temperature"],
    )


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
