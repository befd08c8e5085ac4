"""What was fitted as numbers, to be read again instead of being fitted again: JSON beside arrays, and no code.

A fitted law is frozen dataclasses of this package down to its arrays, so those are written field by field, each once
however often it is referred to. Reading makes nothing else: a name that is no dataclass of this package is refused.
"""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_PACKAGE = "mixing."
Arrays = Mapping[str, np.ndarray]


class NotKept(ValueError):
    """There is something in it that is no dataclass, array or plain value, as LightGBM's trees; or it is damaged."""


def written(thing: object) -> tuple[Any, dict[str, np.ndarray]]:
    """A JSON document and the arrays it refers to. Raises NotKept.

    >>> document, arrays = written({"weights": np.array([0.25, 0.75])})
    >>> read(document, arrays)
    {'weights': array([0.25, 0.75])}
    """
    writer = _Writer()
    whole = writer.put(thing)
    return {"whole": whole, "nodes": writer.nodes}, writer.arrays


def read(document: Any, arrays: Arrays) -> Any:
    """What `written` was given. Raises NotKept for a document that is none of its own."""
    try:
        nodes: list[Any] = []
        for node in document["nodes"]:
            nodes.append(_made(node, nodes, arrays))
        return _taken(document["whole"], nodes, arrays)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ImportError) as error:
        raise NotKept(f"what was kept cannot be read: {error!r}") from error


class _Writer:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._known: dict[int, tuple[Any, object]] = {}
        """By identity; with the object, for another may get the number of one that is gone."""

    def put(self, value: Any) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) not in self._known:
            self._known[id(value)] = self._new(value), value
        return self._known[id(value)][0]

    def _new(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.kind not in "biufUS":
                raise NotKept(f"an array of {value.dtype} is not kept")
            name = str(len(self.arrays))
            self.arrays[name] = np.asarray(value)
            return {"array" if isinstance(value, np.ndarray) else "scalar": name}
        if kind in (tuple, list, frozenset, set):
            return {kind.__name__: [self.put(one) for one in value]}
        if kind is dict:
            return {"dict": [[self.put(name), self.put(one)] for name, one in value.items()]}
        if dataclasses.is_dataclass(kind) and kind.__module__.startswith(_PACKAGE):
            fields = {field.name: self.put(getattr(value, field.name)) for field in dataclasses.fields(kind)}
            self.nodes.append([kind.__module__, kind.__qualname__, fields])
            return {"node": len(self.nodes) - 1}
        raise NotKept(f"a {kind.__module__}.{kind.__qualname__} is not kept")


_SEQUENCES = {"tuple": tuple, "list": list, "frozenset": frozenset, "set": set}


def _taken(told: Any, nodes: Sequence[Any], arrays: Arrays) -> Any:
    if not isinstance(told, dict):
        return told
    ((kind, value),) = told.items()
    if kind == "node":
        return nodes[value]
    if kind == "array":
        return arrays[value]
    if kind == "scalar":
        return arrays[value][()]
    if kind == "dict":
        return {_taken(name, nodes, arrays): _taken(one, nodes, arrays) for name, one in value}
    return _SEQUENCES[kind](_taken(one, nodes, arrays) for one in value)


def _made(node: Any, nodes: Sequence[Any], arrays: Arrays) -> Any:
    module, name, fields = node
    if not module.startswith(_PACKAGE):
        raise NotKept(f"{module}.{name} is not of this package")
    kind = getattr(importlib.import_module(module), name)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module):
        raise NotKept(f"{module}.{name} is no dataclass")
    names = {field.name for field in dataclasses.fields(kind)}
    if names != fields.keys():
        raise NotKept(f"{module}.{name} has other fields")
    # Not by its __init__, which would check again, and may compute: the fields are what it had.
    made = object.__new__(kind)
    for field, value in fields.items():
        object.__setattr__(made, field, _taken(value, nodes, arrays))
    return made
