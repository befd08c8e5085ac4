"""One proxy run of a swarm."""

from typing import Any

from sqlalchemy.orm import Session

from store.settings import Settings
from store.tables import Job, Optimization, Run
from workers.jobs.training_run import describe_run, store_run

Document = dict[str, Any]


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The run's mixture, the swarm's proxy and the optimization's tasks."""
    optimization = session.get_one(Optimization, job.owner)
    run = session.get_one(Run, job.subject)
    proxy = optimization.settings["proxy"]
    return describe_run(
        run,
        optimization.revision,
        proxy if run.tokens is None else {**proxy, "tokens": run.tokens},
        optimization.settings["tasks"],
        settings,
    )


def store(session: Session, job: Job, result: Document) -> None:
    """Store what was measured."""
    store_run(session, session.get_one(Run, job.subject), result)
