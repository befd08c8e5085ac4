"""How the parts of a worker hear that it is stopping."""

import os
import select
from contextlib import suppress
from typing import Protocol


class Flag(Protocol):
    """An event of `threading`, or a `SharedFlag` where another process sets it."""

    def is_set(self) -> bool:
        """Whether it was set."""
        ...

    def wait(self, timeout: float) -> bool:
        """Until it is set, ``timeout`` seconds at most; answers whether it is."""
        ...


class SharedFlag:
    """A flag of this process and of all it forks, by a pipe.

    An event of `multiprocessing` counts who waits for it, and setting it waits until all of them have woken: for
    ever, once one of them was killed while it waited. Nobody holds anything here, and a signal handler may set it.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def set(self) -> None:
        """Set it, for good."""
        with suppress(BlockingIOError):  # full of what was written before
            os.write(self._write, b"x")

    def is_set(self) -> bool:
        """See `Flag`."""
        return self.wait(0.0)

    def wait(self, timeout: float) -> bool:
        """See `Flag`."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        return bool(poll.poll(timeout * 1000))
