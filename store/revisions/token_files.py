"""Which token files a trainer's format reads of a mixture, and where those are that the workers have written."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.jobs import SUCCEEDED, TOKEN_FILES
from store.tables import Job, MixtureRow

LAYOUTS = ("olmo-core", "megatron", "streaming", "litdata", "axolotl")
"""Formats whose files the workers write."""
_OF_ROWS = ("streaming", "litdata", "axolotl")
REPEATED = ("axolotl",)
"""Those whose trainer weighs nothing: all that a run of the mixture reads is in the files, repeats included."""


@dataclass(frozen=True)
class TokenFiles:
    """What one job writes; there is one for each.

    Attributes:
        layout: of the files.
        of: the id of the revision, or of the mixture where that is in the files.
        length: tokens of a row, where rows are cut.
        rows: of the whole run, where those are written.
    """

    layout: str
    of: str
    length: int | None = None
    rows: int | None = None

    @classmethod
    def for_run(cls, layout: str, mixture: MixtureRow, length: int, rows: int | None) -> "TokenFiles | None":
        """What a run of so many rows reads; None where that depends on the rows, and nobody knows them."""
        if layout in REPEATED:
            return None if rows is None else cls(layout, mixture.id, length, rows)
        return cls(layout, mixture.revision_id, length if layout in _OF_ROWS else None)

    @property
    def subject(self) -> str:
        """The job's."""
        parts = (self.layout, self.of, self.length, self.rows)
        return ":".join(str(part) for part in parts if part is not None)

    @classmethod
    def named(cls, subject: str) -> "TokenFiles":
        """What `subject` gave."""
        layout, of, *numbers = subject.split(":")
        return cls(layout, of, *map(int, numbers))

    def job(self, session: Session) -> Job | None:
        """What writes them or has written them."""
        query = select(Job).where(Job.kind == TOKEN_FILES, Job.subject == self.subject)
        return session.scalars(query).first()

    def written(self, session: Session, in_stores: bool) -> dict[str, list[str]]:
        """`{domain: its file}`, in the artifact store where there is one; empty before all are written."""
        job = self.job(session)
        files: dict[str, Any] = {}
        if job is not None and job.state == SUCCEEDED:
            files = (job.progress or {}).get("files", {})
        return {name: [(in_stores and file.get("address")) or file["path"]] for name, file in files.items()}
