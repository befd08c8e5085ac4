"""Sampling the swarm of an optimization and queueing its proxy runs."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.domains import Domains
from mixing.swarm import SwarmRequest, sample_swarm
from service.database import jobs
from service.database.models import Job, Optimization, Run, Swarm
from service.settings import Settings
from workers.jobs.revision_domains import token_counts

Document = dict[str, Any]


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The domains with their tokens, and what the user asked for."""
    optimization = session.get_one(Optimization, job.subject)
    return {
        "method": optimization.method,
        "seed": optimization.seed,
        "tokens": token_counts(optimization.revision),
        **{
            name: optimization.settings[name]
            for name in ("runs", "target_tokens", "repetition_cap", "strengths")
        },
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """The swarm's mixtures, by domain name."""
    request = SwarmRequest(
        method=spec["method"],
        domains=Domains.of(spec["tokens"]),
        runs=spec["runs"],
        seed=spec["seed"],
        target_tokens=spec["target_tokens"],
        repetition_cap=spec["repetition_cap"],
        strengths=tuple(spec["strengths"]),
    )
    return {"mixtures": [mixture.as_dict() for mixture in sample_swarm(request)]}


def store(session: Session, job: Job, result: Document) -> None:
    """Store the swarm, its runs and their jobs, once.

    Every run of a swarm has the optimization's seed, and with it the same initial weights and the same order of
    documents in each domain: what differs between two runs is their mixture and nothing else.
    """
    optimization = session.get_one(Optimization, job.subject)
    if session.scalar(select(Swarm.id).where(Swarm.optimization_id == optimization.id)):
        return
    swarm = Swarm(optimization_id=optimization.id, revision_id=optimization.revision_id)
    session.add(swarm)
    session.flush()
    for position, weights in enumerate(result["mixtures"]):
        run = Run(swarm_id=swarm.id, position=position, seed=optimization.seed, weights=weights)
        session.add(run)
        session.flush()
        session.add(jobs.new_job(jobs.PROXY_RUN, run.id, optimization.id, position))
