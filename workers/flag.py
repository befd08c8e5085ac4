"""How the parts of a worker hear that it is stopping."""

from typing import Protocol


class Flag(Protocol):
    """An event of `threading`, or of `multiprocessing` where another process sets it."""

    def is_set(self) -> bool:
        """Whether it was set."""
        ...

    def wait(self, timeout: float) -> bool:
        """Until it is set, ``timeout`` seconds at most; answers whether it is."""
        ...
