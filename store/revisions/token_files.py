"""Which token files a trainer's format reads of a mixture, and where those are that the workers have written."""

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.jobs import SUCCEEDED, TOKEN_FILES
from store.tables import Job, MixtureRow

LAYOUTS = ("olmo-core", "megatron", "streaming", "litdata", "axolotl")
"""Formats whose files the workers write."""
_OF_ROWS = ("streaming", "litdata", "axolotl")
_ON_DISK = ("megatron",)
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
    def for_run(
        cls, layout: str, mixture: MixtureRow, tokens: int | None, length: int, batch_rows: int
    ) -> "TokenFiles | None":
        """What a run of so many tokens reads; None where that depends on them, and nobody said how many."""
        if layout in REPEATED:
            # Whole batches, the last one filled, as `exchange.formats.base.Blend.rows`.
            rows = None if tokens is None else math.ceil(tokens / (length * batch_rows)) * batch_rows
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

    def written(self, session: Session) -> dict[str, list[str]]:
        """`{domain: its file}`, in the artifact store where there is one and the trainer reads it there.

        Empty before all are written.
        """
        job = self.job(session)
        files: dict[str, Any] = {}
        if job is not None and job.state == SUCCEEDED:
            files = (job.progress or {}).get("files", {})
        on_disk = self.layout in _ON_DISK
        return {
            name: [file["path"] if on_disk or not file.get("address") else file["address"]]
            for name, file in files.items()
        }
