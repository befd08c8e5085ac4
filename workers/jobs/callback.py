"""Telling an address that a launch has ended: signed, tried again, and only where the operator allows it."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.documents import LaunchDocument, Measurements
from store.launchers.callbacks import may_be_told, signature
from store.settings import Settings
from store.tables import Document, Job, Launch, Run
from workers.claims.failures import JobError

SECONDS = 10.0
"""For an answer; what it says is not read."""


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The address and what it is told; raises JobError where the operator allows it no more."""
    run = session.get_one(Run, job.owner)
    launch = session.get_one(Launch, run.launch_id)
    url = LaunchDocument.of(launch).callback
    assert url is not None, "only then is there such a job"
    if settings.callback_secret is None or not may_be_told(url, settings):
        raise JobError("callback_not_allowed", f"the operator does not allow {url} to be told (any more)")
    training = session.scalars(select(Job).where(Job.owner == launch.id)).one()
    failure = {"code": training.failure_code, "detail": training.failure_detail}
    told = {
        "launch_id": launch.id,
        "mixture_id": launch.mixture_id,
        "optimization_id": launch.mixture.optimization_id,
        "run_id": run.id,
        "state": training.state,
        "failure": failure if training.failure_code else None,
        "metrics": Measurements.of(run.result).metrics,
    }
    return {"url": url, "secret": settings.callback_secret, "id": job.id, "data": told}


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Send it once; raises JobError where it was not taken, and the next attempt sends it under the same id."""
    import httpx

    now = int(time.time())
    message = {
        "type": "launch.ended",
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat(),
        "data": spec["data"],
    }
    body = json.dumps(message, allow_nan=False)
    headers = {
        "content-type": "application/json",
        "user-agent": "mixwright",
        "webhook-id": spec["id"],
        "webhook-timestamp": str(now),
        "webhook-signature": signature(spec["secret"], spec["id"], now, body),
    }
    # No redirect leads to where the operator did not allow, and no proxy of the environment's in between.
    with httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=False) as client:
        try:
            with client.stream("POST", spec["url"], content=body, headers=headers) as answer:
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise JobError(
                "callback_failed", f"{spec['url']} does not answer: {error}", retryable=True
            ) from error
    if not 200 <= status < 300:
        raise JobError("callback_failed", f"{spec['url']} answered {status}", retryable=True)
    return {"status": status}


def store(session: Session, job: Job, result: Document) -> None:
    """Nothing: that the job has succeeded is all there is to know."""
