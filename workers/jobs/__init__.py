"""What each kind of job does, in three steps that run in two processes.

``describe`` reads the store and answers a JSON specification (in the worker), ``execute`` turns that into a JSON
result and knows no store (in the child process, where torch lives), ``store`` writes the result (in the worker, in
the transaction that ends the job). So a child can be killed at any moment, and a result is stored whole or not.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from sqlalchemy.orm import Session

from service.database import jobs
from service.database.models import Job
from service.settings import Settings
from workers.jobs import (
    external_run,
    full_run,
    prepare_domain,
    prepare_tokenizer,
    proxy_run,
    sample_swarm,
    solve,
)

Document = dict[str, Any]
Report = Callable[[Document], None]


class JobKind(Protocol):
    """The three steps of a kind of job; each kind is a module of this package."""

    def describe(self, session: Session, job: Job, settings: Settings) -> Document:
        """What is to be done, as JSON. Raises JobError when the store does not have what it needs."""
        ...

    def execute(self, spec: Document, report: Report) -> Document:
        """Do it and answer the result, as JSON; ``report`` shows how far it is."""
        ...

    def store(self, session: Session, job: Job, result: Document) -> None:
        """Write the result."""
        ...


class Office(Protocol):
    """Where the runs of a wave tell, by their numbers in it, what becomes of them."""

    def progress(self, member: int, progress: Document) -> None:
        """Show how far it is."""
        ...

    def succeeded(self, member: int, result: Document) -> None:
        """Its result."""
        ...

    def failed(self, member: int, error: Exception) -> None:
        """Why there is none."""
        ...

    def cancelled(self, member: int) -> bool:
        """Whether it should stop."""
        ...


CHOOSE_WAVE = "choose_wave"
"""Not a job but a question a worker has for its child (`workers.jobs.wave.choose_wave`)."""

KINDS: Mapping[str, JobKind] = {
    jobs.PREPARE_TOKENIZER: prepare_tokenizer,
    jobs.PREPARE_DOMAIN: prepare_domain,
    jobs.SAMPLE_SWARM: sample_swarm,
    jobs.PROXY_RUN: proxy_run,
    jobs.SOLVE: solve,
    jobs.FULL_RUN: full_run,
    jobs.EXTERNAL_RUN: external_run,
}
