"""Paths and addresses from requests: the one place where a string a client sent becomes a file or an object.

And only below a data root.
"""

import fnmatch
import glob
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from proxy_models.errors import BadAddress, CorpusError, StoreError, StoreMisconfigured, StoreUnreachable
from proxy_models.stores.file_system import matching_objects
from proxy_models.stores.object_path import DataPath, FileIdentity, ObjectPath, data_path, is_address
from proxy_models.text.data_roots import entries_of, found, is_below, reading_below
from store.problems import Invalid, Unavailable

MAX_FILES = 100_000
MAX_ENTRIES, SEARCH_SECONDS = 500_000, 5.0
"""Of folders that are looked through for one pattern."""
OBJECT_SECONDS = 15.0
"""Of those in a store, which answers a thousand names at a time."""
LONGEST_PART, LONGEST_PATH = 255, 4000
"""Bytes of a name and characters of a path; Linux has 255 and 4096."""


def identity_hash(files: Iterable[FileIdentity], reading: Mapping[str, object] | None = None) -> str:
    """SHA-256 of files' identities, and of what is said about reading them; their order plays no part."""
    content = [sorted(files), reading] if reading else sorted(files)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def resolve_files(pattern: str, roots: Sequence[DataPath], field: str) -> list[DataPath]:
    """The regular files an absolute path or glob names, sorted; or the objects an address names.

    Links on the way are resolved, and a file that is one keeps its own name, which may say what the target's does
    not; of names that lead to one file the first is taken. A path with a slash at its end is a folder with all that
    is below it, and one that exists is no glob. ``**`` is any number of folders; it follows no links, which may lead
    in circles.

    Raises Invalid (``field`` named) for a relative path, one that leaves the roots in any way (``..``, a link), a
    pattern that matches nothing or that too much has to be looked through for, and anything that is not a readable
    regular file; Unavailable for a store that does not answer.
    """
    with store_problems(field):
        place = data_path(pattern)
        if isinstance(place, ObjectPath):
            return [*resolve_objects(place, roots, field, pattern.endswith("/"))]
        pattern = f"{place}{'/' * pattern.endswith('/')}" if is_address(pattern) else pattern
    with reading_below(roots):
        return [*_Search(pattern, roots, field).files()]


def resolve_place(path: str, roots: Sequence[DataPath], field: str) -> Path:
    """The file or folder an absolute path names, links resolved; raises Invalid like `resolve_files`."""
    with reading_below(roots):
        search = _Search(path, roots, field)
        there = search.look(search.start(Path(path)))
    if there is None:
        raise Invalid("no_such_file", f"{path!r} does not exist.", field)
    return there[0]


@dataclass
class _Search:
    """What a path or pattern names: no folder outside the roots is listed, none for longer than there is time."""

    pattern: str
    roots: Sequence[DataPath]
    member: str
    """Of the request, that the pattern stands in."""
    folders: int = 0
    """How many folders it names: they are no files, and worth a hint."""
    seen: int = 0
    until: float = field(default_factory=lambda: time.monotonic() + SEARCH_SECONDS)

    def files(self) -> list[Path]:
        parts = Path(self.pattern).parts if "\0" not in self.pattern else ()
        if parts.count("**") > 1:  # each multiplies the folders that are looked through
            raise self.refusal("bad_path", f"{self.pattern!r} has '**' more than once.")
        fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        start = self.start(Path(*parts[:fixed]))
        rest = parts[fixed:]
        if rest and self.look(start.joinpath(*rest)) is not None:  # a name with brackets, and no pattern
            start, rest = start.joinpath(*rest), ()
        if self.pattern.endswith("/") and "**" not in rest:
            rest = (*rest, "**")
        named = list(islice(self.below(start, rest), MAX_FILES + 1))
        named.sort(key=lambda found: found[0].parts, reverse=True)
        files = [*reversed({target: name for name, target in named}.values())]
        if len(named) > MAX_FILES:
            raise self.refusal("too_many_files", f"{self.pattern!r} names over {MAX_FILES} files.")
        if not files:
            raise self.refusal("no_such_file", f"{self.pattern!r} names no file{self.hint()}.")
        for file in files:
            if not os.access(file, os.R_OK):
                raise self.refusal("unreadable_file", f"{str(file)!r} cannot be read by the service.")
        return files

    def start(self, fixed: Path) -> Path:
        """Where the part before the first wildcard leads; by name, for nothing is opened yet."""
        parts = Path(self.pattern).parts
        if not fixed.is_absolute() or ".." in parts or "\0" in self.pattern:
            raise self.refusal("bad_path", f"{self.pattern!r} is not an absolute path without '..'.")
        if max(len(os.fsencode(part)) for part in parts) > LONGEST_PART or len(self.pattern) > LONGEST_PATH:
            raise self.refusal("bad_path", f"{self.pattern[:200]!r}... is longer than a path can be.")
        if not is_below(Path(os.path.realpath(fixed)), self.roots):
            raise outside_roots(self.pattern, self.roots, self.member)
        return Path(os.path.realpath(fixed.parent), fixed.name)

    def below(
        self, place: Path, parts: Sequence[str], is_listed: bool = False
    ) -> Iterator[tuple[Path, Path]]:
        """The files that ``parts`` name in what is at ``place``, or leads there: name and where that leads."""
        there = self.look(place)
        if there is None:
            if is_listed and not parts:
                raise self.refusal("no_such_file", f"{str(place)!r} leads to no file.")
            return
        target, mode = there
        if stat.S_ISDIR(mode):
            self.folders += not parts
            if parts:
                yield from self.inside(target, parts[0], parts[1:])
        elif not parts:
            if not stat.S_ISREG(mode):
                raise self.refusal("no_such_file", f"{str(place)!r} is not a regular file.")
            yield place, target

    def inside(self, folder: Path, part: str, rest: Sequence[str]) -> Iterator[tuple[Path, Path]]:
        if part == "**":
            yield from self.anywhere(folder, rest or ("*",))
        elif not glob.has_magic(part):
            yield from self.below(folder / part, rest)
        else:
            is_named = re.compile(fnmatch.translate(part)).match
            for name, is_plain_file, _ in self.entries(folder):
                if not is_named(name) or (name.startswith(".") and not part.startswith(".")):
                    continue
                if not is_plain_file:
                    yield from self.below(folder / name, rest, is_listed=True)
                elif not rest:
                    file = folder / name
                    yield file, file

    def anywhere(self, folder: Path, parts: Sequence[str]) -> Iterator[tuple[Path, Path]]:
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            yield from self.inside(folder, parts[0], parts[1:])
            inner = self.entries(folder)
            waiting += [folder / name for name, _, is_folder in inner if is_folder and name[0] != "."]

    def entries(self, folder: Path) -> list[tuple[str, bool, bool]]:
        """Name, and whether it is a file or a folder; a link is neither."""
        listed = []
        with self.problems(folder), entries_of(folder) as entries:
            for entry in entries:
                self.seen += 1
                if self.seen > MAX_ENTRIES or (self.seen % 256 == 0 and time.monotonic() > self.until):
                    raise self.refusal(
                        "too_many_files",
                        f"{self.pattern!r} looks through more than {self.seen - 1} files and folders, which takes "
                        "too long; name the folders that have the files.",
                    )
                listed.append(
                    (entry.name, entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False))
                )
        return listed

    def look(self, place: Path) -> tuple[Path, int] | None:
        with self.problems(place):
            return found(place)

    @contextmanager
    def problems(self, place: Path) -> Iterator[None]:
        try:
            yield
        except CorpusError as error:
            raise outside_roots(str(place), self.roots, self.member) from error
        except FileNotFoundError:  # gone since it was listed
            return
        except OSError as error:
            raise self.refusal("bad_path", f"{str(place)!r} cannot be read: {error.strerror}.") from error

    def hint(self) -> str:
        if not self.folders or "**" in self.pattern:
            return ""
        folder = self.pattern.rstrip("/")
        return f", only a directory: say '{folder}/' for all files below it, or '{folder}/*' for those in it"

    def refusal(self, code: str, detail: str) -> Invalid:
        return Invalid(code, detail, self.member)


def resolve_objects(
    pattern: ObjectPath, roots: Sequence[DataPath], field: str, is_folder: bool = False
) -> list[ObjectPath]:
    """The objects an address or glob names, sorted, each with the size and version it was listed with.

    Raises Invalid (``field`` named) where it leaves the roots or matches nothing, `StoreError`.
    """
    if is_folder:
        pattern = ObjectPath(pattern.protocol, f"{pattern.key}/**")
    parts = pattern.key.split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    _require_below(ObjectPath(pattern.protocol, "/".join(parts[:fixed])), pattern, roots, field)
    if fixed == len(parts) or (not is_folder and pattern.exists()):
        return [ObjectPath(pattern.protocol, pattern.key, pattern.stat())]
    if parts.count("**") > 1:  # each multiplies the folders that are looked through
        raise Invalid("bad_path", f"'{pattern}' has '**' more than once.", field)
    found = matching_objects(pattern, MAX_ENTRIES, OBJECT_SECONDS)
    if len(found) > MAX_FILES:
        raise Invalid("too_many_files", f"'{pattern}' names over {MAX_FILES} objects.", field)
    if not found:
        raise Invalid("no_such_file", f"'{pattern}' names no object.", field)
    for one in found:  # what the store calls them is checked like what a client calls them
        data_path(str(one))
        _require_below(one, one, roots, field)
    return sorted(found)


def _require_below(path: ObjectPath, said: ObjectPath, roots: Sequence[DataPath], field: str) -> None:
    if not any(isinstance(root, ObjectPath) and path.is_below(root) for root in roots):
        raise outside_roots(str(said), roots, field)


def outside_roots(path: str, roots: Sequence[DataPath], field: str) -> Invalid:
    """The refusal of a path that is below no data root."""
    return Invalid(
        "outside_data_roots",
        f"{path!r} lies outside the data roots ({', '.join(map(str, roots))}); "
        "the operator sets MIXWRIGHT_DATA_ROOTS.",
        field,
    )


@contextmanager
def store_problems(field: str | None = None) -> Iterator[None]:
    """Turn what is wrong with a store into the answer to a request."""
    try:
        yield
    except (StoreUnreachable, StoreMisconfigured) as error:
        raise Unavailable(error.code, str(error), field) from error
    except BadAddress as error:
        raise Invalid(error.code, str(error), field) from error
    except FileNotFoundError as error:
        raise Invalid("no_such_file", str(error), field) from error
    except StoreError as error:
        raise Invalid(error.code, str(error), field) from error
