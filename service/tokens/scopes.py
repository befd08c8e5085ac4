"""What a token may do: ``launch`` includes ``write``, ``write`` includes ``read``."""

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """One step of the ladder, lowest first."""

    READ = "read"
    """Look at everything: resources, runs, metrics, the dashboard."""
    WRITE = "write"
    """Make and change domain sets, mixtures and optimizations, which train proxy models."""
    LAUNCH = "launch"
    """Start, cancel and retry full training runs."""


LADDER = (Scope.READ, Scope.WRITE, Scope.LAUNCH)
ALL_SCOPES = frozenset(LADDER)


def granted(named: Iterable[str]) -> frozenset[Scope]:
    """The named scopes with what they include; raises ValueError for a name nobody knows."""
    highest = max((LADDER.index(Scope(name)) for name in named), default=-1)
    return frozenset(LADDER[: highest + 1])
