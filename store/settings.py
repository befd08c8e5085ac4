"""What the operator decides: settings, read once from the environment (``MIXWRIGHT_*``)."""

import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.object_path import DataPath, data_path, split_roots, store_address
from proxy_models.text.data_roots import reading_below

AUTO: Final = "auto"
Backend = Literal["auto", "one-by-one", "one-by-one-compiled", "stacked", "stacked-compiled", "cuda-graph"]
LOOPBACK_NAMES = frozenset({"localhost"})
_CUDA = re.compile(r"cuda(:\d+)?")


def _numbered(device: str) -> str:
    return "cuda:0" if device == "cuda" else device


def _available_cpus() -> int:
    """CPUs this process may use: inside a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _artifact_store(address: str, directory: Path, limit_bytes: int) -> ArtifactStore:
    return ArtifactStore(address, directory, limit_bytes)  # it knows which copies are in use, so there is one


class Settings(BaseSettings):
    """One frozen value for the whole process; every field can be set as ``MIXWRIGHT_<FIELD>``."""

    model_config = SettingsConfigDict(
        env_prefix="MIXWRIGHT_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    data_directory: Path = Path(".mixwright")
    """Where everything Mixwright writes lives: database, token, shards, checkpoints."""
    database_url: str | None = Field(default=None, repr=False)
    """SQLAlchemy address; the default is SQLite inside the data directory."""
    data_roots: str = ""
    """Directories and addresses (``s3://bucket/folder``) corpora may be read from, separated by ``os.pathsep``;
    ``<data>/corpora`` always."""
    allow_hub: bool = False
    """Whether a tokenizer may be fetched from the Hugging Face hub, by its name; without it nobody is asked."""
    artifact_store: str | None = None
    """Where artifacts are kept for every machine: ``s3://bucket/folder``, ``gs://...``, or a directory all see.

    Without one they are in the data directory, which all machines then share."""
    artifact_cache_bytes: int = Field(default=100 * 10**9, ge=0)
    """How much of what is in the artifact store is kept on this machine as well."""
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    allowed_hosts: str = ""
    """Further names accepted in the ``Host`` header, separated by commas."""
    trusted_proxies: str = ""
    """Addresses or networks whose ``X-Forwarded-For`` and ``-Proto`` are believed, separated by commas."""
    token: str | None = Field(default=None, min_length=16, repr=False)
    """Bearer token; without one a loopback service makes its own in ``<data_directory>/token``."""
    wrong_tokens: int = Field(default=10, ge=1)
    """How many wrong tokens an address may send at once; one more every 30 s."""
    slots: int = Field(default_factory=_available_cpus, ge=0, le=1024)
    """Jobs the embedded supervisor runs at once on CPUs: one single-threaded child process each."""
    device: str = "cpu"
    """Torch device that models are trained on: ``cpu``, ``cuda``, ``cuda:1``, or several, ``cuda:0,cuda:1``.

    Each accelerator has one slot beside those on CPUs."""
    backend: Backend = "auto"
    """How the runs of a swarm are trained: ``auto`` takes what is measured to be fastest on the device."""
    wave_members: int = Field(default=64, ge=1, le=4096)
    """The most runs trained at once by one process."""
    work: Literal["auto", "all", "training", "rest"] = "auto"
    """What a Celery worker does: ``auto`` trains on an accelerator, and does everything on a CPU."""
    lease_seconds: float = Field(default=30.0, gt=0)
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    silence_seconds: float = Field(default=120.0, gt=0)
    """A job's process that gives no sign of life for so long was stopped or hangs, and is replaced."""
    pause_seconds: float = Field(default=60.0, ge=0)
    """How long a device on which several jobs in a row failed waits before it tries again; doubled each time."""
    stop_seconds: float = Field(default=5.0, ge=0)
    """How long training may take to write its checkpoint when its worker is asked to stop."""
    poll_seconds: float = Field(default=0.25, gt=0)
    launchers: Path | None = None
    """TOML file of the launchers that launches may name (`store.launchers`)."""
    callback_secret: str | None = Field(default=None, min_length=16, repr=False)
    """Signs what is told of launches that have ended."""
    callback_origins: str = ""
    """Where that may be told, ``https://hooks.example.com``, separated by commas; nowhere else."""
    broker_url: str = Field(default="redis://127.0.0.1:6379/0", repr=False)
    """Celery's broker (team mode only)."""
    log_format: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object each."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_public: bool = False
    """Whether ``/metrics`` is answered without the token."""
    body_limit_bytes: int = Field(default=2**20, gt=0)
    user_requests_per_second: float = Field(default=100.0, gt=0)
    """Of each user; for a moment twice as many. A user is a token's name, and the operator's token has no quota."""
    address_requests_per_second: float = Field(default=100.0, gt=0)
    """Of each address without a token that is known: signing in, wrong addresses; for a moment twice as many."""
    user_slow_requests: int = Field(default=4, ge=1)
    """Requests that check files, plan or compute, of each user at once."""
    user_domain_sets: int = Field(default=1000, ge=1)
    """Domain sets each user may store."""
    user_swarms: int = Field(default=1000, ge=1)
    """Swarms each user may bring."""
    user_optimizations: int = Field(default=100, ge=1)
    """Optimizations each user may have under way."""
    user_device_hours: float = Field(default=10_000.0, ge=0)
    """Estimated device-hours of proxies and launches that each user may have under way."""
    connections: int = Field(default=500, ge=10)
    """Of clients to the web process in all; it needs a file descriptor for each."""
    client_connections: int = Field(default=200, ge=1)
    """Of one address that is none of the trusted proxies."""
    wait_seconds: float = Field(default=0.5, ge=0)
    """How long a request waits for its turn where as many are under way as may be; then it is refused (503)."""
    compute_processes: int = Field(default=2, ge=1, le=64)
    """Computations at once: checks of an optimization, dry runs, lineages; and as many long documents."""
    compute_seconds: float = Field(default=20.0, gt=0)
    """How long one may take."""
    compute_memory_bytes: int = Field(default=2 * 2**30, ge=2**26)
    """How much memory one may take."""
    max_domains: int = Field(default=2000, gt=0)
    max_runs: int = Field(default=20_000, gt=0)

    @field_validator("data_directory", "launchers")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().resolve()

    @field_validator("device")
    @classmethod
    def _distinct_devices(cls, value: str) -> str:
        devices = value.split(",")
        for number, device in enumerate(devices):
            if not (_CUDA.fullmatch(device) or value == "cpu"):
                raise ValueError(
                    f"{device!r} is no device to train on: cpu, cuda, or cuda:0,cuda:1 and so on"
                )
            if _numbered(device) in map(_numbered, devices[:number]):
                raise ValueError(f"{device!r} is named twice; each accelerator has one slot")
        return value

    @field_validator("artifact_store")
    @classmethod
    def _one_spelling(cls, value: str | None) -> str | None:
        return store_address(value) if value else None

    @field_validator("data_roots")
    @classmethod
    def _known_roots(cls, value: str) -> str:
        for part in split_roots(value):
            data_path(part)
        return value

    @field_validator("callback_origins")
    @classmethod
    def _signed(cls, value: str, info: ValidationInfo) -> str:
        if value and info.data.get("callback_secret") is None:
            raise ValueError("what is told has to be signed; give MIXWRIGHT_CALLBACK_SECRET as well")
        return value

    @property
    def callback_addresses(self) -> tuple[str, ...]:
        """Origins that launches may tell of their end."""
        return tuple(part.strip() for part in self.callback_origins.split(",") if part.strip())

    @property
    def resolved_database_url(self) -> str:
        """The configured database, or SQLite in the data directory."""
        return self.database_url or f"sqlite:///{self.data_directory / 'mixwright.db'}"

    @property
    def roots(self) -> tuple[DataPath, ...]:
        """Resolved directories, and folders of stores, below which corpora and task files may lie."""
        found = [data_path(part) for part in split_roots(self.data_roots)]
        configured = [root.expanduser().resolve() if isinstance(root, Path) else root for root in found]
        return (*configured, (self.data_directory / "corpora").resolve())

    def reading(self) -> AbstractContextManager[None]:
        """Within it only files below the roots are opened, and the service's own artifacts."""
        return reading_below(self.roots, (self.artifacts,))

    @property
    def store(self) -> ArtifactStore | None:
        """The artifact store with this machine's copies."""
        if self.artifact_store is None:
            return None
        return _artifact_store(self.artifact_store, self.artifacts, self.artifact_cache_bytes)

    @property
    def store_order(self) -> dict[str, Any]:
        """What a job is told of it, for `proxy_models.stores.current.using_store`; without one nothing."""
        return {} if self.store is None else {"artifact_store": self.store.to_dict()}

    @property
    def accelerators(self) -> tuple[str, ...]:
        """The devices beside the CPU."""
        return () if self.device == "cpu" else tuple(self.device.split(","))

    @property
    def training_slots(self) -> int:
        """Slots of this machine that train models at the same time: what waits is for all of them."""
        return max(1, len(self.accelerators) or self.slots)

    @property
    def slots_a_device(self) -> int:
        """Slots that share a training device's memory: an accelerator has one, the CPUs' have all the same."""
        return 1 if self.accelerators else max(1, self.slots)

    @property
    def artifacts(self) -> Path:
        """Directory of tokenizers, shards and runs; the names below it are made by the service."""
        return self.data_directory / "artifacts"

    @property
    def calibrations(self) -> Path:
        """Directory of the tables of how fast each device trains."""
        return self.data_directory / "calibrations"

    @property
    def model_counts(self) -> Path:
        """Directory of what architectures were counted to be."""
        return self.data_directory / "model_counts"

    @property
    def uses_broker(self) -> bool:
        """Whether this is a team's service: only then is there a broker to ask about."""
        return "broker_url" in self.model_fields_set

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address the service binds."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, so that a child process reads the same ones."""
        # That there is a broker is said by naming one.
        values = self.model_dump(exclude_none=True, exclude=None if self.uses_broker else {"broker_url"})
        return {f"MIXWRIGHT_{name.upper()}": str(value) for name, value in values.items()}


def settings_or_exit() -> Settings:
    """The environment's settings; a bad one ends the process with a line that names it."""
    try:
        return Settings()
    except ValidationError as error:
        faults = {
            str(fault["loc"][0]): fault["msg"].removeprefix("Value error, ") for fault in error.errors()
        }
        raise SystemExit(
            "; ".join(f"MIXWRIGHT_{name.upper()}: {why}" for name, why in faults.items())
        ) from None


# Whether the accelerators a worker is to train on are there, before it says that it is ready.


class NoSuchDevice(RuntimeError):
    """A device that torch cannot use on this machine; the message says what to do."""


def require_devices(devices: Sequence[str]) -> None:
    """Raise NoSuchDevice unless torch can use all of them; another process is asked, for this one has no torch."""
    if not devices:
        return
    command = [sys.executable, "-m", "proxy_models.torch_device", *devices]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        complaint = (answer.stdout.strip() or answer.stderr.strip() or "torch cannot be loaded").splitlines()[
            -1
        ]
        raise NoSuchDevice(f"{complaint}; choose another with --device or MIXWRIGHT_DEVICE")
