"""``/v1/mixtures/{id}/token-files``: the token files a trainer reads, written once by the workers."""

from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain_sets.repository import require_usable
from service.http.schemas import FailureView, ProgressView, RequestModel, failure_of
from service.mixtures.service import mixture_with_id
from store import jobs
from store.problems import Conflict, NotFound
from store.tables import Job, MixtureRow

Layout = Literal["olmo-core", "megatron"]


class TokenFilesRequest(RequestModel):
    """Which files: ``olmo-core`` are ids without a header, ``megatron`` are ``.bin`` with ``.idx``."""

    format: Layout


class TokenFileView(BaseModel):
    """A domain's file: ``path`` is what the trainer is told, of Megatron without a suffix."""

    path: str
    tokens: int
    documents: int


class TokenFilesView(BaseModel):
    """The files of a mixture's revision in one format, and how far their writing is."""

    mixture_id: str
    format: Layout
    state: str
    progress: ProgressView | None
    files: dict[str, TokenFileView] = Field(description="By domain, once all are written.")
    failure: FailureView | None


def ask_for_files(session: Session, mixture_id: str, layout: str, user: str) -> str:
    """Queue the writing of the files unless they are there or under way; answers the mixture's id.

    Raises a Problem: NotFound, NotReady, Conflict for domains without text.
    """
    mixture = mixture_with_id(session, mixture_id)
    require_usable(session, mixture.revision)
    if bare := [row.name for row in mixture.revision.domains if not row.files]:
        raise Conflict("no_text", f"{', '.join(bare[:5])} has no files, so there are no tokens to write.")
    job = _job(session, mixture, layout)
    if job is None:
        subject = jobs.token_files_subject(layout, mixture.revision_id)
        session.add(jobs.new_job(jobs.TOKEN_FILES, subject, mixture.id, user=user))
    elif job.state in (jobs.FAILED, jobs.CANCELLED):
        jobs.requeue_jobs(session, job.owner)
    return mixture.id


def describe_files(session: Session, mixture_id: str, layout: Layout) -> TokenFilesView:
    """How far the files are. Raises NotFound where nobody asked for them."""
    mixture = mixture_with_id(session, mixture_id)
    job = _job(session, mixture, layout)
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


def written_files(session: Session, mixture: MixtureRow, layout: str) -> dict[str, list[str]]:
    """`{domain: its file}` of a mixture's revision in a format; empty before they are written."""
    job = _job(session, mixture, layout)
    files = {} if job is None or job.state != jobs.SUCCEEDED else (job.progress or {}).get("files", {})
    return {name: [file["path"]] for name, file in files.items()}


def _job(session: Session, mixture: MixtureRow, layout: str) -> Job | None:
    subject = jobs.token_files_subject(layout, mixture.revision_id)
    return session.scalars(select(Job).where(Job.kind == jobs.TOKEN_FILES, Job.subject == subject)).first()
