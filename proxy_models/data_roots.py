"""Opening corpus files only where the operator allows it, at the moment they are opened.

A path is checked when it is posted and read hours later by a worker; meanwhile a folder of it may have become a link
to somewhere else. So what is checked here is the file that was opened, not the name it was opened by.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from proxy_models.errors import CorpusError

_allowed: tuple[Path, ...] | None = None  # of the whole process: a worker's child has one job at a time


@contextmanager
def reading_below(roots: Sequence[Path | str] | None) -> Iterator[None]:
    """Within the block `open_data` opens only files below these resolved directories; None allows every file."""
    global _allowed
    before = _allowed
    _allowed = None if roots is None else tuple(Path(root) for root in roots)
    try:
        yield
    finally:
        _allowed = before


def open_data(path: Path) -> BufferedReader:
    """The regular file at ``path``, for reading. Raises OSError, and `CorpusError` for any other or one outside."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not make us wait
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            raise CorpusError(path, None, "is not a regular file")
        require_allowed(path, opened)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def require_allowed(path: Path, opened: os.stat_result | None = None) -> None:
    """Raise `CorpusError` where ``path`` leads outside the allowed directories, or elsewhere than to ``opened``."""
    if _allowed is None:
        return
    real = path.resolve()
    inside = any(real.is_relative_to(root) for root in _allowed)
    if not inside or (opened is not None and not os.path.samestat(opened, real.stat())):
        raise CorpusError(path, None, "leads outside the data roots, or was exchanged while it was opened")
