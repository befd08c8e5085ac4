"""``/v1/mixtures/{id}/token-files``: the token files a trainer reads, written once by the workers."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.domain_sets.repository import require_usable
from service.http.schemas import FailureView, ProgressView, RequestModel, failure_of
from service.mixtures.service import check_repetition, mixture_with_id
from store import jobs
from store.documents import OptimizationDocument
from store.problems import Conflict, Invalid, NotFound
from store.revisions.token_files import LAYOUTS, TokenFiles
from store.tables import MixtureRow, Optimization

LayoutName = Literal["olmo-core", "megatron", "streaming", "litdata", "axolotl"]
MOST_TOKENS = 2**63 - 1
_TARGET = "Of the training run; the optimization's when left out."


@dataclass(frozen=True)
class Run:
    """What of a training run a trainer's files depend on."""

    target_tokens: Annotated[int | None, Query(ge=1, le=MOST_TOKENS, description=_TARGET)] = None
    sequence_length: Annotated[int, Query(ge=1, le=2**24, description="Tokens of a row.")] = 2048
    batch_rows: Annotated[int, Query(ge=1, le=2**24, description="Rows of a training step.")] = 512


class TokenFilesRequest(RequestModel):
    """Which files.

    ``olmo-core`` are ids without a header, ``megatron`` are ``.bin`` with ``.idx``; ``streaming`` and ``litdata`` are
    cut into rows of ``sequence_length``; ``axolotl`` has all that a run of this mixture reads, repeats included.
    """

    format: LayoutName
    target_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS, description=_TARGET)
    sequence_length: int = Field(default=2048, ge=1, le=2**24, description="Tokens of a row.")
    batch_rows: int = Field(default=512, ge=1, le=2**24, description="Rows of a training step.")

    @property
    def run(self) -> Run:
        """Of the training."""
        return Run(self.target_tokens, self.sequence_length, self.batch_rows)


class TokenFileView(BaseModel):
    """A domain's files: ``path`` is what the trainer is told, of Megatron without a suffix.

    ``address`` is where they are in the artifact store, null without one.
    """

    path: str
    address: str | None = None
    tokens: int
    documents: int


class TokenFilesView(BaseModel):
    """The files of a mixture in one format, and how far their writing is."""

    mixture_id: str
    format: LayoutName
    state: str
    progress: ProgressView | None
    files: dict[str, TokenFileView] = Field(description="By domain, once all are written.")
    failure: FailureView | None


def ask_for_files(session: Session, mixture_id: str, layout: str, run: Run, user: str) -> str:
    """Queue the writing of the files unless they are there or under way; answers the mixture's id.

    Raises a Problem: NotFound, NotReady, Conflict for domains without text, Invalid for a run without a target where
    all that it reads is written, or over its cap.
    """
    mixture = mixture_with_id(session, mixture_id)
    require_usable(session, mixture.revision)
    if bare := [row.name for row in mixture.revision.domains if not row.files]:
        raise Conflict("no_text", f"{', '.join(bare[:5])} has no files, so there are no tokens to write.")
    wanted = _needed(session, mixture, layout, run)
    if wanted.rows is not None and (solved := _solved(session, mixture)) is not None:
        check_repetition(mixture, wanted.rows * run.sequence_length, solved.repetition_cap)
    job = wanted.job(session)
    if job is None:
        session.add(jobs.new_job(jobs.TOKEN_FILES, wanted.subject, mixture.id, user=user))
    elif job.state in (jobs.FAILED, jobs.CANCELLED):
        jobs.requeue_jobs(session, job.owner)
    return mixture.id


def describe_files(session: Session, mixture_id: str, layout: LayoutName, run: Run) -> TokenFilesView:
    """How far the files are. Raises NotFound where nobody asked for them."""
    mixture = mixture_with_id(session, mixture_id)
    job = _needed(session, mixture, layout, run).job(session)
    if job is None:
        raise NotFound("token files", f"{mixture_id} in {layout}")
    progress: dict[str, Any] = job.progress or {}
    return TokenFilesView(
        mixture_id=mixture.id,
        format=layout,
        state=job.state,
        progress=ProgressView.model_validate(progress) if progress else None,
        files=progress.get("files", {}),
        failure=failure_of(job.failure_code, job.failure_detail),
    )


def written_files(session: Session, mixture: MixtureRow, layout: str, run: Run) -> dict[str, list[str]]:
    """`{domain: its file}` of a mixture in a format, where it reads them; empty before they are written."""
    wanted = _wanted(session, mixture, layout, run) if layout in LAYOUTS else None
    return {} if wanted is None else wanted.written(session)


def _wanted(session: Session, mixture: MixtureRow, layout: str, run: Run) -> TokenFiles | None:
    solved = _solved(session, mixture)
    target = run.target_tokens or (None if solved is None else round(solved.target_tokens))
    return TokenFiles.for_run(layout, mixture, target, run.sequence_length, run.batch_rows)


def _needed(session: Session, mixture: MixtureRow, layout: str, run: Run) -> TokenFiles:
    wanted = _wanted(session, mixture, layout, run)
    if wanted is None:
        raise Invalid(
            "missing_target",
            f"{layout} weighs nothing: all that a run reads is written, so say its target_tokens.",
            "target_tokens",
        )
    return wanted


def _solved(session: Session, mixture: MixtureRow) -> OptimizationDocument | None:
    """The question a mixture answers; None of one by hand."""
    asked = mixture.optimization_id
    return None if asked is None else OptimizationDocument.of(session.get_one(Optimization, asked))
