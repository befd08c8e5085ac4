"""Addresses from requests: the one place where one becomes objects of a store, and only below a data root."""

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxy_models.errors import BadAddress, StoreError, StoreMisconfigured, StoreUnreachable
from proxy_models.stores.object_path import DataPath, ObjectPath, data_path
from proxy_models.stores.objects import matching_objects
from store.problems import Invalid, Unavailable

MAX_FILES = 100_000


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
