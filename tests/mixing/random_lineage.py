"""Lineages made of documents, so that what a mixture reads can be counted document by document."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mixing.change.lineage import RevisionNode
from mixing.change.revision import Changes, Leaf

Documents = frozenset[int]


@dataclass
class DocumentLineage:
    """Revisions of domains that are sets of documents; document `i` has `sizes[i]` tokens."""

    generator: np.random.Generator
    sizes: list[int] = field(default_factory=list)
    revisions: list[dict[str, Documents]] = field(default_factory=list)
    nodes: list[RevisionNode] = field(default_factory=list)
    names: int = 0

    @classmethod
    def drawn(cls, seed: int, updates: int = 4, *, hashes: bool = True) -> "DocumentLineage":
        """A first revision and updates of every kind, drawn at random; without `hashes` nobody knows the contents."""
        made = cls(np.random.default_rng(seed))
        first = {made.name(): made.documents(6) for _ in range(made.generator.integers(3, 6))}
        made.append(first, None, hashes)
        for _ in range(updates):
            made.update(hashes)
        return made

    def name(self) -> str:
        """A domain name not used before, of a source that is drawn."""
        self.names += 1
        return f"s{self.generator.integers(3)}:d{self.names}"

    def documents(self, count: int) -> Documents:
        """New documents."""
        self.sizes += self.generator.integers(1, 100, count).tolist()
        return frozenset(range(len(self.sizes) - count, len(self.sizes)))

    def append(self, domains: dict[str, Documents], changes: Changes | None, hashes: bool) -> None:
        """Another revision."""
        leaves = {
            name: Leaf(self.tokens(documents), str(sorted(documents)) if hashes else None)
            for name, documents in domains.items()
        }
        parent = self.nodes[-1].id if self.nodes else None
        self.revisions.append(domains)
        self.nodes.append(RevisionNode(str(len(self.nodes) + 1), leaves, parent, changes))

    def tokens(self, documents: Documents) -> float:
        """Of some documents together."""
        return float(sum(self.sizes[document] for document in documents))

    def update(self, hashes: bool) -> None:
        """One revision in which each domain has its own fate."""
        old = self.revisions[-1]
        kept: dict[str, str] = {}
        revised: dict[str, str] = {}
        split: dict[str, tuple[str, ...]] = {}
        merged: dict[str, tuple[str, ...]] = {}
        removed: list[str] = []
        new: dict[str, Documents] = {}
        waiting: list[str] = []
        for name, documents in old.items():
            fate = self.generator.choice(["keep", "keep", "rename", "revise", "split", "merge", "remove"])
            ordered = sorted(documents)
            if fate == "split" and len(ordered) > 1:
                cut = int(self.generator.integers(1, len(ordered)))
                parts = {self.name(): frozenset(ordered[:cut]), self.name(): frozenset(ordered[cut:])}
                split[name], new = tuple(parts), new | parts
            elif fate == "merge":
                waiting.append(name)
            elif fate == "remove" and len(new) > 1:
                removed.append(name)
            elif fate == "revise":
                revised[name], new[name] = name, frozenset(ordered[1:]) | self.documents(2)
            else:
                other = self.name() if fate == "rename" else name
                kept[other], new[other] = name, documents
        if len(waiting) > 1:
            merged[whole := self.name()] = tuple(waiting)
            new[whole] = frozenset().union(*(old[name] for name in waiting))
        else:
            for name in waiting:
                kept[name], new[name] = name, old[name]
        added = self.name()
        new[added] = self.documents(3)
        self.append(new, Changes(kept, revised, (added,), tuple(removed), split, merged), hashes)

    def mixture(self, revision: int) -> dict[str, float]:
        """A drawn mixture of a revision's domains."""
        names = list(self.revisions[revision])
        return dict(zip(names, self.generator.dirichlet(np.ones(len(names))).tolist(), strict=True))

    def read(self, domains: Mapping[str, Documents], mixture: Mapping[str, float]) -> np.ndarray:
        """(documents,) what share of the tokens trained comes from each document."""
        shares = np.zeros(len(self.sizes))
        for name, weight in mixture.items():
            for document in domains[name]:
                shares[document] += weight * self.sizes[document] / self.tokens(domains[name])
        return shares

    def content(self, name: str) -> Documents:
        """The documents of a content, by the name the library gave it."""
        if name in self.revisions[-1]:
            return self.revisions[-1][name]
        domain, _, revision = name.rstrip("@").rpartition("@")
        return self.revisions[int(revision) - 1][domain]
