"""The full training run of a launch, by the built-in trainer."""

from typing import Any

from sqlalchemy.orm import Session

from store.settings import Settings
from store.tables import Job, Launch, Run
from workers.jobs.training_run import describe_run, store_run

Document = dict[str, Any]


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The mixture's weights and the launch's settings."""
    launch = session.get_one(Launch, job.owner)
    return describe_run(
        session.get_one(Run, job.subject),
        launch.mixture.revision,
        launch.settings,
        launch.settings["tasks"],
        settings,
    )


def store(session: Session, job: Job, result: Document) -> None:
    """Store what was measured."""
    store_run(session, session.get_one(Run, job.subject), result)
