"""Paths and addresses from requests: the one place where a string a client sent becomes a file or an object.

And only below a data root.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from proxy_models.errors import BadAddress, StoreError, StoreMisconfigured, StoreUnreachable
from proxy_models.stores.file_system import matching_objects
from proxy_models.stores.object_path import DataPath, FileIdentity, ObjectPath, data_path, is_address
from store.problems import Invalid, Unavailable

MAX_FILES = 100_000
LONGEST_PART, LONGEST_PATH = 255, 4000
"""Bytes of a name and characters of a path; Linux has 255 and 4096."""


def identity_hash(files: Iterable[FileIdentity], reading: Mapping[str, object] | None = None) -> str:
    """SHA-256 of files' identities, and of what is said about reading them; their order plays no part."""
    content = [sorted(files), reading] if reading else sorted(files)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def resolve_files(pattern: str, roots: Sequence[DataPath], field: str) -> list[DataPath]:
    """The regular files an absolute path or glob names, links resolved, sorted; or the objects an address names.

    Raises Invalid (``field`` named) for a relative path, one that leaves the roots in any way (``..``, a link), a
    pattern that matches nothing, and anything that is not a readable regular file; Unavailable for a store that does
    not answer.
    """
    with store_problems(field):
        place = data_path(pattern)
        if isinstance(place, ObjectPath):
            return [*resolve_objects(place, roots, field)]
        pattern = str(place) if is_address(pattern) else pattern
    return [*_local_files(pattern, local_roots(roots), field)]


def _local_files(pattern: str, roots: Sequence[Path], field: str) -> list[Path]:
    _check_text(pattern, roots, field)
    matches = _matches(pattern, field)
    files = sorted({_inside(Path(match), roots, field) for match in matches if not Path(match).is_dir()})
    if not files:
        raise Invalid("no_such_file", f"{pattern!r} names no file{_directory_hint(pattern, matches)}.", field)
    for file in files:
        if not file.is_file():
            raise Invalid("no_such_file", f"{str(file)!r} does not exist or is not a regular file.", field)
        if not os.access(file, os.R_OK):
            raise Invalid("unreadable_file", f"{str(file)!r} cannot be read by the service.", field)
    return files


def _directory_hint(pattern: str, matches: Sequence[str]) -> str:
    if "**" in pattern or not any(Path(match).is_dir() for match in matches):
        return ""
    folder = pattern.rstrip("/")
    return (
        f", only a directory: say '{folder}/*' for the files in it, or '{folder}/**' for those in the directories"
        " below it too"
    )


def resolve_place(path: str, roots: Sequence[DataPath], field: str) -> Path:
    """The file or folder an absolute path names, links resolved; raises Invalid like `resolve_files`."""
    roots = local_roots(roots)
    _check_text(path, roots, field)
    resolved = _inside(Path(path), roots, field)
    if not resolved.exists():
        raise Invalid("no_such_file", f"{path!r} does not exist.", field)
    return resolved


def _matches(pattern: str, field: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern]
    if Path(pattern).parts.count("**") > 1:  # each multiplies the folders that are looked through
        raise Invalid("bad_path", f"{pattern!r} has '**' more than once.", field)
    # glob.iglob and not Path.glob: the latter has no absolute patterns.
    matches = list(islice(glob.iglob(pattern, recursive=True), MAX_FILES + 1))  # noqa: PTH207
    if len(matches) > MAX_FILES:
        raise Invalid("too_many_files", f"{pattern!r} names over {MAX_FILES} files and folders.", field)
    return matches


def _check_text(pattern: str, roots: Sequence[Path], field: str) -> None:
    path = Path(pattern) if "\0" not in pattern else None
    if path is None or not path.is_absolute() or ".." in path.parts:
        raise Invalid("bad_path", f"{pattern!r} is not an absolute path without '..'.", field)
    if any(len(os.fsencode(part)) > LONGEST_PART for part in path.parts) or len(pattern) > LONGEST_PATH:
        raise Invalid("bad_path", f"{pattern[:200]!r}... is longer than a path can be.", field)
    fixed = Path(*_parts_before_magic(path))
    if not _is_below(_resolved(fixed, field), roots):
        raise outside_roots(pattern, roots, field)


def _parts_before_magic(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _inside(path: Path, roots: Sequence[Path], field: str) -> Path:
    resolved = _resolved(path, field)
    if not _is_below(resolved, roots):
        raise outside_roots(str(path), roots, field)
    return resolved


def _resolved(path: Path, field: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise Invalid("bad_path", f"{str(path)!r} cannot be followed: {error}", field) from error


def _is_below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path == root or root in path.parents for root in roots)


def resolve_objects(pattern: ObjectPath, roots: Sequence[DataPath], field: str) -> list[ObjectPath]:
    """The objects an address or glob names, sorted, each with the size and version it was listed with.

    Raises Invalid (``field`` named) where it leaves the roots or matches nothing, `StoreError`.
    """
    parts = pattern.key.split("/")
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    _require_below(ObjectPath(pattern.protocol, "/".join(parts[:fixed])), pattern, roots, field)
    if fixed == len(parts):
        return [ObjectPath(pattern.protocol, pattern.key, pattern.stat())]
    if parts.count("**") > 1:  # each multiplies the folders that are looked through
        raise Invalid("bad_path", f"'{pattern}' has '**' more than once.", field)
    found = matching_objects(pattern, MAX_FILES + 1)
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


def local_roots(roots: Sequence[DataPath]) -> list[Path]:
    """The roots that are directories."""
    return [root for root in roots if isinstance(root, Path)]


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
