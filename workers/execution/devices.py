"""Devices lent to each other by the slots of a machine: an idle one evaluates what another one trains.

Two locks of the kernel's say all there is to know, so whoever dies, and however, leaves nothing behind. A slot's
worker holds ``<slot>@<device>.idle`` while the slot has nothing to do and may be given something: one that is at
work, is paused or has gone is not lent. Whoever borrows the device holds ``.lent`` beside it. A slot that finds an
order lets go of ``.idle``; training looks at that several times a second, and gives the device back.

A processor's slot begins at once: evaluations are short, and the system shares its cores. An accelerator's waits
until the evaluator's memory is free again, a step of the other's training mostly, and part of its lease at most.
"""

import fcntl
import logging
import os
import time
from pathlib import Path
from urllib.parse import quote, unquote

from proxy_models.evaluation.lending import Lending
from workers.claims.slots import Slot, host_name
from workers.execution.flag import Flag

log = logging.getLogger("mixwright.worker")

IDLE, LENT = ".idle", ".lent"
LOOK_SECONDS = 0.05
"""How often an accelerator's slot looks whether it has its device back."""


class OwnDevice:
    """A slot's device, as its worker offers it to the others of this machine."""

    def __init__(self, directory: Path, slot: Slot) -> None:
        self.slot = slot
        name = f"{quote(slot.name, safe='')}@{quote(slot.device, safe='')}"
        here = _of_this_machine(directory)
        self._idle, self._lent = _Lock(here / (name + IDLE)), _Lock(here / (name + LENT))

    def offer(self) -> None:
        """Let others borrow it: the slot has nothing to do. Said again and again it is one offer."""
        self._idle.take()

    def withdraw(self) -> None:
        """Let nobody borrow it any more, and whoever has it give it back; does not wait for that."""
        self._idle.release()

    def take_back(self, stopping: Flag, patience: float) -> None:
        """Before an order is begun: `withdraw`, and have an accelerator to oneself, for which it waits.

        After ``patience`` seconds it goes on beside whoever still has it: what then does not fit is tried again.
        """
        offered = self._idle.held
        self.withdraw()
        if not offered or self.slot.device == "cpu":
            return
        give_up = time.monotonic() + patience
        while not self._lent.take():
            if time.monotonic() > give_up:
                log.warning("%s is still lent; going on beside who has it", self.slot.full_name)
                return
            if stopping.wait(LOOK_SECONDS):
                return
        self._lent.release()  # nobody borrows what is not offered


class Neighbours:
    """The idle devices of this machine that are of the kind of ``device``
    (`proxy_models.evaluation.lending.Lender`)."""

    def __init__(self, directory: Path, device: str) -> None:
        self.directory, self.device = _of_this_machine(directory), device

    def borrow(self) -> "LentDevice | None":
        """See `Lender.borrow`."""
        for idle in sorted(self.directory.glob(f"*{IDLE}")):
            device = unquote(idle.stem.partition("@")[2])
            if self._suits(device):
                loan = LentDevice(device, idle)
                if loan.take():
                    return loan
        return None

    def _suits(self, device: str) -> bool:
        mine, other = _numbered(self.device), _numbered(device)
        # Each slot on processors has a core of its own, but one accelerator evaluates no sooner for two processes.
        return mine == other == "cpu" or (mine.partition(":")[0] == other.partition(":")[0] and mine != other)


class LentDevice:
    """Somebody else's device, while it is ours (`proxy_models.evaluation.lending.Loan`)."""

    def __init__(self, device: str, idle: Path) -> None:
        self.device = device
        self._idle, self._lent = _Lock(idle), _Lock(idle.with_suffix(LENT))

    def take(self) -> bool:
        """Borrow it, unless somebody else has, or its owner does not offer it."""
        if not self._lent.take():
            return False
        if self.wanted():
            self.close()
            return False
        return True

    def wanted(self) -> bool:
        """See `Loan.wanted`."""
        return not self._idle.is_held()

    def close(self) -> None:
        """See `Loan.close`."""
        self._lent.release()


def lending_to(device: str, directory: Path) -> Lending:
    """What a run trained on ``device`` may borrow, where slots have their locks below ``directory``."""
    return Lending(Neighbours(directory, device))


def _of_this_machine(directory: Path) -> Path:
    """Machines may share a data directory, but not their devices; nor do processes that number them differently."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return directory / quote(host_name() if seen is None else f"{host_name()} {seen}", safe="")


def _numbered(device: str) -> str:
    return "cuda:0" if device == "cuda" else device


class _Lock:
    """An exclusive lock on a file that has no content; free again when this process ends, whatever ends it.

    Where the file system has no locks nobody ever gets one: then nothing is lent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Have it, if nobody else does; never waits."""
        if self._descriptor is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)
            except OSError:
                return False
        return True

    def release(self) -> None:
        """Let it go, if it is ours."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether somebody has it, this process by another object included."""
        try:
            os.close(self._locked(os.O_RDONLY, fcntl.LOCK_SH))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _locked(self, opened: int, how: int) -> int:
        """A new descriptor, locked: `flock` is of what was opened, so the slots of one process have their own."""
        descriptor = os.open(self.path, opened | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
