"""``Idempotency-Key``: a POST that is sent twice is done once, whatever died in between.

The key is stored in the transaction that makes or changes the resource, under a unique constraint, so there is no
moment at which one exists without the other. The second request is answered with the resource of the first, as it is
by then: a ``:retry`` or ``:cancel`` that was done is no conflict with itself.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.http.limits import User
from service.http.routes import ComputeDependency, DatabaseDependency, DryRun, SettingsDependency
from store.engine import Database
from store.problems import Conflict
from store.tables import IdempotencyKey, Launch, Optimization, Revision
from store.tracing import link_to_owner


@dataclass(frozen=True, slots=True)
class UserKey:
    """A key as its sender chose it; two users who choose the same one have two keys."""

    user: str
    key: str

    @property
    def stored(self) -> str:
        """Under which it is kept, of one length; no user's name has a space."""
        return hashlib.sha256(f"{self.user} {self.key}".encode()).hexdigest()


async def _user_key(
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            description="Of the client's choice, for one thing to be done; the same key again does nothing twice.",
        ),
    ] = None,
) -> UserKey | None:
    return None if key is None else UserKey(request.state.principal.name, key)


KeyHeader = Annotated[UserKey | None, Depends(_user_key)]


@dataclass(frozen=True, kw_only=True)
class Changing:
    """What an endpoint is given that does something to a resource, such as ``:cancel``."""

    database: DatabaseDependency
    settings: SettingsDependency
    key: KeyHeader = None

    def once(self, endpoint: str, act: Callable[[Session], Revision | Optimization | Launch]) -> None:
        """Do it, to the resource that ``act`` answers, once per key."""
        do_once(self.database, IdempotentRequest(endpoint, self.key), lambda session: act(session).id)


@dataclass(frozen=True, kw_only=True)
class Making(Changing):
    """Likewise that makes something, beside its body."""

    response: Response
    user: User
    compute: ComputeDependency


@dataclass(frozen=True, kw_only=True)
class Creation(Making):
    """Likewise where it also says what would be made."""

    dry_run: DryRun = False


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """The endpoint (with the id, for what is done to a resource), the user's key if any, and what was sent."""

    endpoint: str
    key: UserKey | None
    body: BaseModel | None = None

    @property
    def request_hash(self) -> str:
        """SHA-256 of the body in canonical form, so that a key cannot be used for another request."""
        body = {} if self.body is None else self.body.model_dump(mode="json")
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def earlier(self, session: Session) -> str | None:
        """The id of the resource of an earlier request with this key, if there was one.

        Raises Conflict when that request was a different one.
        """
        if self.key is None:
            return None
        row = session.get(IdempotencyKey, (self.key.stored, self.endpoint))
        if row is None:  # keys were everybody's once
            row = session.get(IdempotencyKey, (self.key.key, self.endpoint))
        if row is None:
            return None
        if row.request_hash != self.request_hash:
            raise Conflict(
                "idempotency_key_reused",
                f"The Idempotency-Key {self.key.key!r} was used for a different request to {self.endpoint}.",
                "Idempotency-Key",
            )
        return row.resource_id

    def remember(self, session: Session, resource_id: str) -> None:
        """Store, with the resource, that this request was done."""
        if self.key is not None:
            session.add(
                IdempotencyKey(
                    key=self.key.stored,
                    endpoint=self.endpoint,
                    request_hash=self.request_hash,
                    resource_id=resource_id,
                )
            )


def do_once(database: Database, request: IdempotentRequest, act: Callable[[Session], str]) -> str:
    """Run ``act`` (which answers the resource's id) in a write transaction, once per key.

    Two requests with one key at the same moment: the database lets one commit, the other answers the same id.
    """
    try:
        with database.write() as session:
            earlier = request.earlier(session)
            if earlier is not None:
                return earlier
            resource_id = act(session)
            request.remember(session, resource_id)
        link_to_owner(resource_id)
        return resource_id
    except IntegrityError as error:
        with database.read() as session:
            earlier = request.earlier(session)
        if earlier is not None:
            return earlier
        raise Conflict("already_exists", "The same resource was just created by another request.") from error
