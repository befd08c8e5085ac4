"""``/v1/events``: what changes of optimizations, launches and swarms, to everybody who listens.

    event: optimization
    id: 1764488000.25
    data: {"kind": "optimization", "id": "opt_...", "state": "running", ...}

One task of a web process looks at the store once every `LOOK_SECONDS`, however many listen, and only while somebody
does. Who begins to listen gets everything under way, then what changes; ids are the store's time, so that with
``Last-Event-ID`` any process of the service adds what ended since, and nothing is missed. A listener that does not
keep up is let go, and comes back like that.
"""

import asyncio
import logging
import re
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import anyio.to_thread
from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.http.events import (
    EVENT_STREAM,
    LONGEST_SECONDS,
    LOOK_SECONDS,
    SILENCE_SECONDS,
    STILL_THERE,
    Place,
)
from service.http.routes import DatabaseDependency, ThreadRoute
from service.optimizations.views import RunCounts, may_be_finished, run_counts
from service.swarms.service import RunProgress
from store import jobs
from store.engine import Database
from store.problems import Invalid
from store.tables import Job, Optimization, Run, Swarm, database_now, id_at

router = APIRouter(prefix="/v1", tags=["events"], route_class=ThreadRoute)

LISTENERS = 512
"""Of one process; they cost no look at the store."""
LATE_SECONDS = 5.0
"""What is written may carry the time of a transaction's beginning, or of a clock that is behind."""
MOST_SHOWN = 1000
"""Optimizations, launches and swarms each, the newest of those under way."""
MOST_BEHIND = 64
"""Looks that a listener may be behind."""

_log = logging.getLogger("mixwright.events")


class ChangeView(BaseModel):
    """The state of one thing now; its whole document is where it always is."""

    kind: Literal["optimization", "launch", "swarm"]
    id: str
    state: str = Field(
        description="Of a swarm what its runs are in: `running`, `queued`, `waiting` for results or `succeeded`."
    )
    optimization_id: str | None = Field(default=None, description="Whose swarm it is; null for one brought.")
    runs: RunCounts | None = Field(default=None, description="Proxy runs by state; null for a launch.")
    done_jobs: int | None = Field(
        default=None,
        description="Of an optimization, those of its domains among them: grows with all that is done.",
    )
    can_finish: bool = Field(
        default=False, description="Of an optimization: the results that are in are enough for `:finish`."
    )
    progress: RunProgress | None = Field(default=None, description="Of a launch under way.")

    @property
    def is_over(self) -> bool:
        """Whether nothing will change by itself any more."""
        return self.state in jobs.ENDED


@dataclass(frozen=True)
class Look:
    """What there was at one moment, by id; ``now`` is the database's time."""

    now: float
    seen: Mapping[str, ChangeView]


def look(session: Session, known: Iterable[str], since: float | None = None) -> Look:
    """Everything under way, what of it is ``known`` from the look before, and what began some seconds ago.

    With ``since`` (seconds since the epoch) also what ended from then on.
    """
    now = session.scalar(select(database_now()))
    assert now is not None
    known, began = list(known), (now if since is None else min(now, since)) - LATE_SECONDS
    optimizations = _optimizations(session, known, began, since)
    launches = _launches(session, known, began, since)
    swarms = _swarms(session, known, began, [row.swarm_id for row in optimizations if row.swarm_id])
    owners = [
        *(row.id for row in optimizations),
        *{row.revision_id for row in optimizations},
        *(row.id for row in swarms if row.optimization_id is None),
    ]
    counts = _counts(session, owners)
    seen = [
        *(_optimization(row, counts[row.id], counts[row.revision_id]) for row in optimizations),
        *(_launch(row) for row in launches),
        *(_swarm(row, counts[row.optimization_id or row.id]) for row in swarms),
    ]
    return Look(now, {view.id: view for view in seen})


def _shown(
    id_: InstrumentedAttribute[str], kind: str, known: list[str], began: float, *also: ColumnElement[bool]
) -> ColumnElement[bool]:
    return or_(id_ > id_at(kind, began), id_.in_([one for one in known if one.startswith(f"{kind}_")]), *also)


def _optimizations(session: Session, known: list[str], began: float, since: float | None) -> list[Any]:
    ended = [] if since is None else [Optimization.updated_at >= since - LATE_SECONDS]
    query = (
        select(
            Optimization.id,
            Optimization.revision_id,
            Optimization.state,
            Optimization.settings["trained"].as_string().label("trained"),
            Optimization.settings["minimum_runs"].as_integer().label("minimum_runs"),
            Swarm.id.label("swarm_id"),
        )
        .outerjoin(Swarm, Swarm.optimization_id == Optimization.id)
        .where(_shown(Optimization.id, "opt", known, began, Optimization.state.in_(jobs.LIVE), *ended))
    )
    return list(session.execute(query.order_by(Optimization.id.desc()).limit(MOST_SHOWN)))


def _launches(session: Session, known: list[str], began: float, since: float | None) -> list[Any]:
    ended = [] if since is None else [Job.finished_at >= since - LATE_SECONDS]
    query = select(Job.owner.label("id"), Job.state, Job.progress).where(
        Job.kind.in_(jobs.OF_LAUNCHES),
        _shown(Job.owner, "launch", known, began, Job.state.in_(jobs.LIVE), *ended),
    )
    return list(session.execute(query.order_by(Job.owner.desc()).limit(MOST_SHOWN)))


def _swarms(session: Session, known: list[str], began: float, sampled: list[str]) -> list[Any]:
    """Those sampled for the optimizations that are shown; those brought that wait for results, or got some lately."""
    grown = select(Run.swarm_id).where(Run.id > id_at("run", began))
    waiting = select(Job.owner).where(Job.state == jobs.WAITING)
    brought = _shown(Swarm.id, "swarm", known, began, Swarm.id.in_(grown), Swarm.id.in_(waiting))
    query = select(Swarm.id, Swarm.optimization_id).where(
        or_(Swarm.id.in_(sampled), Swarm.optimization_id.is_(None) & brought)
    )
    return list(session.execute(query.order_by(Swarm.id.desc()).limit(2 * MOST_SHOWN)))


Counts = Mapping[tuple[str, str], int]


def _counts(session: Session, owners: list[str]) -> Mapping[str, Counter[tuple[str, str]]]:
    """Of each owner how many jobs of each kind are in each state."""
    counts: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    query = select(Job.owner, Job.kind, Job.state, func.count()).where(Job.owner.in_(owners))
    for owner, kind, state, number in session.execute(query.group_by(Job.owner, Job.kind, Job.state)):
        counts[owner][kind, state] = number
    return counts


def _of(counts: Counts, kind: str) -> Counter[str]:
    return Counter({state: number for (one, state), number in counts.items() if one == kind})


def _optimization(row: Any, own: Counts, prepared: Counts) -> ChangeView:
    runs, sampling = _of(own, jobs.PROXY_RUN), _of(own, jobs.SAMPLE_SWARM)
    is_elsewhere = row.trained == "elsewhere"
    return ChangeView(
        kind="optimization",
        id=row.id,
        state=row.state,
        runs=run_counts(runs),
        done_jobs=sum(
            number
            for counts in (own, prepared)
            for (_, state), number in counts.items()
            if state in jobs.ENDED
        ),
        can_finish=is_elsewhere and may_be_finished(row.state, row.minimum_runs or 0, sampling, runs),
    )


def _launch(row: Any) -> ChangeView:
    progress = RunProgress.model_validate(row.progress) if row.progress and row.state in jobs.HELD else None
    return ChangeView(kind="launch", id=row.id, state=row.state, progress=progress)


_OF_RUNS = (jobs.RUNNING, jobs.QUEUED, jobs.WAITING)


def _swarm(row: Any, counts: Counts) -> ChangeView:
    runs = run_counts(_of(counts, jobs.PROXY_RUN))
    state = next((state for state in _OF_RUNS if getattr(runs, state)), jobs.SUCCEEDED)
    return ChangeView(kind="swarm", id=row.id, state=state, optimization_id=row.optimization_id, runs=runs)


def _said(views: Iterable[ChangeView], now: float) -> bytes:
    """The events; the id stands at the last, for whoever has that has all of them."""
    events = [
        b"event: %b\ndata: %b\n\n" % (view.kind.encode(), view.model_dump_json().encode()) for view in views
    ]
    if events:
        kind, _, rest = events[-1].partition(b"\n")
        events[-1] = b"%b\nid: %r\n%b" % (kind, now, rest)
    return b"".join(events)


class Changes:
    """What one web process tells its listeners. Of one event loop."""

    def __init__(self, database: Database) -> None:
        self.listeners: Counter[str] = Counter()
        """How many each user has."""
        self._database = database
        self._last = Look(0.0, {})
        self._queues: set[asyncio.Queue[bytes | None]] = set()
        self._looking: asyncio.Task[None] | None = None

    async def listen(self, missed: bytes) -> AsyncGenerator[bytes, None]:
        """What was ``missed``, what is under way, and then what changes, until `LONGEST_SECONDS` are over."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._queues.add(queue)
        clock = asyncio.get_running_loop().time
        end = clock() + LONGEST_SECONDS
        try:
            yield b"retry: 1000\n\n" + missed
            if self._looking is None:
                self._last = Look(0.0, {})  # all of the first look is news
                self._looking = asyncio.create_task(self._look())
            elif now := _said(self._last.seen.values(), self._last.now):
                yield now
            while (left := end - clock()) > 0:
                try:
                    async with asyncio.timeout(min(left, SILENCE_SECONDS)):
                        news = await queue.get()
                except TimeoutError:
                    yield STILL_THERE
                    continue
                if news is None:
                    return
                yield news
        finally:
            self._queues.discard(queue)
            if not self._queues and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        try:
            while True:
                known = [view.id for view in self._last.seen.values() if not view.is_over]
                before, self._last = self._last, await anyio.to_thread.run_sync(self._see, known)
                if news := [view for name, view in self._last.seen.items() if before.seen.get(name) != view]:
                    self._tell(_said(news, self._last.now))
                await asyncio.sleep(LOOK_SECONDS)
        except SQLAlchemyError:
            _log.exception("the store does not answer; everybody who listens is let go")
            self._looking = None
            self._tell(None)

    def _see(self, known: list[str]) -> Look:
        with self._database.read() as session:
            return look(session, known)

    def _tell(self, news: bytes | None) -> None:
        for queue in list(self._queues):
            if news is None or queue.qsize() >= MOST_BEHIND:
                self._queues.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(news)


@router.get("/events", response_class=StreamingResponse, responses=EVENT_STREAM)
async def all_events(
    request: Request,
    database: DatabaseDependency,
    last_event_id: Annotated[
        str | None, Header(description="The `id` seen last; what ended since is told too.")
    ] = None,
) -> StreamingResponse:
    """What changes of optimizations, launches and swarms: all under way at first, then each that is another.

    Events are named by the kind of thing, and their data is a `ChangeView`.
    """
    changes: Changes = request.app.state.changes
    place = Place(request, changes.listeners, LISTENERS)
    since = None if last_event_id is None else _time_of(last_event_id)
    missed = b"" if since is None else await anyio.to_thread.run_sync(_missed, database, since)
    return place.stream(changes.listen(missed))


def _time_of(event: str) -> float:
    if not re.fullmatch(r"\d{1,12}(\.\d{1,9})?", event):
        raise Invalid("bad_event_id", f"{event[:64]!r} is no id of an event of /v1/events.", "Last-Event-ID")
    return float(event)


def _missed(database: Database, since: float) -> bytes:
    """What has ended since; what is under way comes anyway."""
    with database.read() as session:
        found = look(session, (), since)
    return _said([view for view in found.seen.values() if view.is_over], found.now)
