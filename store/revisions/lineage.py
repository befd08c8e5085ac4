"""A revision and its ancestors, as the mathematics of lineages reads them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from mixing.change.lineage import RevisionNode
from mixing.change.revision import Changes
from mixing.errors import InvalidLineage
from store.revisions.changes import is_counted, known_changes, leaves_of, plain_changes
from store.tables import Revision


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
