"""Telling somebody that a launch has ended: to whom it may be told, how it is signed, and the job that does it.

Signatures are those of Standard Webhooks: its libraries check them.
"""

import base64
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store import jobs
from store.documents import LaunchDocument
from store.launchers import webhook
from store.settings import Settings
from store.tables import Job, Launch, Run

_PORTS = {"https": 443, "http": 80}
_RAW_SECRET = "whsec_"


def origin_of(url: str) -> str | None:
    """Scheme, host and port of an address; None of what is no plain ``http`` or ``https`` address."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or "@" in parts.netloc or "\\" in url or not url.isascii() or not url.isprintable():
        return None
    return f"{parts.scheme}://{parts.hostname}:{port}"


def may_be_told(url: str, settings: Settings) -> bool:
    """Whether the operator lets launches tell this address; whatever its host's name leads to was named by them."""
    return origin_of(url) in {origin_of(one) for one in settings.callback_addresses}


def signature(secret: str, message_id: str, timestamp: int, body: str) -> str:
    """The ``webhook-signature`` of a message; a secret ``whsec_...`` is base64, any other is taken as it is."""
    is_raw = secret.startswith(_RAW_SECRET)
    key = base64.b64decode(secret.removeprefix(_RAW_SECRET)) if is_raw else secret.encode()
    return webhook.signature(key, message_id, timestamp, body)


def call_back(session: Session, launch: Launch, user: str) -> None:
    """Where somebody wants to hear of the launch's end, queue telling it, in the transaction that ends it.

    It may end more than once, as it may be retried: each time it is told.
    """
    if LaunchDocument.of(launch).callback is None:
        return
    run_id = session.scalars(select(Run.id).where(Run.launch_id == launch.id)).one()
    before = session.scalar(select(func.count()).where(Job.owner == run_id, Job.kind == jobs.CALLBACK))
    subject = f"{launch.id}.{before}" if before else launch.id
    session.add(jobs.new_job(jobs.CALLBACK, subject, run_id, user=user))
