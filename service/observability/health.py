"""``/healthz`` (the process answers requests) and ``/readyz`` (what it needs answers too). Neither wants a token.

Each check has its own time limit: one that hangs is a failed check, and asked once.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from proxy_models.errors import StoreError
from proxy_models.stores.artifact_store import ArtifactStore
from service.http.errors import PROBLEM_CONTENT, problem_response
from store.engine import Database
from store.schema import NEWER, OLDER, age_of, head, schema_of
from store.settings import Settings

CHECK_SECONDS = 2.0
LEAST_FREE_BYTES = 256 * 2**20
"""Free space below which a checkpoint or a token shard may not fit any more."""
OK = "ok"


SILENT_SECONDS = 90.0
"""Longer than any request may wait for its answer to begin: one that has an architecture counted, a minute."""
_OWN = ("/healthz", "/readyz", "/metrics")


class Pulse:
    """For how long requests have waited and none was answered. Every answer that begins counts, a refusal too.

    The process may run and serve nobody: its threads all wait for something that does not come.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, float] = {}
        self._answered = clock()

    def begin(self, path: str) -> Callable[[], None]:
        """Note a request; what is answered is called when its answer begins, and may be again."""
        if path in _OWN:
            return lambda: None
        request = object()
        self._waiting[request] = self._clock()

        def end() -> None:
            if self._waiting.pop(request, None) is not None:
                self._answered = self._clock()

        return end

    @property
    def silence(self) -> float:
        """Seconds."""
        if not self._waiting:
            return 0.0
        return self._clock() - max(self._answered, next(iter(self._waiting.values())))


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the answer, and whether it keeps the service from working."""

    is_good: bool
    detail: str = OK


class Readiness:
    """The checks of one application, run beside each other."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._checks: dict[str, Callable[[], Check]] = {
            "database": self._check_database,
            "broker": self._check_broker,
            "storage": lambda: check_storage(settings.artifacts),
        }
        if (store := settings.store) is not None:
            self._checks["artifact_store"] = lambda: check_store(store)
        self._pool = ThreadPoolExecutor(len(self._checks), thread_name_prefix="readiness")
        self._running: dict[str, Future[Check]] = {}
        self._thread: anyio.CapacityLimiter | None = None

    def checks(self) -> dict[str, Check]:
        """Every check by name; one that takes over `CHECK_SECONDS` says so and is not started a second time."""
        for name, check in self._checks.items():
            if name not in self._running or self._running[name].done():
                self._running[name] = self._pool.submit(check)
        return {name: _result(self._running[name]) for name in self._checks}

    async def ask(self) -> dict[str, Check]:
        """`checks` in a thread of its own: anybody may ask, and takes none of the threads that answer requests."""
        if self._thread is None:  # made here, for it belongs to the event loop
            self._thread = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(self.checks, limiter=self._thread)

    def close(self) -> None:
        """Wait for nothing that hangs."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check_database(self) -> Check:
        try:
            now = schema_of(self._database)
        except SQLAlchemyError as error:
            return Check(False, f"does not answer ({type(error).__name__})")
        age = age_of(now)
        if age == OLDER:
            return Check(False, f"schema {now or 'none'} is older than {head()}: run 'mixwright migrate'")
        # Ready still: this is how an update looks to the processes that it replaces one by one.
        return Check(True, f"ok, at the newer schema {now}" if age == NEWER else OK)

    def _check_broker(self) -> Check:
        if not self._settings.uses_broker:
            return Check(True, "not configured")
        # A service on one machine has no broker, and need not load what speaks to one.
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        limit = CHECK_SECONDS / 2
        client = redis.Redis.from_url(
            self._settings.broker_url,
            socket_connect_timeout=limit,
            socket_timeout=limit,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            client.ping()
        except (redis.RedisError, OSError) as error:
            return Check(False, f"does not answer ({type(error).__name__})")
        finally:
            client.close()
        return Check(True)


def check_storage(directory: Path, least_free: int = LEAST_FREE_BYTES) -> Check:
    """Whether a file can be written to ``directory`` (made if it is missing), and enough space is left there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".ready-") as file:
            file.write(b"ready")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return Check(False, f"{directory} cannot be written: {error.strerror or error}")
    if free < least_free:
        return Check(False, f"{directory} has {free // 2**20} MiB left, under {least_free // 2**20} MiB")
    return Check(True)


def check_store(store: ArtifactStore) -> Check:
    """Whether the artifact store takes an object, gives it back and removes it."""
    try:
        store.probe()
    except StoreError as error:
        return Check(False, str(error))
    return Check(True)


def _result(future: Future[Check]) -> Check:
    try:
        return future.result(timeout=CHECK_SECONDS)
    except TooLate:
        return Check(False, f"no answer within {CHECK_SECONDS:g} s")


router = APIRouter(tags=["health"])


class Ready(BaseModel):
    """Every check with ``ok``, or with what a running process can live with."""

    database: str
    broker: str
    storage: str
    artifact_store: str | None = None


def _readiness(request: Request) -> Readiness:
    return request.app.state.readiness


@router.get(
    "/healthz",
    response_model=dict[str, str],
    responses={503: {"content": PROBLEM_CONTENT, "description": "Requests wait and none is answered."}},
)
async def healthz(request: Request) -> dict[str, str] | JSONResponse:
    """The web process answers requests; where it does not for a minute and a half, start it again."""
    silence = request.app.state.pulse.silence
    if silence > SILENT_SECONDS:
        detail = f"Requests wait, and none was answered for {silence:.0f} s."
        return problem_response(503, "serves_nobody", detail, {"Retry-After": "5"})
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Ready,
    response_model_exclude_none=True,
    responses={503: {"content": PROBLEM_CONTENT, "description": "What cannot be used."}},
)
async def readyz(readiness: Annotated[Readiness, Depends(_readiness)]) -> Ready | JSONResponse:
    """Database (and its schema), broker, storage and artifact store can be used; 503 naming what cannot."""
    checks = await readiness.ask()
    broken = {name: check.detail for name, check in checks.items() if not check.is_good}
    lines = {name: check.detail for name, check in checks.items()}
    if not broken:
        return Ready(**lines)
    detail = "; ".join(f"{name}: {line}" for name, line in broken.items())
    return problem_response(503, "not_ready", detail, {"Retry-After": "5"}, checks=lines)
