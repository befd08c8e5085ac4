"""The tables. Times are seconds since the Unix epoch (UTC); weights are fractions keyed by domain name."""

import secrets
import threading
import time
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    cast,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship
from sqlalchemy.sql.functions import GenericFunction

# The database's own clock, so that leases do not depend on the clocks of the machines that hold them.


class database_now(GenericFunction[float]):
    """Seconds since the Unix epoch, UTC, read by the database at the moment the statement runs."""

    type = Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    # clock_timestamp, not now(): the latter stands still inside a transaction.
    return "extract(epoch from clock_timestamp())::double precision"


Document = dict[str, Any]
ATTEMPTS = 3
"""Attempts at a job that may fail by its own fault (`workers.claims.claim`)."""
_Json = JSON().with_variant(JSONB(), "postgresql")


def big_integer(member: Any) -> ColumnElement[int]:
    """A member of a JSON document as a whole number of 64 bits; `as_integer` is of 32 on PostgreSQL."""
    return cast(member.as_string(), BigInteger)


_RANDOM_BITS = 48

_guard = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A name such as ``run_01931f0c2b7a4e1f6c0d2a98``: sorts by creation time, so a list pages by id.

    Twelve hexadecimal digits of milliseconds, twelve of randomness. Ids made by one process are strictly
    increasing whatever its clock does: a second one within a millisecond counts on from the first by a
    random step, as RFC 9562 proposes for UUID version 7 (section 6.2, monotonic random).
    """
    global _last
    with _guard:
        fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        if fresh >> _RANDOM_BITS <= _last >> _RANDOM_BITS:
            fresh = _last + 1 + secrets.randbits(_RANDOM_BITS - 16)
        _last = fresh
    return f"{prefix}_{fresh:024x}"


def id_at(prefix: str, seconds: float) -> str:
    """What ids made from then on (seconds since the Unix epoch, by the clock of who made them) are behind."""
    return f"{prefix}_{int(seconds * 1000):012x}"


class Base(DeclarativeBase):
    """Names every constraint, so that a migration can drop it again on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String(255),
        int: Integer,
        float: Double,
        bool: Boolean,
        Document: _Json,
        list[str]: _Json,
    }


def _id(prefix: str) -> Mapped[str]:
    return mapped_column(String(40), primary_key=True, default=lambda: new_id(prefix))


def _time() -> Mapped[float]:
    return mapped_column(Double, default=database_now())


def _user() -> Mapped[str]:
    """Who asked for it: a token's name; empty in rows of versions that did not note it."""
    return mapped_column(default="", server_default=text("''"))


class DomainSet(Base):
    """A named, versioned tree of domains."""

    __tablename__ = "domain_sets"
    id: Mapped[str] = _id("ds")
    name: Mapped[str] = mapped_column(unique=True)
    user_name: Mapped[str] = _user()
    created_at: Mapped[float] = _time()
    revisions: Mapped[list["Revision"]] = relationship(
        back_populates="domain_set", order_by="Revision.number"
    )


FOUND = ("fetched", "fingerprint")
"""Of a tokenizer that was asked for: the commit it was fetched at, and the digest of its definition."""


class Revision(Base):
    """One immutable version of a domain set; only what its preparation measured is filled in later."""

    __tablename__ = "revisions"
    __table_args__ = (UniqueConstraint("domain_set_id", "number"),)
    id: Mapped[str] = _id("rev")
    domain_set_id: Mapped[str] = mapped_column(ForeignKey("domain_sets.id"))
    number: Mapped[int]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("revisions.id"))
    tokenizer: Mapped[Document]
    """As asked for: ``{"vocabulary_size": 4096}`` or ``{"huggingface": "path-or-name"}``.

    Of a name on the hub also the ``revision`` asked for; and from its preparation what is `FOUND`."""
    tokenizer_path: Mapped[str | None] = mapped_column(Text)
    vocabulary_size: Mapped[int | None]
    held_out_fraction: Mapped[float]
    evaluation_bytes: Mapped[int] = mapped_column(default=65_536)
    """About how much of each domain's held-out side every run is evaluated on."""
    content_hash: Mapped[str]
    """SHA-256 of the definition as posted, with patterns resolved: equal hashes are the same revision."""
    changes: Mapped[Document]
    """Against the parent, as found or said when it was posted (`mixing.change.revision.Changes.to_dict`);
    what counting
    found since is read with it (`store.revisions.changes`)."""
    said: Mapped[Document | None]
    """``{domain: word}``: the answers to what was ambiguous."""
    shared_text: Mapped[Document | None]
    """What its domains have in common, and train on of tasks (`workers.jobs.compare_domains`).

    Before they were compared None, or only the tasks that it is ``asked`` of."""
    created_at: Mapped[float] = _time()
    domain_set: Mapped[DomainSet] = relationship(back_populates="revisions")
    domains: Mapped[list["DomainRow"]] = relationship(back_populates="revision", order_by="DomainRow.name")

    @property
    def has_corpus(self) -> bool:
        """Whether its domains have text; all of them, or none has."""
        return any(row.files for row in self.domains)


class DomainRow(Base):
    """A leaf of one revision: its files as posted, and what counting them found; without files what was declared."""

    __tablename__ = "domains"
    __table_args__ = (UniqueConstraint("revision_id", "name"),)
    id: Mapped[str] = _id("dom")
    revision_id: Mapped[str] = mapped_column(ForeignKey("revisions.id"))
    name: Mapped[str]
    files: Mapped[list[str]]
    reading: Mapped[Document | None]
    """How documents are found in the files (`proxy_models.text.reading`); None where nothing was said."""
    declared_tokens: Mapped[int | None] = mapped_column(BigInteger)
    declared_bytes: Mapped[int | None] = mapped_column(BigInteger)
    counted_tokens: Mapped[int | None] = mapped_column(BigInteger)
    counted_bytes: Mapped[int | None] = mapped_column(BigInteger)
    documents: Mapped[int | None] = mapped_column(BigInteger)
    held_out_bytes: Mapped[int | None] = mapped_column(BigInteger)
    files_hash: Mapped[str | None] = mapped_column(index=True)
    """Of the files' paths, sizes and times when they were posted: equal hashes are the same text, uncounted."""
    content_hash: Mapped[str | None]
    """Which text it is (`proxy_models.text.held_out`): 64 hexadecimal digits that add up over
    the parts of a split."""
    shard_directory: Mapped[str | None] = mapped_column(Text)
    sample: Mapped[str | None] = mapped_column(Text)
    """The beginning of one of its documents, as it was read or decoded."""
    findings: Mapped[Document | None]
    """What counting found beside the counts (`proxy_models.text.shard_writer`); None before it looked for that."""
    revision: Mapped[Revision] = relationship(back_populates="domains")

    @property
    def tokens(self) -> int | None:
        """``N_j``: what the user declared (the files may be a sample), else what was counted for training."""
        return self.declared_tokens if self.declared_tokens is not None else self.counted_tokens

    @property
    def documents_of_tokens(self) -> float | None:
        """As many as hold its tokens, which may be declared for more text than its files have; None: unknown."""
        held_out = (self.findings or {}).get("held_out_tokens")
        if self.tokens is None or not self.documents or not self.counted_tokens or held_out is None:
            return None
        return self.tokens * self.documents / (self.counted_tokens + held_out)


class Optimization(Base):
    """Swarm + regression + solve for one revision."""

    __tablename__ = "optimizations"
    id: Mapped[str] = _id("opt")
    revision_id: Mapped[str] = mapped_column(ForeignKey("revisions.id"), index=True)
    method: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    settings: Mapped[Document]
    user_name: Mapped[str] = _user()
    device_hours: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """What its training was estimated to take when it was asked for; 0 where nobody knew."""
    state: Mapped[str] = mapped_column(default="queued", index=True)
    failure_code: Mapped[str | None]
    failure_detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = _time()
    updated_at: Mapped[float] = _time()
    finished_at: Mapped[float | None]
    revision: Mapped[Revision] = relationship()


class Swarm(Base):
    """The proxy runs sampled for one optimization; or runs that were brought, sampled and trained elsewhere."""

    __tablename__ = "swarms"
    id: Mapped[str] = _id("swarm")
    optimization_id: Mapped[str | None] = mapped_column(ForeignKey("optimizations.id"), unique=True)
    """Null where the runs were brought."""
    brought: Mapped[Document | None]
    """What was said of runs that were brought (`store.documents.BroughtDocument`)."""
    user_name: Mapped[str] = _user()
    revision_id: Mapped[str] = mapped_column(ForeignKey("revisions.id"))
    contamination: Mapped[Document | None]
    """Which tasks' texts are trained on (`workers.jobs.sample_swarm`); None before that was looked for."""
    created_at: Mapped[float] = _time()


PROPOSED = "proposed"
"""What an optimization's answer is; of earlier ones, before it was extended, with a number: `proposed-1`."""


def is_proposed(kind: str) -> bool:
    """Whether a mixture of this kind is an optimization's answer, its last or an earlier one."""
    return kind.partition("-")[0] == PROPOSED


class MixtureRow(Base):
    """Weights over one revision's leaves; a proposed one carries its evidence."""

    __tablename__ = "mixtures"
    __table_args__ = (UniqueConstraint("optimization_id", "kind"),)
    id: Mapped[str] = _id("mix")
    revision_id: Mapped[str] = mapped_column(ForeignKey("revisions.id"), index=True)
    optimization_id: Mapped[str | None] = mapped_column(ForeignKey("optimizations.id"))
    kind: Mapped[str]
    name: Mapped[str | None]
    weights: Mapped[Document]
    evidence: Mapped[Document | None] = mapped_column(deferred=True)
    """Megabytes for very many domains, so it is read where it is asked for."""
    created_at: Mapped[float] = _time()
    revision: Mapped[Revision] = relationship()


class Adoption(Base):
    """A mixture was put into use for its domain set; the set's latest row says which one is."""

    __tablename__ = "adoptions"
    id: Mapped[str] = _id("adopt")
    domain_set_id: Mapped[str] = mapped_column(ForeignKey("domain_sets.id"), index=True)
    mixture_id: Mapped[str] = mapped_column(ForeignKey("mixtures.id"))
    why: Mapped[str] = mapped_column(Text)
    user_name: Mapped[str] = _user()
    created_at: Mapped[float] = _time()


class Launch(Base):
    """The full training run started from a mixture."""

    __tablename__ = "launches"
    id: Mapped[str] = _id("launch")
    mixture_id: Mapped[str] = mapped_column(ForeignKey("mixtures.id"), index=True)
    settings: Mapped[Document]
    device_hours: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """What its training was estimated to take when it was asked for; 0 where nobody knew."""
    created_at: Mapped[float] = _time()
    mixture: Mapped[MixtureRow] = relationship()


class Submission(Base):
    """A launch handed to a scheduler, once: the row is there, with the name it is found by, before it is handed over.

    Whoever looks at it holds it until ``due_at`` by ``token`` (`workers.follower`).
    """

    __tablename__ = "submissions"
    __table_args__ = (UniqueConstraint("job_id", "number"), Index(None, "state", "due_at"))
    id: Mapped[str] = _id("sub")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    """From 1: one that lost its machine, or a launch that is retried, is submitted again."""
    launcher: Mapped[str]
    name: Mapped[str] = mapped_column(unique=True)
    external_id: Mapped[str | None]
    """What the scheduler calls it; null until it is known to have it."""
    state: Mapped[str] = mapped_column(default="new")
    """``new`` (perhaps handed over), ``queued``, ``running`` or ``ended``."""
    said: Mapped[str | None] = mapped_column(Text)
    """The scheduler's own word for its state, or why it does not answer."""
    reported: Mapped[Document | None]
    """What was last posted back of it."""
    exit_status: Mapped[int | None]
    token: Mapped[str | None]
    due_at: Mapped[float] = _time()
    created_at: Mapped[float] = _time()
    submitted_at: Mapped[float | None]
    ended_at: Mapped[float | None]


class Run(Base):
    """One model trained on one mixture with one seed: a proxy run of a swarm, or the run of a launch."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("swarm_id", "position"),
        UniqueConstraint("swarm_id", "name"),
        Index(None, "position", "id"),
    )
    id: Mapped[str] = _id("run")
    name: Mapped[str | None]
    """What it is called where it was trained; null for one that was sampled here."""
    swarm_id: Mapped[str | None] = mapped_column(ForeignKey("swarms.id"))
    launch_id: Mapped[str | None] = mapped_column(ForeignKey("launches.id"), unique=True)
    position: Mapped[int]
    round: Mapped[int] = mapped_column(default=0)
    """Of a method that learns from its first runs which to train next: the round it was sampled in, from 0."""
    tokens: Mapped[int | None] = mapped_column(BigInteger)
    """How much to train; null, for as much as its order says, in rows of older versions: read `requested_tokens`."""
    requested_tokens: Mapped[int] = column_property(
        func.coalesce(
            tokens,
            select(big_integer(Optimization.settings["proxy"]["tokens"]))
            .join(Swarm, Swarm.optimization_id == Optimization.id)
            .where(Swarm.id == swarm_id)
            .correlate_except(Optimization, Swarm)
            .scalar_subquery(),
            select(big_integer(Launch.settings["tokens"]))
            .where(Launch.id == launch_id)
            .correlate_except(Launch)
            .scalar_subquery(),
        )
    )
    seed: Mapped[int | None] = mapped_column(BigInteger)
    """Null where nobody said it of a run that was brought."""
    weights: Mapped[Document]
    result: Mapped[Document | None]
    """What ``proxy_models.training`` returned, without its metric series; set once, with the job's success. Of a run
    trained elsewhere the metrics as they came."""
    created_at: Mapped[float] = _time()


class Metric(Base):
    """One evaluation of one run: a task's value after ``step`` steps (``tokens`` tokens)."""

    __tablename__ = "metrics"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task: Mapped[str] = mapped_column(primary_key=True)
    tokens: Mapped[int] = mapped_column(BigInteger)
    value: Mapped[float]


class Job(Base):
    """Work to be done: the row is the job, any message about it is only a hint.

    ``subject`` is the row the job works on, with what is made of it where that may differ; ``owner`` the revision,
    optimization or launch that waits for it.
    A lease is held by whoever knows ``lease_token``; every write about a claimed job names it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("kind", "subject"),
        Index(None, "state", "priority", "position"),
        Index(None, "owner", "kind", "state"),  # jobs of an owner are counted by state from it alone
        Index(None, "state", "user_name", "priority", "position"),  # a user's next job, and who has any
        Index(None, "user_name", "started_at"),
    )
    id: Mapped[str] = _id("job")
    kind: Mapped[str]
    subject: Mapped[str] = mapped_column(String(80))
    owner: Mapped[str] = mapped_column(String(40))
    user_name: Mapped[str] = _user()
    priority: Mapped[int]
    position: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=ATTEMPTS)
    """Each worker that was lost under the job has added one."""
    available_at: Mapped[float] = _time()
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[float | None]
    worker: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[Document | None]
    failure_code: Mapped[str | None]
    failure_detail: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = _time()
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    hinted_at: Mapped[float | None]
    """When a message about the job was last sent to a broker; it may have been lost since."""
    shared_by: Mapped[int] = mapped_column(default=1, server_default="1")
    """How many jobs its worker does at once: the runs of a wave share their worker's time."""
    busy_seconds: Mapped[float] = mapped_column(default=0.0)
    """Worker seconds spent over all attempts, a share of them where several jobs were done at once."""


GONE_SECONDS = 60.0
"""A slot tells every five seconds that it is there; one not seen for so long is gone."""


class WorkerRow(Base):
    """A slot of a worker machine: one job at a time on one device. It outlives its process, which comes and goes."""

    __tablename__ = "workers"
    id: Mapped[str] = _id("wrk")
    name: Mapped[str] = mapped_column(unique=True)
    """``<host>/<slot>``: the same after a restart, so that a device which was paused stays so."""
    host: Mapped[str]
    device: Mapped[str]
    device_name: Mapped[str | None]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    kinds: Mapped[list[str] | None]
    """The kinds of job it takes; null is any."""
    process: Mapped[int]
    versions: Mapped[Document]
    state: Mapped[str] = mapped_column(default="active")
    """What it is meant to do: ``active``, ``draining`` (finish what it has) or ``paused`` (give it back)."""
    reason: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[list[str]] = mapped_column(default=list)
    """Why its last jobs failed for what may be the device's fault, since one succeeded: ``<job id>: <reason>``."""
    tokens_per_second: Mapped[float | None]
    """What it last trained at, all runs of a wave together."""
    started_at: Mapped[float] = _time()
    seen_at: Mapped[float] = _time()
    left_at: Mapped[float | None]
    """When its process ended as it should; null while it runs or after it vanished."""


class Attempt(Base):
    """How one attempt at a job ended; written once, by whoever ended it. What counters are counted from."""

    __tablename__ = "attempts"
    id: Mapped[str] = _id("att")
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str]
    number: Mapped[int]
    worker: Mapped[str | None]
    outcome: Mapped[str]
    """The job's end state; ``retried`` or ``released`` where it was queued again."""
    failure_code: Mapped[str | None]
    reaped: Mapped[bool]
    """Whether its lease ran out and was taken back."""
    seconds: Mapped[float]
    tokens: Mapped[int | None] = mapped_column(BigInteger)
    """Trained, where it succeeded at training a model."""
    ended_at: Mapped[float] = _time()


class IdempotencyKey(Base):
    """What a create already made; unique, so a repeated request cannot make a second one."""

    __tablename__ = "idempotency_keys"
    key: Mapped[str] = mapped_column(primary_key=True)
    endpoint: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    resource_id: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[float] = _time()


class AccessToken(Base):
    """A user's or a program's token; of its secret only the SHA-256 is kept."""

    __tablename__ = "access_tokens"
    id: Mapped[str] = _id("tok")
    name: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    secret_hash: Mapped[str] = mapped_column(String(64), unique=True)
    previous_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    """The secret before the last rotation, good until ``previous_until``."""
    previous_until: Mapped[float | None]
    created_at: Mapped[float] = _time()
    rotated_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class DashboardSession(Base):
    """A browser that was signed in; by the operator's token where ``token_id`` is null."""

    __tablename__ = "dashboard_sessions"
    cookie_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    token_id: Mapped[str | None] = mapped_column(ForeignKey("access_tokens.id"))
    secret_hash: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float] = _time()
    expires_at: Mapped[float] = mapped_column(Double, index=True)
