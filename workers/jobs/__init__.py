"""What each kind of job does, in three steps that run in two processes.

``describe`` reads the store and answers a JSON specification (in the worker), ``execute`` turns that into a JSON
result and knows no store (in the child process, where torch lives), ``store`` writes the result (in the worker, in
the transaction that ends the job). So a child can be killed at any moment, and a result is stored whole or not.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol, cast

from sqlalchemy.orm import Session

from store import jobs
from store.settings import Settings
from store.tables import Document, Job


class JobKind(Protocol):
    """The three steps of a kind of job; each kind is a module of this package (`MODULES`)."""

    def describe(self, session: Session, job: Job, settings: Settings) -> Document:
        """What is to be done, as JSON. Raises JobError when the store does not have what it needs."""
        ...

    def execute(self, spec: Document, report: Callable[[Document], None]) -> Document:
        """Do it, tell ``report`` how far it is, and answer the result, as JSON.

        Of runs to train there is none: `training.train_runs` does several at once.
        """
        ...

    def store(self, session: Session, job: Job, result: Document) -> None:
        """Write the result."""
        ...


CHOOSE_WAVE = "choose_wave"
"""Not a job but a question a worker has for its child (`workers.jobs.training.choose_wave`)."""

MODULES: Final = {
    jobs.PREPARE_TOKENIZER: "prepare_tokenizer",
    jobs.PREPARE_DOMAIN: "prepare_domain",
    jobs.COMPARE_DOMAINS: "compare_domains",
    jobs.SAMPLE_SWARM: "sample_swarm",
    jobs.PROXY_RUN: "training",
    jobs.SOLVE: "solve",
    jobs.FULL_RUN: "training",
    jobs.EXTERNAL_RUN: "external_run",
}


class _Kinds(Mapping[str, JobKind]):
    """The kinds by name, each module imported when it is first asked for.

    A process that was started again to train need not load the mathematics of solving, which takes two CPU seconds.
    """

    def __getitem__(self, name: str) -> JobKind:
        return cast(JobKind, importlib.import_module(f"{__name__}.{MODULES[name]}"))

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


KINDS: Mapping[str, JobKind] = _Kinds()
