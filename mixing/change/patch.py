"""A change of domains that is written down instead of found: what to add, remove, revise, rename, split and merge."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mixing.change.matching import same_text
from mixing.change.revision import (
    Changes,
    Leaf,
    Leaves,
    check_leaves,
    check_split,
    total_content,
    total_tokens,
)
from mixing.errors import (
    DuplicateDomain,
    InvalidDomainName,
    InvalidSetting,
    InvalidTokens,
    MissingDomain,
    UnknownDomain,
)


@dataclass(frozen=True)
class Patch:
    """What changes; a domain that no operation names stays as it is.

    Attributes:
        add: new domains by name.
        remove: names.
        revise: what domains hold from now on, by name.
        rename: `{old name: new name}`.
        split: `{parent: {part: what it holds}}`; a part may be called like the parent.
        merge: `{new name: old names}`; it holds what they hold together.
    """

    add: Leaves = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    revise: Leaves = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, Leaves] = field(default_factory=dict)
    merge: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def touched(self) -> Iterator[tuple[str, str]]:
        """`(field, old name)` for every old domain that an operation names."""
        yield from (("remove", name) for name in self.remove)
        yield from (("revise", name) for name in self.revise)
        yield from (("rename", name) for name in self.rename)
        yield from (("split", name) for name in self.split)
        yield from (("merge", name) for names in self.merge.values() for name in names)

    def made(self) -> Iterator[tuple[str, str]]:
        """`(field, new name)` for every name that an operation brings."""
        yield from (("add", name) for name in self.add)
        yield from (("rename", name) for name in self.rename.values())
        yield from (("split", name) for parts in self.split.values() for name in parts)
        yield from (("merge", name) for name in self.merge)


def apply_patch(old: Leaves, patch: Patch) -> tuple[Leaves, Changes]:
    """The domains after the patch, sorted by name, and what became of each.

    The tokens of a merged domain are the sum of its sources', its content their combined one where all add up. A
    revision that brings the content a domain has already is no change; it may still correct the token count.

    Raises:
        UnknownDomain: an operation on a domain that is not there.
        DuplicateDomain: a domain in two operations, or a new name that is taken.
        InvalidSetting: a split into fewer than two parts, a merge of fewer than two domains.
        SplitMismatch: parts that are not together their parent.
        InvalidDomainName: a malformed name, or `a` beside `a:b`.
        InvalidTokens: a count that is not positive and finite.
        MissingDomain: nothing would be left.
        In each `field` is the operation at fault, as the patch calls it.
    """
    _check_touched(old, patch)
    _check_groups(old, patch)
    touched = {name for _, name in patch.touched()}
    stays = {name: leaf for name, leaf in old.items() if name not in touched}
    _check_made({*stays, *patch.revise}, old, patch)
    new = {**stays, **patch.revise, **patch.add}
    new |= {after: old[before] for before, after in patch.rename.items()}
    for parts in patch.split.values():
        new |= parts
    new |= {name: _merged(old, sources) for name, sources in patch.merge.items()}
    _check_tree(new, patch)
    same = {
        name for name, leaf in patch.revise.items() if leaf.content is not None and same_text(old[name], leaf)
    }
    kept = {name: name for name in (*stays, *same)} | {
        after: before for before, after in patch.rename.items()
    }
    changes = Changes(
        kept=dict(sorted(kept.items())),
        revised={name: name for name in sorted(patch.revise) if name not in same},
        added=tuple(sorted(patch.add)),
        removed=tuple(sorted(patch.remove)),
        split={parent: tuple(sorted(parts)) for parent, parts in sorted(patch.split.items())},
        merged={name: tuple(sorted(sources)) for name, sources in sorted(patch.merge.items())},
    )
    return {name: new[name] for name in sorted(new)}, changes


def _check_touched(old: Leaves, patch: Patch) -> None:
    fields: dict[str, str] = {}
    for operation, name in patch.touched():
        if name not in old:
            raise UnknownDomain(
                f"{operation} names {name!r}, which is not there", field=operation, names=[name]
            )
        if name in fields:
            raise DuplicateDomain(
                f"{name!r} stands in {fields[name]} and in {operation}; a patch does one thing to a domain, so make"
                " two patches",
                field=operation,
                names=[name],
            )
        fields[name] = operation


def _check_groups(old: Leaves, patch: Patch) -> None:
    for operation, groups in (("split", patch.split), ("merge", patch.merge)):
        for name, group in groups.items():
            if len(group) < 2:
                word = "into" if operation == "split" else "of"
                raise InvalidSetting(
                    f"{operation} {name!r}: {word} {len(group)}, and it takes two at least; for one write rename",
                    field=operation,
                    names=[name],
                )
    for parent, parts in patch.split.items():
        check_split(parent, old[parent], parts, field="split")


def _check_made(stay: set[str], old: Leaves, patch: Patch) -> None:
    """Every name that the patch brings is brought once, and free."""
    removed = set(patch.remove)
    times = Counter(name for _, name in patch.made())
    for operation, name in patch.made():
        reason = None
        if times[name] > 1:
            reason = "two operations bring a domain of this name"
        elif name in stay:
            reason = "there is one already; write revise for another text"
        elif operation == "add" and name in removed:
            reason = "it is removed as well; write revise for another text"
        if reason:
            raise DuplicateDomain(f"{operation} {name!r}: {reason}", field=operation, names=[name])


def _check_tree(new: Leaves, patch: Patch) -> None:
    if not new:
        raise MissingDomain("the patch removes every domain; leave one at least", field="remove")
    brought = {name: operation for operation, name in patch.made()}
    brought |= dict.fromkeys(patch.revise, "revise")
    try:
        check_leaves(new)
    except (InvalidDomainName, InvalidTokens) as error:
        at_fault = next((brought[name] for name in error.names if name in brought), error.field)
        raise type(error)(str(error), field=at_fault, names=error.names) from None


def _merged(old: Leaves, sources: tuple[str, ...]) -> Leaf:
    leaves = {source: old[source] for source in sources}
    return Leaf(total_tokens(leaves), total_content(leaves))
