"""Laws that were fitted for somebody who asked what if, kept on the disk for whoever asks next.

Computations are processes of their own, so what one has fitted the next can only read from a file. A file is named
by all the law depends on: what was asked, the runs, and the code. So a new result, another setting or another version
is another name, and there is nothing to be told of a change. A file that cannot be read is fitted again.
"""

import hashlib
import io
import json
import math
import os
import sys
import zipfile
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
from store.question import JobQuestion
from store.settings import Settings

if TYPE_CHECKING:  # only named here
    from mixing.laws.learning import Learned

MOST_BYTES = 2**28
"""Of all that are kept; the ones that were not asked for longest go first."""

_ALIGNED = 16
"""Bytes, so that a processor reads what was kept as it reads what was fitted."""


def law_file(settings: Settings, asked: JobQuestion) -> Path:
    """Where the law of this question over these runs is kept, or would be."""
    with np.printoptions(
        threshold=sys.maxsize, floatmode="unique"
    ):  # an array, were there one, to its last number
        said = repr((_code(), np.__version__, asked))  # a fifth of the time that its JSON takes
    return settings.data_directory / "laws" / f"{hashlib.sha256(said.encode()).hexdigest()}.npz"


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


def kept_law(file: Path) -> "Learned | None":
    """The law of a file; None where there is none that can be read."""
    try:
        with np.load(file, allow_pickle=False) as members:
            said, numbers = json.loads(members["document"].tobytes()), members["numbers"]
        os.utime(file)
        return read(said["law"], _apart(said["arrays"], numbers))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


def _apart(arrays: Mapping[str, "_Place"], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """By name, from the bytes of all of them: hundreds of members of a file would take .1 s to open."""
    return {
        name: np.frombuffer(numbers, kind, math.prod(shape), start).reshape(shape, order=order)
        for name, (kind, shape, order, start) in arrays.items()
    }


_Place = tuple[str, tuple[int, ...], Literal["C", "F"], int]
"""Of an array its type, shape, the order of its numbers, by which sums round, and its first byte."""


def keep_law(file: Path, law: "Learned") -> None:
    """Keep it, for its owner alone; one that is not arrays, or that the disk has no room for, is not kept."""
    try:
        document, arrays = written(law)
    except NotKept:
        return
    numbers, places = bytearray(), {}
    for name, array in arrays.items():
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        numbers += bytes(-len(numbers) % _ALIGNED)
        places[name] = array.dtype.str, array.shape, order, len(numbers)
        numbers += array.tobytes(order)
    said = {"law": document, "arrays": places}
    content = io.BytesIO()
    np.savez(
        content,
        document=np.frombuffer(json.dumps(said).encode(), np.uint8),
        numbers=np.frombuffer(numbers, np.uint8),
    )
    with suppress(StorageFailed):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, content.getvalue(), mode=0o600)
        _make_room(file.parent)


def _make_room(folder: Path) -> None:
    """Remove what was not used for longest, until the rest is no more than may be kept."""
    found = []
    for file in folder.glob("*.npz"):
        with suppress(FileNotFoundError):  # another process makes room too
            status = file.stat()
            found.append((status.st_mtime_ns, status.st_size, file))
    kept = 0
    for _, size, file in sorted(found, reverse=True):
        kept += size
        if kept > MOST_BYTES:
            file.unlink(missing_ok=True)
