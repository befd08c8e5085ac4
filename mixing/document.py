"""Frozen dataclasses as JSON documents and back, by the types of their fields.

What a class declares is all that is said: a new field is written and read without a line here, and a document from
before there was one is read with the field's default.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

Document = dict[str, Any]

OLDER = "older"
"""Key of a field's metadata: what a document from before there was the field meant, where that is not its default."""


def to_document(value: Any) -> Any:
    """JSON of dataclasses, mappings, sequences, arrays and plain values; an infinity is its name."""
    if is_dataclass(value):
        return {field.name: to_document(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return {str(name): to_document(member) for name, member in value.items()}
    if isinstance(value, tuple | list):
        return [to_document(member) for member in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_document(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


Read = TypeVar("Read")


def from_document(kind: type[Read], document: Mapping[str, Any]) -> Read:
    """The dataclass `kind` that a document says, with what it meant before, or the default, for what it does not say.

    Raises:
        KeyError: a field without a default is missing.
    """
    hints, values = _hints(kind), {}
    for field in fields(kind):  # pyright: ignore[reportArgumentType] - a dataclass, which no type can ask for
        if field.name in document:
            values[field.name] = _read(hints[field.name], document[field.name])
        elif OLDER in field.metadata:
            values[field.name] = field.metadata[OLDER]
        elif field.init and field.default is MISSING and field.default_factory is MISSING:
            raise KeyError(f"{kind.__name__} has no {field.name!r}")
    return kind(**values)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(hint: Any, value: Any) -> Any:
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(_member(members, value), value)
    if hint is float:
        return value if isinstance(value, int) else float(value)
    if hint is np.ndarray:
        return np.array(value, dtype=float)
    if isinstance(hint, type) and is_dataclass(hint):
        return from_document(hint, value)
    if origin is tuple:
        if len(members) == 2 and members[1] is Ellipsis:
            return tuple(_read(members[0], member) for member in value)
        return tuple(_read(each, member) for each, member in zip(members, value, strict=True))
    if origin is not None and origin is not Literal and issubclass(origin, Mapping):
        return {name: _read(members[1], member) for name, member in value.items()}
    return value


def _member(members: tuple[Any, ...], value: Any) -> Any:
    """Of a union the member a value is of: a dataclass of just its names, else the first other."""
    given = [member for member in members if member is not types.NoneType]
    classes = [member for member in given if isinstance(member, type) and is_dataclass(member)]
    for member in classes:
        if len(given) == 1 or set(value) == {field.name for field in fields(member)}:
            return member
    return next(member for member in given if member not in classes)


class Documented:
    """A dataclass that is stored, or sent to jobs, as a document."""

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote, now or in an older version: what that did not know yet has its default."""
        return from_document(cls, document)

    def to_dict(self) -> Document:
        """JSON of every field; numbers come back to the bit."""
        return to_document(self)
