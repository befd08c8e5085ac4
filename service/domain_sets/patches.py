"""A patch of a revision: every domain it leaves, brings or changes, with its files, and what that comes to."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from mixing.change.patch import Patch, apply_patch
from mixing.change.revision import Changes, Leaves
from mixing.errors import MixingError
from proxy_models.stores.object_path import data_path, file_identity
from proxy_models.text.reading import Reading
from service.domain_sets.checks import CheckedDomain, PlacedDomain
from service.domain_sets.schemas import MergeRequest, PatchRequest
from store.files import store_problems
from store.problems import Invalid, invalid
from store.tables import DomainRow


def requested_domains(patch: PatchRequest) -> Iterator[PlacedDomain]:
    """The domains whose files the patch names."""
    for index, one in enumerate(patch.add):
        yield PlacedDomain(one, f"patch.add[{index}]")
    for index, one in enumerate(patch.revise):
        yield PlacedDomain(one, f"patch.revise[{index}]")
    for index, split in enumerate(patch.split):
        for position, part in enumerate(split.into):
            yield PlacedDomain(part, f"patch.split[{index}].into[{position}]")


@dataclass(frozen=True)
class PatchedTree:
    """A patch over the domains of a revision.

    Attributes:
        request: the patch.
        rows: the older revision's domains by name.
        checked: the domains the patch names files of, by field (`requested_domains`).
    """

    request: PatchRequest
    rows: Mapping[str, DomainRow]
    checked: Mapping[str, CheckedDomain]

    def changes(self, old: Leaves, known: Leaves) -> Changes:
        """What becomes of every domain; ``known`` are those the patch brings.

        Raises Invalid naming the part of the patch at fault.
        """
        request = self.request
        _check_once("add", (one.name for one in request.add))
        _check_once("revise", (one.name for one in request.revise))
        _check_once("split", (one.domain for one in request.split))
        _check_once("merge", (one.into for one in request.merge))
        for index, one in enumerate(request.split):
            _check_once(f"split[{index}].into", (part.name for part in one.into))
        for index, one in enumerate(request.merge):
            _check_once(f"merge[{index}].domains", one.domains)
        patch = Patch(
            add={one.name: known[one.name] for one in self._of("add", len(request.add))},
            remove=tuple(request.remove),
            revise={one.name: known[one.name] for one in self._of("revise", len(request.revise))},
            rename=request.rename,
            split={
                one.domain: {
                    part.name: known[part.name] for part in self._of(f"split[{index}].into", len(one.into))
                }
                for index, one in enumerate(request.split)
            },
            merge={one.into: tuple(one.domains) for one in request.merge},
        )
        try:
            return apply_patch(old, patch)[1]
        except MixingError as error:
            raise invalid(error, _field(request, error)) from error

    def domains(self, changes: Changes) -> list[CheckedDomain]:
        """Every domain of the new revision."""
        brought = {one.name: one for one in self.checked.values()}
        stays = [
            replace(_unchanged(self.rows[before]), name=name)
            for name, before in changes.kept.items()
            if name not in brought
        ]
        merged = [self._merged(index, one) for index, one in enumerate(self.request.merge)]
        return [*stays, *brought.values(), *merged]

    def _of(self, operation: str, count: int) -> Iterator[CheckedDomain]:
        return (self.checked[f"patch.{operation}[{index}]"] for index in range(count))

    def _merged(self, index: int, request: MergeRequest) -> CheckedDomain:
        members = [_unchanged(self.rows[name]) for name in request.domains]
        if len({member.reading for member in members}) > 1:
            raise Invalid(
                "unlike_readings",
                f"The files of {', '.join(request.domains)} are read in different ways; "
                f"write {request.into!r} with files that are read in one.",
                f"patch.merge[{index}].domains",
            )
        files = {identity[0]: identity for member in members for identity in member.identity}
        tokens = request.tokens
        if tokens is None and any(member.declared_tokens is not None for member in members):
            counts = {name: self.rows[name].tokens for name in request.domains}
            if missing := [name for name, count in counts.items() if count is None]:
                raise Invalid(
                    "not_counted",
                    f"{missing[0]!r} is not counted yet, and others of the merge have declared tokens; wait, or say"
                    f" how many tokens {request.into!r} has.",
                    f"patch.merge[{index}].tokens",
                )
            tokens = sum(filter(None, counts.values()))
        reading = members[0].reading
        return CheckedDomain(request.into, tuple(files.values()), tokens, request.size_bytes, reading)


def _unchanged(row: DomainRow) -> CheckedDomain:
    """A domain nothing is said about, with its files as they are now. Raises Invalid when one is gone."""
    with store_problems("patch"):
        try:
            identity = tuple(file_identity(data_path(path)) for path in row.files)
        except OSError as error:
            raise Invalid(
                "no_such_file",
                f"The patch leaves {row.name!r} as it is, but {error.filename!r} cannot be found any more; revise or"
                " remove the domain.",
                "patch",
            ) from error
    reading = Reading.of(row.reading)
    return CheckedDomain(row.name, identity, row.declared_tokens, row.declared_bytes, reading)


def _check_once(operation: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise Invalid("duplicate_domain", f"{name!r} is named twice.", f"patch.{operation}[{index}]")
        seen.add(name)


def _field(request: PatchRequest, error: MixingError) -> str:
    """The part of the patch an error is about: its operation, and the first entry that has a name at fault."""
    operation = error.field if error.field in PatchRequest.model_fields else None
    entries: dict[str, list[tuple[str, str]]] = {
        "add": [(f"[{i}].name", one.name) for i, one in enumerate(request.add)],
        "remove": [(f"[{i}]", name) for i, name in enumerate(request.remove)],
        "revise": [(f"[{i}].name", one.name) for i, one in enumerate(request.revise)],
        "rename": [(f".{old}", name) for old, new in request.rename.items() for name in (old, new)],
        "split": [
            *((f"[{i}].domain", one.domain) for i, one in enumerate(request.split)),
            *((f"[{i}].into", part.name) for i, one in enumerate(request.split) for part in one.into),
        ],
        "merge": [
            *((f"[{i}].into", one.into) for i, one in enumerate(request.merge)),
            *(
                (f"[{i}].domains[{k}]", name)
                for i, one in enumerate(request.merge)
                for k, name in enumerate(one.domains)
            ),
        ],
    }
    found = [
        f"patch.{name}{place}"
        for name in ([operation] if operation else entries)
        for place, domain in entries[name]
        if domain in error.names
    ]
    if error.code == "split_mismatch" and found:
        return found[0].replace(".domain", ".into")
    return found[0] if found else f"patch.{operation}" if operation else "patch"
