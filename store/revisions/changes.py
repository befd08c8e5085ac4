"""Which text a revision's domains are, and what became of them since its parent, as far as counting has told.

A revision stores what was found, or said, when it was posted. Reading it compares that with the content known by now:
a domain that was touched and is the same text was kept, one that was left alone and is another text was revised, what
disappeared under one name and appeared under another was renamed, and a split or merge whose parts do not add up is
none: its domains are then taken for removed and added ones, through which no run is carried.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session, selectinload

from mixing.change.diff import diff
from mixing.change.lineage import RevisionNode
from mixing.change.revision import Changes, Leaf, Leaves, combined, is_additive
from mixing.errors import AmbiguousChange, InvalidLineage
from store.tables import DomainRow, Revision

# A revision and its ancestors, as the mathematics of lineages reads them.


def ancestry(session: Session, revision: Revision) -> list[Revision]:
    """The revision, its parent, and so on to the first, each with its domains loaded.

    Raises:
        InvalidLineage: a revision is its own ancestor.
    """
    found = [revision]
    while (parent_id := found[-1].parent_id) is not None:
        if any(one.id == parent_id for one in found):
            raise InvalidLineage(
                f"revision {found[-1].number} is its own ancestor",
                field="parent",
                names=[str(revision.number)],
            )
        query = select(Revision).where(Revision.id == parent_id).options(selectinload(Revision.domains))
        found.append(session.scalars(query).one())
    return found


def is_known(revision: Revision) -> bool:
    """Whether every domain is counted, or has nothing to count: a run is carried to and from such a revision only."""
    return all(
        row.tokens is not None and (row.counted_tokens is not None or not row.files)
        for row in revision.domains
    )


def node_id(revision: Revision) -> str:
    """What a revision is called in a lineage: its number, so that a content is called ``web@3``."""
    return str(revision.number)


def lineage_nodes(session: Session, revision: Revision) -> list[RevisionNode]:
    """The counted revisions of the chain, newest first; ``revision`` is counted itself.

    One whose counting never ended (its files were bad, say, and the next revision put that right) is passed over: its
    neighbours are compared by names and content alone.
    """
    chain = [revision, *(one for one in ancestry(session, revision)[1:] if is_known(one))]
    nodes: list[RevisionNode] = []
    for position, one in enumerate(chain):
        older = chain[position + 1] if position + 1 < len(chain) else None
        leaves = leaves_of(session, one)
        changes: Changes | None = None
        if older is not None:
            changes = (
                known_changes(session, one).changes
                if one.parent_id == older.id
                else plain_changes(leaves_of(session, older), leaves)
            )
        nodes.append(RevisionNode(node_id(one), leaves, None if older is None else node_id(older), changes))
    return nodes


def same_held_out(nodes: Sequence[RevisionNode], revision: str) -> dict[str, tuple[str, ...]]:
    """Domain of ``revision`` -> the newest revision's domains of the same text, whose held-out slice is the same."""
    newest: dict[str, list[str]] = {}
    for name, leaf in sorted(nodes[0].leaves.items()):
        if leaf.content is not None and is_counted(leaf.content):
            newest.setdefault(leaf.content, []).append(name)
    (older,) = (node for node in nodes if node.id == revision)
    return {
        name: tuple(newest[leaf.content])
        for name, leaf in older.leaves.items()
        if leaf.content is not None and leaf.content in newest
    }


FILES = "files:"
"""Before a key of files that nobody has counted: equal ones are the same text, different ones say nothing."""


def is_counted(key: str | None) -> bool:
    """Whether a key is of the text itself, so that another one of its kind is another text."""
    return key is not None and not key.startswith(FILES)


def content_keys(session: Session, rows: Sequence[DomainRow]) -> dict[str, str | None]:
    """Domain name -> key of its text, for rows of one domain set.

    It is what counting found; else what was found of the same shard or the same unchanged files in another revision;
    else ``files:`` and their hash; None where nothing is known.
    """
    uncounted = [row for row in rows if row.content_hash is None]
    # Of other sets nothing is taken over: what pre-tokenized files say depends on the set's tokenizer.
    by_shard = _known(session, uncounted, DomainRow.shard_directory)
    by_files = _known(session, uncounted, DomainRow.files_hash)
    return {
        row.name: row.content_hash
        or by_shard.get(row.shard_directory or "")
        or by_files.get(row.files_hash or "")
        or (f"{FILES}{row.files_hash}" if row.files_hash else None)
        for row in rows
    }


def _known(
    session: Session, rows: Iterable[DomainRow], column: InstrumentedAttribute[str | None]
) -> dict[str, str]:
    """Value of ``column`` -> content, from counted rows of the same set that share one of the rows' values."""
    rows = list(rows)
    values = sorted({value for row in rows if (value := getattr(row, column.key)) is not None})
    if not values:
        return {}
    return known_contents(session, column, values, Revision.domain_set_id == rows[0].revision.domain_set_id)


def known_contents(
    session: Session,
    column: InstrumentedAttribute[str | None],
    values: Sequence[str],
    within: ColumnElement[bool],
) -> dict[str, str]:
    """Value of ``column`` -> content, of the counted domains that have one of ``values``."""
    query = (
        select(column, DomainRow.content_hash)
        .join(Revision, Revision.id == DomainRow.revision_id)
        .where(within, column.in_(values), DomainRow.content_hash.is_not(None))
        .distinct()
    )
    return {value: content for value, content in session.execute(query) if value and content}


def leaves_of(session: Session, revision: Revision) -> dict[str, Leaf]:
    """The revision's domains as the mathematics sees them."""
    keys = content_keys(session, revision.domains)
    return {row.name: Leaf(row.tokens, keys[row.name]) for row in revision.domains}


@dataclass(frozen=True)
class KnownChanges:
    """Changes, and how far they are known.

    Attributes:
        changes: as content has it, or as said where it does not tell yet.
        confirmed: `{affected new name: whether its content is what was said of it}`; None before it is counted.
        unconfirmed: `{new name: why what was said of it did not hold, or cannot be known}`.
    """

    changes: Changes
    confirmed: Mapping[str, bool | None]
    unconfirmed: Mapping[str, str] = field(default_factory=dict)


def known_changes(session: Session, revision: Revision) -> KnownChanges:
    """Of a revision against its parent; everything is added in a first one."""
    declared = Changes.from_dict(revision.changes)
    if not revision.has_corpus:  # what was found or said is all there will ever be
        return KnownChanges(declared, dict.fromkeys(declared.affected))
    new = leaves_of(session, revision)
    if revision.parent_id is None:
        return confirm(declared, {}, new)
    return confirm(declared, leaves_of(session, session.get_one(Revision, revision.parent_id)), new)


def confirm(declared: Changes, old: Leaves, new: Leaves) -> KnownChanges:
    """What was found or said, put right by the content of both revisions' domains."""
    return _Confirmation(declared, old, new).result()


def plain_changes(old: Leaves, new: Leaves) -> Changes:
    """What names and content alone say, for revisions between which there is one that was never counted."""
    same = {name: name for name in new if name in old}
    declared = Changes(
        kept=same, added=tuple(sorted(set(new) - set(old))), removed=tuple(sorted(set(old) - set(new)))
    )
    return confirm(declared, old, new).changes


@dataclass
class _Confirmation:
    declared: Changes
    old: Leaves
    new: Leaves
    unconfirmed: dict[str, str] = field(default_factory=dict)

    def result(self) -> KnownChanges:
        kept, revised = self._same_names()
        broken, scattered = self._mismatched()
        added = {
            *self.declared.added,
            *scattered,
            *(part for old in broken for part in self.declared.split[old]),
        }
        removed = {
            *self.declared.removed,
            *broken,
            *(old for new in scattered for old in self.declared.merged[new]),
        }
        changes = Changes(
            kept=kept,
            revised=revised,
            added=tuple(sorted(added)),
            removed=tuple(sorted(removed)),
            split={old: parts for old, parts in self.declared.split.items() if old not in broken},
            merged={new: olds for new, olds in self.declared.merged.items() if new not in scattered},
        )
        changes = found_by_content(changes, self.old, self.new)
        affected = changes.affected
        unconfirmed = {name: why for name, why in self.unconfirmed.items() if name in affected}
        confirmed = {
            name: False if name in unconfirmed else is_counted(self.new[name].content) or None
            for name in affected
        }
        return KnownChanges(changes, confirmed, unconfirmed)

    def _same_names(self) -> tuple[dict[str, str], dict[str, str]]:
        kept: dict[str, str] = {}
        revised: dict[str, str] = {}
        for name, before in {**self.declared.kept, **self.declared.revised}.items():
            same = _is_same(self.old[before], self.new[name])
            if same is None and is_counted(self.new[name].content) and self.old[before].content is None:
                self.unconfirmed[name] = (
                    f"{before!r} was counted before its content was noted, so nobody knows whether this is its text"
                )
                same = False
            if same is None:
                same = name in self.declared.kept
            (kept if same else revised)[name] = before
        return kept, revised

    def _mismatched(self) -> tuple[set[str], set[str]]:
        """Old names of the splits, and new names of the merges, that do not add up; says so of their new domains."""
        broken, scattered = set[str](), set[str]()
        for whole, parts in self.declared.split.items():
            if _adds_up(self.old[whole], [self.new[part] for part in parts]) is False:
                broken.add(whole)
                for part in parts:
                    self.unconfirmed[part] = (
                        f"said to be a part of {whole!r}, but the parts' documents do not add up to its own: the"
                        " domains are taken for new ones, and no run is carried through the split"
                    )
        for whole, members in self.declared.merged.items():
            if _adds_up(self.new[whole], [self.old[member] for member in members]) is False:
                scattered.add(whole)
                self.unconfirmed[whole] = (
                    f"said to be merged from {', '.join(map(repr, members))}, but their documents do not add up to"
                    " its own: it is taken for a new domain, and no run is carried through the merge"
                )
        return broken, scattered


def found_by_content(changes: Changes, old: Leaves, new: Leaves) -> Changes:
    """The changes with what only content could tell: renames, splits and merges among what came, went or was revised.

    Content that leaves something open adds nothing.
    """
    same_name = {name for name, before in changes.revised.items() if name == before}
    gone = {name: old[name] for name in {*changes.removed, *same_name}}
    come = {name: new[name] for name in {*changes.added, *same_name}}
    if not gone or not come or not all(is_counted(leaf.content) for leaf in (*gone.values(), *come.values())):
        return changes
    try:
        found = diff(gone, come)
    except AmbiguousChange as ambiguous:
        found = diff(gone, come, {question.domain: "separate" for question in ambiguous.questions})
    renamed = {name: before for name, before in changes.revised.items() if name != before}
    return Changes(
        kept={**changes.kept, **found.kept},
        revised={**renamed, **found.revised},
        added=found.added,
        removed=found.removed,
        split={**changes.split, **found.split},
        merged={**changes.merged, **found.merged},
    )


def _is_same(old: Leaf, new: Leaf) -> bool | None:
    if old.content is not None and old.content == new.content:
        return True
    return False if is_counted(old.content) and is_counted(new.content) else None


def _adds_up(whole: Leaf, parts: Iterable[Leaf]) -> bool | None:
    """None while something is uncounted; a whole or part whose content nobody will ever know does not add up."""
    contents = [whole.content, *(part.content for part in parts)]
    if None in contents:
        return False
    known = [content for content in contents if is_additive(content)]
    return None if len(known) < len(contents) else combined(known[1:]) == known[0]
