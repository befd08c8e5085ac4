"""What each kind of job does, in three steps that run in two processes.

``describe`` reads the store and answers a JSON specification (in the worker), ``execute`` turns that into a JSON
result and knows no store (in the child process, where torch lives), ``store`` writes the result (in the worker, in
the transaction that ends the job). So a child can be killed at any moment, and a result is stored whole or not.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:  # a child that trains knows no database
    from sqlalchemy.orm import Session

    from store.settings import Settings
    from store.tables import Document, Job


class JobKind(Protocol):
    """The three steps of a kind of job; each kind is a module of this package."""

    def describe(self, session: "Session", job: "Job", settings: "Settings") -> "Document":
        """What is to be done, as JSON. Raises JobError when the store does not have what it needs."""
        ...

    def execute(self, spec: "Document", report: "Callable[[Document], None]") -> "Document":
        """Do it, tell ``report`` how far it is, and answer the result, as JSON.

        Of runs to train there is none: `training.train_runs` does several at once.
        """
        ...

    def store(self, session: "Session", job: "Job", result: "Document") -> None:
        """Write the result."""
        ...


CHOOSE_WAVE = "choose_wave"
"""Not a job but a question a worker has for its child (`workers.jobs.training.choose_wave`)."""

_MODULES = {"proxy_run": "training", "full_run": "training"}
"""Of the kinds that are not called like theirs."""


def kind_named(name: str) -> JobKind:
    """The module of a kind, imported when it is first asked for.

    A process that was started again to train need not load the mathematics of solving, which takes two CPU seconds.
    """
    return cast(JobKind, importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}"))
