"""The revisions an optimization can learn from, and the one simplex all their runs are points of.

Every text that some revision of the lineage had is a content; a domain that was split, or merged from others, is
a mixture of the contents it consists of, at their natural ratios. So each revision has a column-stochastic map from
its domains into the contents (`EvidenceSpace.maps`), a run of any revision is a point there, exactly, and a law
fitted there is read through the newest revision's own map.

Two domains hold the same content where one was kept from the other or where their content keys are equal: a domain
taken out and put back, or a split undone, finds its old runs again. A domain whose text was revised is another
content. Where one text was cut in two ways, once by a merge and once by a split, the newest counts, and runs in which
the older pieces were weighed apart stay points of these.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from mixing.change.revision import Changes, Leaves
from mixing.domains import SUM_TOLERANCE, Domains, Mixture
from mixing.errors import InvalidLineage, InvalidTokens, UnknownRevision
from mixing.simplex_map import SimplexMap


@dataclass(frozen=True)
class RevisionNode:
    """One revision of a lineage.

    Attributes:
        id: tells it from the others.
        leaves: its domains; every one counted.
        parent: id of the revision it changed, None for the first.
        changes: against the parent; None for the first.

    >>> from mixing.change.revision import Leaf
    >>> RevisionNode("1", {"web": Leaf(6e9, "w")}).id
    '1'
    """

    id: str
    leaves: Leaves
    parent: str | None = None
    changes: Changes | None = None


@dataclass(frozen=True)
class EvidenceSpace:
    """The simplex of contents and the way into it from every revision.

    Attributes:
        contents: by name, with their tokens. A content is called like the domain that has it in the newest revision;
            one that the newest revision has not, `name@revision` after the last that had it.
        maps: `{revision id: map}`, from its domains (columns) to the contents (rows), column-stochastic.
        revision: id of the newest.
    """

    contents: Domains
    maps: Mapping[str, SimplexMap]
    revision: str

    @property
    def newest(self) -> SimplexMap:
        """From the newest revision's domains into the contents."""
        return self.maps[self.revision]

    @property
    def is_plain(self) -> bool:
        """Whether the contents are the newest revision's domains, so that nothing is carried anywhere."""
        return self.newest.leaves == self.newest.free

    def carry(self, revision: str, mixture: Mapping[str, float]) -> dict[str, float]:
        """A mixture of one of the revisions as weights over the contents.

        Raises:
            UnknownRevision: the revision is no ancestor of the newest.
            UnknownDomain, MissingDomain: the mixture is not over that revision's domains.
        """
        (weights,) = self.carry_all(revision, [mixture])
        return dict(zip(self.contents.names, weights.tolist(), strict=True))

    def carry_all(self, revision: str, mixtures: Sequence[Mapping[str, float]]) -> np.ndarray:
        """(n, c) weights over the contents of n mixtures of one of the revisions.

        Raises:
            UnknownRevision, UnknownDomain, MissingDomain: as `carry`.
        """
        if revision not in self.maps:
            raise UnknownRevision(
                f"revision {revision} is not in the lineage of revision {self.revision}", names=[revision]
            )
        way = self.maps[revision]
        weights = np.array([_aligned(mixture, way.free) for mixture in mixtures]).reshape(-1, len(way.free))
        return (csr_array(way.matrix) @ weights.T).T  # hardly any domain has more than one content

    def onto_newest(self, contents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The newest revision's mixtures nearest to (n, c) weights over the contents, and how far each is off.

        A domain gets what its contents weigh; contents it has none of are left out and the rest is divided by its
        sum.

        Returns:
            (n, m) mixtures, and the (n,) L1 distances between them, carried back, and what they stand for: 0 for a
            run the newest revision could have trained itself.
        """
        # A content that two domains hold is divided between them.
        holders = (self.newest.matrix > 0).astype(float)
        shares = holders / np.maximum(holders.sum(axis=1, keepdims=True), 1)
        mixtures = contents @ shares
        total = mixtures.sum(axis=1, keepdims=True)
        even = np.full(mixtures.shape[1], 1 / mixtures.shape[1])
        mixtures = np.where(total > 0, mixtures / np.where(total > 0, total, 1), even)
        return mixtures, np.abs(self.newest.expand(mixtures) - contents).sum(axis=1)


def _aligned(mixture: Mapping[str, float], names: tuple[str, ...]) -> np.ndarray:
    """(m,) weights by name; what is wrong with a mixture is found the slow way, for there are many sound ones."""
    if len(mixture) == len(names) and all(map(mixture.__contains__, names)):
        weights = np.fromiter(map(mixture.__getitem__, names), float, len(names))
        if (weights >= 0).all() and abs(weights.sum() - 1) <= SUM_TOLERANCE:
            return weights
    return Mixture.of(mixture, over=names).align(names)


def space_of(nodes: Iterable[RevisionNode], revision: str) -> EvidenceSpace:
    """The contents of a revision and of all its ancestors, with every one's map into them.

    Raises:
        UnknownRevision: there is none of that id.
        InvalidLineage: two of one id, a parent that is not there or has no changes told, or a cycle of parents.
        InvalidTokens: a domain without a count.

    >>> from mixing.change.diff import diff
    >>> from mixing.change.revision import Leaf
    >>> before, after = {"web": Leaf(6e9, "w")}, {"web": Leaf(6e9, "w"), "code": Leaf(2e9, "c")}
    >>> nodes = [RevisionNode("1", before), RevisionNode("2", after, "1", diff(before, after))]
    >>> space = space_of(nodes, "2")
    >>> space.contents.names, space.carry_all("1", [{"web": 1.0}])  # the old run, over the contents
    (('code', 'web'), array([[0., 1.]]))
    """
    by_id: dict[str, RevisionNode] = {}
    for node in nodes:
        if node.id in by_id:
            raise InvalidLineage(f"revision {node.id} is given twice", names=[node.id])
        by_id[node.id] = node
    for node in by_id.values():
        _check(node, by_id)
    return _Contents.of(_chain(by_id, revision)).space()


def _chain(by_id: Mapping[str, RevisionNode], revision: str) -> tuple[RevisionNode, ...]:
    """From the first revision down to this one."""
    if revision not in by_id:
        raise UnknownRevision(f"there is no revision {revision}", names=[revision])
    chain: dict[str, RevisionNode] = {}
    at: str | None = revision
    while at is not None:
        if at in chain:
            raise InvalidLineage(
                f"revision {at} is its own ancestor: {' <- '.join([*chain, at])}",
                field="parent",
                names=tuple(chain),
            )
        chain[at] = by_id[at]
        at = chain[at].parent
    return tuple(reversed(chain.values()))


def _check(node: RevisionNode, by_id: Mapping[str, RevisionNode]) -> None:
    if node.parent is not None and node.parent not in by_id:
        raise InvalidLineage(
            f"the parent {node.parent} of revision {node.id} is not there",
            field="parent",
            names=[node.parent],
        )
    if (node.parent is None) != (node.changes is None):
        raise InvalidLineage(
            f"revision {node.id} needs both a parent and what changed against it, or neither",
            field="changes",
            names=[node.id],
        )
    if uncounted := sorted(name for name, leaf in node.leaves.items() if leaf.tokens is None):
        raise InvalidTokens(
            f"not counted yet in revision {node.id}: {', '.join(uncounted)}", field="tokens", names=uncounted
        )


_Key = tuple[str, str]
"""A content, named by the first (revision, domain) that had it."""


@dataclass
class _Contents:
    """Which content every domain of a chain has, and what the divided ones consist of."""

    chain: Sequence[RevisionNode]
    keys: dict[_Key, _Key] = field(default_factory=dict)
    parts: dict[_Key, dict[_Key, float]] = field(default_factory=dict)
    tokens: dict[_Key, float] = field(default_factory=dict)

    @classmethod
    def of(cls, chain: Sequence[RevisionNode]) -> "_Contents":
        contents = cls(chain)
        known: dict[str, _Key] = {}
        for node in chain:
            for name, leaf in sorted(node.leaves.items()):
                key = contents._key(node, name, known)
                contents.keys[node.id, name] = key
                contents.tokens[key] = float(leaf.tokens or 0)
                if leaf.content is not None:
                    known.setdefault(leaf.content, key)
            contents._divide(node)
        return contents

    def _key(self, node: RevisionNode, name: str, known: Mapping[str, _Key]) -> _Key:
        kept = node.changes.kept if node.changes else {}
        if name in kept and node.parent is not None:
            return self.keys[node.parent, kept[name]]
        content = node.leaves[name].content
        return known.get(content, (node.id, name)) if content is not None else (node.id, name)

    def _divide(self, node: RevisionNode) -> None:
        """Note what the domains this revision split or merged consist of."""
        if node.changes is None or node.parent is None:
            return
        for old, names in node.changes.split.items():
            self._consists(self.keys[node.parent, old], [self.keys[node.id, name] for name in names])
        for name, olds in node.changes.merged.items():
            self._consists(self.keys[node.id, name], [self.keys[node.parent, old] for old in olds])

    def _consists(self, whole: _Key, parts: Sequence[_Key]) -> None:
        if any(whole in self._leaves(part) for part in parts):
            return  # the pieces are known to consist of the whole: a merge that undoes a split
        total = sum(self.tokens[part] for part in parts)
        self.parts[whole] = {part: self.tokens[part] / total for part in parts}

    def _leaves(self, key: _Key) -> dict[_Key, float]:
        """The undivided contents a content consists of, and their shares."""
        if key not in self.parts:
            return {key: 1.0}
        shares: dict[_Key, float] = defaultdict(float)
        for part, share in self.parts[key].items():
            for leaf, within in self._leaves(part).items():
                shares[leaf] += share * within
        return shares

    def space(self) -> EvidenceSpace:
        columns = {at: self._leaves(key) for at, key in self.keys.items()}
        named = self._names(sorted({key for column in columns.values() for key in column}))
        order = sorted(named, key=lambda key: named[key])
        rows = {key: row for row, key in enumerate(order)}
        names = tuple(named[key] for key in order)
        maps = {}
        for node in self.chain:
            domains = tuple(sorted(node.leaves))
            matrix = np.zeros((len(rows), len(domains)))
            for column, name in enumerate(domains):
                for key, share in columns[node.id, name].items():
                    matrix[rows[key], column] = share
            maps[node.id] = SimplexMap(names, domains, matrix / matrix.sum(axis=0))
        tokens = np.array([self.tokens[key] for key in order])
        tokens.setflags(write=False)
        return EvidenceSpace(Domains(names, tokens), maps, self.chain[-1].id)

    def _names(self, keys: Sequence[_Key]) -> dict[_Key, str]:
        """A name for each content: the newest revision's domain that is it, else that of the last that was."""
        last: dict[_Key, _Key] = {}
        for revision, name in reversed(self.keys):
            key = self.keys[revision, name]
            # Within a revision the first in order; over revisions the last.
            if key not in last or last[key][0] == revision:
                last[key] = (revision, name)
        newest = self.chain[-1].id
        taken = {last[key][1] for key in keys if last[key][0] == newest}
        named: dict[_Key, str] = {}
        for key in keys:
            revision, name = last[key]
            if revision != newest:
                name = f"{name}@{revision}"
                while name in taken:
                    name += "@"
                taken.add(name)
            named[key] = name
        return named
