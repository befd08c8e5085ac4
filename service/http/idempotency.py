"""``Idempotency-Key``: a create that is sent twice makes one resource, whatever died in between.

The key is stored in the transaction that makes the resource, under a unique constraint, so there is no
moment at which one exists without the other. The second request is answered with the resource the first made.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.engine import Database
from store.problems import Conflict
from store.tables import IdempotencyKey
from store.tracing import link_to_owner

KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """One create: the endpoint, the client's key (None: every request makes a resource) and what was sent."""

    endpoint: str
    key: str | None
    body: BaseModel

    @property
    def request_hash(self) -> str:
        """SHA-256 of the body in canonical form, so that a key cannot be used for another request."""
        canonical = json.dumps(self.body.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def earlier(self, session: Session) -> str | None:
        """The id of the resource an earlier request with this key made, if there was one.

        Raises Conflict when that request was a different one.
        """
        if self.key is None:
            return None
        row = session.get(IdempotencyKey, (self.key, self.endpoint))
        if row is None:
            return None
        if row.request_hash != self.request_hash:
            raise Conflict(
                "idempotency_key_reused",
                f"The Idempotency-Key {self.key!r} was used for a different request to {self.endpoint}.",
                "Idempotency-Key",
            )
        return row.resource_id

    def remember(self, session: Session, resource_id: str) -> None:
        """Store, with the resource, that this request made it."""
        if self.key is not None:
            session.add(
                IdempotencyKey(
                    key=self.key,
                    endpoint=self.endpoint,
                    request_hash=self.request_hash,
                    resource_id=resource_id,
                )
            )


def create_once(database: Database, request: IdempotentRequest, create: Callable[[Session], str]) -> str:
    """Run ``create`` (which answers the new resource's id) in a write transaction, once per key.

    Two requests with one key at the same moment: the database lets one commit, the other answers the same id.
    """
    try:
        with database.write() as session:
            earlier = request.earlier(session)
            if earlier is not None:
                return earlier
            resource_id = create(session)
            request.remember(session, resource_id)
        link_to_owner(resource_id)
        return resource_id
    except IntegrityError as error:
        with database.read() as session:
            earlier = request.earlier(session)
        if earlier is not None:
            return earlier
        raise Conflict("already_exists", "The same resource was just created by another request.") from error
