"""A webhook: a launch is posted to a service of the operator's, signed, and followed there or by what it posts back.

    [launchers.ours]
    kind = "webhook"
    url = "https://train.example/launches"
    secret_file = "/etc/mixwright/webhook-secret"            # at least 24 bytes, base64, perhaps after "whsec_"
    status_url = "https://train.example/launches/{name}"     # without it states are posted back

The signature is that of Standard Webhooks (standardwebhooks.com): HMAC-SHA256 of ``id.timestamp.body``, base64. Its
``webhook-id`` is the submission's name, which stays the same when it is sent again: the receiver starts it once.
"""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any, Final, Literal

import httpx
from pydantic import field_validator

from store.launchers.base import Rendering, Work, json_text
from store.launchers.scheduler import (
    COMMAND_SECONDS,
    ENDED,
    QUEUED,
    RUNNING,
    Refused,
    Scheduler,
    SchedulerAway,
    Seen,
    Standing,
)

STATES: Final = {
    "queued": QUEUED,
    "running": RUNNING,
    "succeeded": ENDED,
    "failed": ENDED,
    "cancelled": ENDED,
}
"""Of ``{"state", "detail"?, "exit_status"?, "progress"?}``, as posted back or answered at ``status_url``."""
_LONGEST_ANSWER = 2**20


class Webhook(Scheduler):
    """See the module."""

    kind: Literal["webhook"]
    url: str
    secret_file: Path
    status_url: str | None = None

    @field_validator("url", "status_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError(f"{value!r} is no http address")
        return value

    @field_validator("status_url")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and "{name}" not in value:
            raise ValueError(f"{value!r} has no {{name}}, which is the submission's")
        return value

    @property
    def is_program(self) -> bool:
        """Whoever gets it trains it."""
        return True

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        told = {"event": "launch", "name": work.name, "number": work.number, **work.mixture}
        request = {"method": "POST", "url": self.url, "body": json_text(told)}
        return Rendering((), str(work.directory), (), request=request)

    def submit(self, rendering: Rendering, name: str) -> str:
        """See `Scheduler`."""
        assert rendering.request is not None
        answer = self._send("POST", self.url, rendering.request["body"], name)
        if answer.is_client_error and answer.status_code not in (408, 409, 425, 429):
            raise Refused(f"{self.url} answered {answer.status_code}: {answer.text[:500]}")
        if not answer.is_success and answer.status_code != 409:  # which says that it is there
            raise SchedulerAway(f"{self.url} answered {answer.status_code}")
        said = _object(answer)
        return str(said.get("id") or name)[:255]

    def find(self, name: str) -> str | None:
        """See `Scheduler`; where nothing tells it is posted again by the same id."""
        return None if self.status_url is None else super().find(name)

    def follow(self, seen: Seen) -> Standing | None:
        """See `Scheduler`."""
        said = seen.reported if self.status_url is None else self._status(seen.name)
        if said is None:
            return Standing(QUEUED, "nothing was posted back yet") if self.status_url is None else None
        return standing_of(said)

    def cancel(self, seen: Seen) -> None:
        """See `Scheduler`: an event of its own, by an id that stays the same."""
        body = json_text({"event": "cancel", "name": seen.name, "id": seen.external_id})
        answer = self._send("POST", self.url, body, f"{seen.name}-cancel")
        if not answer.is_success and answer.status_code not in (404, 409, 410):
            raise SchedulerAway(f"{self.url} answered {answer.status_code}")

    def _status(self, name: str) -> dict[str, Any] | None:
        assert self.status_url is not None
        url = self.status_url.replace("{name}", name)
        answer = self._send("GET", url, "", name)
        if answer.status_code in (404, 410):
            return None
        if not answer.is_success:
            raise SchedulerAway(f"{url} answered {answer.status_code}")
        return _object(answer)

    def _send(self, method: str, url: str, body: str, identity: str) -> httpx.Response:
        moment = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": identity,
            "webhook-timestamp": moment,
            "webhook-signature": self.signature(identity, moment, body),
        }
        try:
            return httpx.request(method, url, content=body, headers=headers, timeout=COMMAND_SECONDS / 2)
        except httpx.HTTPError as error:
            raise SchedulerAway(f"{url}: {error}") from error

    def signature(self, identity: str, moment: str, body: str) -> str:
        """``v1,`` and the signature. Raises `SchedulerAway` where the secret cannot be read."""
        try:
            text = self.secret_file.read_text(encoding="ascii").strip().removeprefix("whsec_")
            secret = base64.b64decode(text, validate=True)
        except (OSError, ValueError) as error:
            raise SchedulerAway(f"{self.secret_file}: {error}") from error
        return signature(secret, identity, moment, body)


def signature(key: bytes, identity: str, moment: str | int, body: str) -> str:
    """The ``webhook-signature`` of a message by Standard Webhooks (https://www.standardwebhooks.com)."""
    signed = hmac.digest(key, f"{identity}.{moment}.{body}".encode(), hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def standing_of(said: Any) -> Standing:
    """What was posted back, or answered; raises `SchedulerAway` for what is none of it."""
    state = said.get("state")
    if state not in STATES:
        raise SchedulerAway(f"{state!r} is no state; there are {', '.join(STATES)}")
    status = said.get("exit_status")
    if status is None and state == "succeeded":
        status = 0
    progress = said.get("progress")
    words = " ".join(str(word) for word in (state, said.get("detail")) if word)
    return Standing(
        STATES[state],
        words[:2000],
        status if isinstance(status, int) and (status == 0) == (state == "succeeded") else None,
        cancelled=state == "cancelled",
        progress=progress if isinstance(progress, dict) else None,
    )


def _object(answer: httpx.Response) -> dict[str, Any]:
    """A JSON object of an answer; empty where it is none."""
    try:
        said = json.loads(answer.content) if len(answer.content) < _LONGEST_ANSWER else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
