"""What what-ifs are judged by, kept on the disk for whoever asks next: laws with all that an answer needs beside.

Computations are processes of their own, so what one has fitted the next can only read from a file. It is mapped into
memory, which all of them share. A file is named by all the law depends on: what was asked, which results are in, and
the code. So a new result, another setting or another version is another name, and there is nothing to be told of a
change. A file that cannot be read is made again.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

import mixing
from mixing.kept import NotKept, read, written
from proxy_models.errors import StorageFailed
from proxy_models.storage import write_atomically
from store.question import Version
from store.settings import Settings

if TYPE_CHECKING:  # only named here
    from mixing.answer.whatif import Judge

MOST_BYTES = 2**28
"""Of all that are kept; the ones that were not asked for longest go first."""

_ALIGNED = 16
"""Bytes, so that a processor reads what was kept as it reads what was fitted."""


def judge_file(settings: Settings, asked: Version) -> Path:
    """Where the judge of a question over these results is kept, or would be."""
    said = repr((_code(), np.__version__, asked))
    return settings.data_directory / "laws" / f"{hashlib.sha256(said.encode()).hexdigest()}.law"


@cache
def _code() -> str:
    """Which mathematics it is, by the sizes and times of its files."""
    folder = Path(mixing.__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".toml", ".json"))
    stats = [
        (str(path.relative_to(folder)), status.st_size, status.st_mtime_ns)
        for path in files
        if (status := path.stat())
    ]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def kept_judge(file: Path) -> "Judge | None":
    """The judge of a file; None where there is none that can be read."""
    try:
        whole = np.memmap(file, np.uint8, mode="r")
        sizes = np.frombuffer(whole, np.int64, 2)
        document, numbers = whole[_HEAD : _HEAD + sizes[0]], whole[_HEAD + sizes[0] :]
        if len(numbers) != sizes[1]:
            return None
        said = json.loads(document.tobytes())
        os.utime(file)
        return read(said["judge"], _apart(said["arrays"], numbers))
    except (OSError, ValueError, KeyError, TypeError):
        return None


_HEAD = 16
"""Bytes: how many the document has, and how many the arrays."""


def _apart(arrays: Mapping[str, "_Place"], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """By name, from the bytes of all of them."""
    return {
        name: np.frombuffer(numbers, kind, math.prod(shape), start).reshape(shape, order=order)
        for name, (kind, shape, order, start) in arrays.items()
    }


_Place = tuple[str, tuple[int, ...], Literal["C", "F"], int]
"""Of an array its type, shape, the order of its numbers, by which sums round, and its first byte."""


def keep_judge(file: Path, judge: "Judge") -> None:
    """Keep it, for its owner alone; one that is not arrays, or that the disk has no room for, is not kept."""
    try:
        document, arrays = written(judge)
    except NotKept:
        return
    numbers, places = bytearray(), {}
    for name, array in arrays.items():
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        numbers += bytes(-len(numbers) % _ALIGNED)
        places[name] = array.dtype.str, array.shape, order, len(numbers)
        numbers += array.tobytes(order)
    said = json.dumps({"judge": document, "arrays": places}).encode()
    said += b" " * (-len(said) % _ALIGNED)
    head = np.array([len(said), len(numbers)], np.int64).tobytes()
    with suppress(StorageFailed):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, head + said + bytes(numbers), mode=0o600)
        _make_room(file.parent)


def _make_room(folder: Path) -> None:
    """Remove what was not used for longest, until the rest is no more than may be kept."""
    found = []
    for file in folder.glob("*.law"):
        with suppress(FileNotFoundError):  # another process makes room too
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_size, file))
    kept = 0
    for _, size, file in sorted(found, reverse=True):
        kept += size
        if kept > MOST_BYTES:
            file.unlink(missing_ok=True)
