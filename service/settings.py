"""What the operator decides, read once from the environment (``MIXWRIGHT_*``)."""

import ipaddress
import os
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK_NAMES = frozenset({"localhost"})


def _available_cpus() -> int:
    """CPUs this process may use: inside a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Settings(BaseSettings):
    """One frozen value for the whole process; every field can be set as ``MIXWRIGHT_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="MIXWRIGHT_", frozen=True, extra="ignore")

    data_directory: Path = Path(".mixwright")
    """Where everything Mixwright writes lives: database, token, shards, checkpoints."""
    database_url: str | None = None
    """SQLAlchemy address; the default is SQLite inside the data directory."""
    data_roots: str = ""
    """Directories corpora may be read from, separated by ``os.pathsep``; ``<data>/corpora`` always."""
    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535)
    allowed_hosts: str = ""
    """Further names accepted in the ``Host`` header, separated by commas."""
    token: str | None = Field(default=None, min_length=16)
    """Bearer token; without one a loopback service makes its own in ``<data_directory>/token``."""
    slots: int = Field(default_factory=_available_cpus, ge=0, le=1024)
    """Jobs the embedded supervisor runs at once: one single-threaded child process each."""
    device: str = "cpu"
    """Torch device of the children: ``cpu``, ``cuda``, ``cuda:1``."""
    lease_seconds: float = Field(default=30.0, gt=0)
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    poll_seconds: float = Field(default=0.25, gt=0)
    broker_url: str = "redis://127.0.0.1:6379/0"
    """Celery's broker (team mode only)."""
    body_limit_bytes: int = Field(default=2**20, gt=0)
    max_domains: int = Field(default=2000, gt=0)
    max_runs: int = Field(default=20_000, gt=0)

    @field_validator("data_directory")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @cached_property
    def resolved_database_url(self) -> str:
        """The configured database, or SQLite in the data directory."""
        return self.database_url or f"sqlite:///{self.data_directory / 'mixwright.db'}"

    @cached_property
    def roots(self) -> tuple[Path, ...]:
        """Resolved directories below which corpora and task files may lie."""
        configured = [Path(part).expanduser().resolve() for part in self.data_roots.split(os.pathsep) if part]
        return (*configured, (self.data_directory / "corpora").resolve())

    @property
    def artifacts(self) -> Path:
        """Directory of tokenizers, shards and runs; the names below it are made by the service."""
        return self.data_directory / "artifacts"

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
        values = self.model_dump(exclude_none=True)
        return {f"MIXWRIGHT_{name.upper()}": str(value) for name, value in values.items()}
