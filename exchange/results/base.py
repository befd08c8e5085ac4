"""What a reader of results answers, and the file it is given."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, NamedTuple

from mixing.errors import MixingError


class InvalidResults(MixingError):
    """A file of results that cannot be read, or of which nobody knows whose they are; `field` is the file."""


class Measurement(NamedTuple):
    """A metric of a run at a step.

    Attributes:
        run: what the file calls it; None where its folder says so.
        metric: its name.
        value: finite or not.
        step: of training; None where the file knows none. Of several the latest counts.
    """

    run: str | None
    metric: str
    value: float
    step: int | None = None


@dataclass(frozen=True)
class ResultFile:
    """A file, and those it was given with: some formats are spread over several.

    Attributes:
        path: its name, with its folders.
        data: its content.
        others: `{path: content}` of all files that were given.
        names: of the runs.
    """

    path: PurePath
    data: bytes
    others: Mapping[str, bytes]
    names: frozenset[str]

    @cached_property
    def document(self) -> Any:
        """Its JSON; None where it is none."""
        if self.data.lstrip()[:1] not in (b"{", b"["):
            return None
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            return None

    def folder_of_run(self) -> str | None:
        """The deepest folder on the way, or the file's own name without its ending, that is called like a run."""
        parts = (*self.path.parent.parts, self.path.name.partition(".")[0])
        return next((part for part in reversed(parts) if part in self.names), None)


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read.

    Attributes:
        name: of the kind.
        title: the program that writes it, and the version it was held against.
        knows: whether a file is of the kind.
        read: its measurements. Raises InvalidResults.
        is_beside: whether a file belongs to the kind without any measurement in it.
    """

    name: str
    title: str
    knows: Callable[[ResultFile], bool]
    read: Callable[[ResultFile], Iterable[Measurement]]
    is_beside: Callable[[ResultFile], bool] = lambda file: False


def number(value: object) -> float | None:
    """A JSON number as a float; None for everything else, truth values too."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
