"""What is certain about a change: the same name with the same text, the same text, and texts that add up."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mixing.change.revision import Changes, Leaf, Leaves, is_additive, remainder, total_content


@dataclass
class Matching:
    """A diff in the making.

    Attributes:
        old: domains of the older revision whose text has not been found in the newer one yet, by name, sorted.
        new: domains of the newer revision whose text has not been found in the older one yet.
        kept: `{new: old}`, as in `Changes`.
        revised: `{new: old}` of those found under another name; under the same name they stay in `old` and `new`.
        split: `{old: new names}`.
        merged: `{new: old names}`.
    """

    old: dict[str, Leaf]
    new: dict[str, Leaf]
    kept: dict[str, str] = field(default_factory=dict)
    revised: dict[str, str] = field(default_factory=dict)
    split: dict[str, tuple[str, ...]] = field(default_factory=dict)
    merged: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, old: Leaves, new: Leaves) -> "Matching":
        """Nothing matched yet. Sorted, so that no result depends on the order domains are given in."""
        return cls({name: old[name] for name in sorted(old)}, {name: new[name] for name in sorted(new)})

    @property
    def removed(self) -> dict[str, Leaf]:
        """Unmatched old domains whose name no unmatched new one has."""
        return {name: leaf for name, leaf in self.old.items() if name not in self.new}

    @property
    def added(self) -> dict[str, Leaf]:
        """Unmatched new domains whose name no unmatched old one has."""
        return {name: leaf for name, leaf in self.new.items() if name not in self.old}

    def keep(self, old: str, new: str) -> None:
        """`new` holds the text of `old`."""
        del self.old[old], self.new[new]
        self.kept[new] = old

    def revise(self, old: str, new: str) -> None:
        """`new` follows `old` with another text."""
        del self.old[old], self.new[new]
        self.revised[new] = old

    def divide(self, parent: str, parts: tuple[str, ...]) -> None:
        """`parts` hold together the text of `parent`."""
        del self.old[parent]
        for part in parts:
            del self.new[part]
        self.split[parent] = tuple(sorted(parts))

    def unite(self, name: str, sources: tuple[str, ...]) -> None:
        """`name` holds together the texts of `sources`."""
        del self.new[name]
        for source in sources:
            del self.old[source]
        self.merged[name] = tuple(sorted(sources))

    def changes(self) -> Changes:
        """What has been found; what is unmatched under one name was revised, the rest came or went."""
        revised = self.revised | {name: name for name in self.new if name in self.old}
        return Changes(
            kept=dict(sorted(self.kept.items())),
            revised=dict(sorted(revised.items())),
            added=tuple(self.added),
            removed=tuple(self.removed),
            split=dict(sorted(self.split.items())),
            merged=dict(sorted(self.merged.items())),
        )


def same_text(old: Leaf, new: Leaf) -> bool | None:
    """Whether two domains that stand for one another hold the same text; None where that cannot be known.

    Contents decide. Where neither is known the caller keeps none, and equal token counts have to do.
    """
    if old.content is not None and new.content is not None:
        return old.content == new.content
    if old.content is not None or new.content is not None or (old.tokens is None) != (new.tokens is None):
        return None
    return old.tokens == new.tokens


def holders(leaves: Leaves) -> dict[str, list[str]]:
    """`{content: names}` of the domains with a known content."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, leaf in leaves.items():
        if leaf.content is not None:
            names[leaf.content].append(name)
    return names


def match_unique_contents(matching: Matching) -> None:
    """Keep every unmatched text that exactly one old and one new domain hold, whatever they are called."""
    new = holders(matching.new)
    for content, names in holders(matching.old).items():
        if len(names) == 1 and len(new.get(content, ())) == 1:
            matching.keep(names[0], new[content][0])


def match_sums(matching: Matching) -> None:
    """Find the splits and merges whose contents prove them, among the groupings somebody would make.

    These are the domains under one name (`a:...`), and all that are new or gone together; where a domain keeps its
    name but gave away or took in text, what it holds now counts too. Looking through all subsets would take time
    exponential in their number, and find accidents.
    """
    for together in (False, True):
        for parent, parts in list(_wholes(matching.old, matching.new, together)):
            if all(part in matching.new for part in parts):
                matching.divide(parent, parts)
        for name, sources in list(_wholes(matching.new, matching.old, together)):
            if all(source in matching.old for source in sources):
                matching.unite(name, sources)


def _wholes(wholes: Leaves, parts: Leaves, together: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of `wholes` whose content is the sum of a group of `parts`, with the group; its own name's group first."""
    loose = {name: leaf for name, leaf in parts.items() if name not in wholes}
    groups = {"": tuple(loose)} if together else nested(loose)
    contents = {
        prefix: total_content({name: loose[name] for name in group}) for prefix, group in groups.items()
    }
    of_sum = {content: prefix for prefix, content in contents.items() if content is not None}
    for name, leaf in wholes.items():
        if not is_additive(leaf.content):
            continue
        staying = parts[name].content if name in parts else None
        sought = remainder(leaf.content, staying) if is_additive(staying) else leaf.content
        prefix = name if contents.get(name) == sought else of_sum.get(sought)
        group = groups.get(prefix, ()) if prefix is not None else ()
        if is_additive(staying) and group:
            yield name, (name, *group)
        elif len(group) > 1:
            yield name, group


def nested(leaves: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """`{prefix: names}` for every `a` and `a:b` that names lie under, the longest prefixes first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in leaves:
        parts = name.split(":")
        for depth in range(1, len(parts)):
            groups[":".join(parts[:depth])].append(name)
    return {
        prefix: tuple(groups[prefix])
        for prefix in sorted(groups, key=lambda prefix: (-prefix.count(":"), prefix))
    }
