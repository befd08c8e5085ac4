"""Bytes handed from one process to another through a file that has no name."""

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO


def nameless_file(directory: Path) -> IO[bytes]:
    """A new file on the disk of ``directory``; whatever is killed, the kernel removes it. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=directory)


def replace_content(descriptor: int, content: bytes) -> None:
    """Have the file hold these bytes, at least one, and no others. Raises OSError."""
    left = memoryview(content)
    os.ftruncate(descriptor, 0)
    while left:
        left = left[os.pwrite(descriptor, left, len(content) - len(left)) :]


def content_of(descriptor: int) -> bytes:
    """All the file holds. Processes that share it share its position too, so none of them moves that."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
        return content[:]
