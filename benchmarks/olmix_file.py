"""A YAML file of Olmix with the line of everything in it, so that what is wrong can be pointed at.

The file is composed into nodes and never loaded: only plain scalars are constructed, by the safe constructor.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml
from yaml.constructor import SafeConstructor

SECTIONS = frozenset({"swarm", "priors", "eval", "regression", "proposer", "constraints", "filtering"})
BELONGS = {
    "relative_sizes": "priors",
    "token_counts": "priors",
    "kl_reg": "proposer",
    "target_tokens": "constraints",
    "repetition_factor": "constraints",
    "drop_metrics": "filtering",
    "obj_weights": "filtering",
}
"""Where a key belongs that may be found at the top level, or in another section, by mistake."""


class OlmixConfigError(ValueError):
    """A configuration that cannot be read: `file`, `line` (from 1, None where it is none in particular), and why."""

    def __init__(self, file: str | Path, line: int | None, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}" if line is not None else f"{file}: {reason}")
        self.file = str(file)
        self.line = line


@dataclass(frozen=True)
class Entry:
    """A value, the line of its key (from 1) and what leads to it (`priors.token_counts.arxiv`)."""

    path: Path
    name: str
    line: int
    node: yaml.Node

    @property
    def is_null(self) -> bool:
        """Whether nothing is given."""
        return self._scalar() is None

    def error(self, reason: str) -> OlmixConfigError:
        """To be raised about this entry."""
        return OlmixConfigError(self.path, self.line, reason)

    def number(self) -> float:
        """A finite number of at least 0."""
        value = self._scalar()
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or value < 0
        ):
            raise self.error(f"{self.name} is {value!r}; it must be a number of at least 0")
        return float(value)

    def positive_integer(self) -> int:
        """A count."""
        value = self._scalar()
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.error(f"{self.name} is {value!r}; it must be a whole number above 0")
        return value

    def text(self) -> str:
        """A word."""
        value = self._scalar()
        if not isinstance(value, str):
            raise self.error(f"{self.name} is {value!r}; it must be a word")
        return value

    def texts(self) -> tuple[str, ...]:
        """A list of words."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"{self.name} must be a list")
        name = f"an entry of {self.name}"
        return tuple(Entry(self.path, name, _line(node), node).text() for node in self.node.value)

    def entries(self) -> dict[str, "Entry"]:
        """What stands under it, by key.

        Raises:
            OlmixConfigError: it is no mapping, or has a key twice.
        """
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"{self.name or 'the file'} must be a mapping of keys to values")
        found: dict[str, Entry] = {}
        for key_node, value_node in self.node.value:
            key, line = str(key_node.value), _line(key_node)
            if key in found:
                raise OlmixConfigError(self.path, line, f"{key!r} stands in line {found[key].line} already")
            found[key] = Entry(self.path, f"{self.name}.{key}".lstrip("."), line, value_node)
        return found

    def _scalar(self) -> Any:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"{self.name} must be a single value")
        try:
            return SafeConstructor().construct_object(self.node)
        except (yaml.YAMLError, ValueError) as error:
            raise self.error(f"{self.name} is no plain value") from error


@dataclass(frozen=True)
class Section:
    """One of the sections, with what was misplaced put back."""

    head: Entry
    content: Mapping[str, Entry]

    def error(self, reason: str) -> OlmixConfigError:
        """To be raised about the section as a whole."""
        return self.head.error(f"{self.head.name}: {reason}")

    def entry(self, key: str) -> Entry:
        """What stands under `key`.

        Raises:
            OlmixConfigError: nothing does.
        """
        if key not in self.content:
            raise self.error(f"{key!r} is missing")
        return self.content[key]

    def mapping(self, key: str) -> dict[str, Entry]:
        """The entries under `key`.

        Raises:
            OlmixConfigError: there are none.
        """
        if not (found := self.entry(key).entries()):
            raise self.error(f"{key!r} is empty")
        return found


@dataclass(frozen=True)
class OlmixFile:
    """The sections of a file, and what was noted while reading it."""

    path: Path
    sections: Mapping[str, Section]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, accept_misplaced: frozenset[str] = frozenset()) -> Self:
        """The file, its sections where they should be.

        Raises:
            OlmixConfigError: no such file, no YAML, or something where it does not belong (at the top level
                excepted, if it is in `accept_misplaced`).
        """
        top = _top(path)
        heads = {name: entry for name, entry in top.items() if name in SECTIONS}
        contents = {name: entry.entries() for name, entry in heads.items()}
        for section, entries in contents.items():
            for key, entry in entries.items():
                if BELONGS.get(key, section) != section:
                    raise entry.error(f"{key!r} stands under {section!r}, but belongs under {BELONGS[key]!r}")
        notes = []
        for name, entry in top.items():
            if name in SECTIONS:
                continue
            if (section := BELONGS.get(name)) is None:
                raise entry.error(f"{name!r} is no section; there are {', '.join(sorted(SECTIONS))}")
            there = f"{section!r} (line {heads[section].line})" if section in heads else repr(section)
            reason = f"{name!r} stands at the top level, but belongs under {there}: indent it there"
            if name not in accept_misplaced or section not in contents or name in contents[section]:
                raise entry.error(reason)
            notes.append(f"{path}:{entry.line}: {reason}; read as if it stood there")
            contents[section][name] = Entry(path, f"{section}.{name}", entry.line, entry.node)
        return cls(path, {name: Section(heads[name], contents[name]) for name in heads}, notes)

    def section(self, name: str) -> Section:
        """The section of this name.

        Raises:
            OlmixConfigError: the file has none.
        """
        if name not in self.sections:
            raise OlmixConfigError(self.path, None, f"the section {name!r} is missing")
        return self.sections[name]

    def note(self, line: int, remark: str) -> None:
        """Remember something odd."""
        self.notes.append(f"{self.path}:{line}: {remark}")


def _top(path: Path) -> dict[str, Entry]:
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise OlmixConfigError(path, None, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise OlmixConfigError(path, None, "is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise OlmixConfigError(path, line, f"no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise OlmixConfigError(path, None, f"no YAML: {error}") from error
    if node is None:
        raise OlmixConfigError(path, None, "is empty")
    return Entry(path, "", 1, node).entries()


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
