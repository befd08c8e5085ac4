"""Devices that training may borrow for its evaluations. Free of torch.

Who knows which devices are idle (`workers.execution.devices`) is a `Lender`; training asks it and knows no more.
"""

from dataclasses import dataclass
from typing import Protocol

LEAST_SECONDS = 5.0
"""A device is borrowed where this much can be saved: starting a process with torch takes 2 to 4 seconds."""


class Loan(Protocol):
    """A device that is ours until `close`, or until our process ends."""

    @property
    def device(self) -> str:
        """As torch calls it."""
        ...

    def wanted(self) -> bool:
        """Whether its owner wants it back. Asked several times a second, so it has to be quick."""
        ...

    def close(self) -> None:
        """Give it back; done twice it does no harm."""
        ...


class Lender(Protocol):
    """Whoever knows which devices are idle."""

    def borrow(self) -> Loan | None:
        """Another device of the kind the run is trained on; None where none is idle. Never waits."""
        ...


class _Nobody:
    """Lends nothing."""

    def borrow(self) -> None:
        """See `Lender.borrow`."""


NOBODY: Lender = _Nobody()


@dataclass(frozen=True)
class Lending:
    """Whom to borrow from, and what has to be saved by it; the numbers depend on neither."""

    lender: Lender = NOBODY
    least_seconds: float = LEAST_SECONDS


NOTHING_LENT = Lending()
