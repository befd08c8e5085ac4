"""Five updates of a pool like those of Olmix's case study (arXiv 2602.12237): from 24 domains to 64.

Add the languages of code, add sources, revise one, remove one, split the revised one into its topics. What changed is
found by `diff` from names and content keys, as the service finds it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np

from mixing.change.diff import diff
from mixing.change.lineage import EvidenceSpace, RevisionNode, space_of
from mixing.change.revision import Leaf, Leaves, combined
from mixing.domains import Domains

SPLIT = "pdf"
"""The source that is revised, and split into its topics in the end."""
REMOVED = "source1"
SIZES = {"web": 60e9, "code": 15e9, "source": 60e9, SPLIT: 15e9}
"""Median tokens of a domain, by its source; a part of the split source has that of `pdf`."""
SPREAD = 1.2
"""Standard deviation of the logarithm of the tokens within a source."""
FILTERED = 1.2
"""Tokens of the source before it was filtered again, in units of what is left."""
TARGET_SHARE = 0.5
"""Of the target in the tokens of the first revision."""


@dataclass(frozen=True)
class Shape:
    """How many domains there are of each kind; `sources` counts the one that is split, `parts` its topics."""

    web: int = 24
    code: int = 15
    sources: int = 6
    parts: int = 21


@dataclass(frozen=True)
class Updates:
    """The pool from its first revision to its last.

    Attributes:
        nodes: the revisions by id, in order.
        target_tokens: R.
        repetition_cap: k.
    """

    nodes: Mapping[str, RevisionNode]
    target_tokens: float
    repetition_cap: float = 4.0

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the revisions, in order."""
        return tuple(self.nodes)

    def space(self, revision: str) -> EvidenceSpace:
        """The contents of a revision and its ancestors."""
        return space_of(self.nodes.values(), revision)

    @cached_property
    def whole(self) -> EvidenceSpace:
        """Every text that some revision has, those that only a later split tells apart among them."""
        return self.space(self.ids[-1])

    def domains(self, revision: str) -> Domains:
        """Of one revision."""
        return Domains.of({name: leaf.tokens for name, leaf in self.nodes[revision].leaves.items()})


def updates(generator: np.random.Generator, shape: Shape | None = None) -> Updates:
    """Six revisions; token counts are log-normal within a source."""
    shape = shape or Shape()

    def leaves(names: Iterable[str], size: str) -> dict[str, Leaf]:
        listed = list(names)
        drawn = np.ceil(SIZES[size] * generator.lognormal(0.0, SPREAD, len(listed)))
        return {name: Leaf(int(count), _key(name)) for name, count in zip(listed, drawn, strict=True)}

    web = leaves((f"web:topic{at:02}" for at in range(shape.web)), "web")
    code = leaves((f"code:language{at:02}" for at in range(shape.code)), "code")
    sources = leaves((f"source{at}" for at in range(1, shape.sources)), "source")
    parts = leaves((f"{SPLIT}:topic{at:02}" for at in range(shape.parts)), SPLIT)
    whole = Leaf(
        sum(int(leaf.tokens or 0) for leaf in parts.values()),
        combined(leaf.content or "" for leaf in parts.values()),
    )
    before = Leaf(round(FILTERED * (whole.tokens or 0)), _key(f"{SPLIT} before it was filtered"))
    left = {name: leaf for name, leaf in sources.items() if name != REMOVED}
    pools: tuple[Leaves, ...] = (
        web,
        {**web, **code},
        {**web, **code, **sources, SPLIT: before},
        {**web, **code, **sources, SPLIT: whole},
        {**web, **code, **left, SPLIT: whole},
        {**web, **code, **left, **parts},
    )
    nodes = [RevisionNode("0", pools[0])]
    for number, pool in enumerate(pools[1:], start=1):
        parent = nodes[-1]
        nodes.append(RevisionNode(str(number), pool, parent.id, diff(parent.leaves, pool)))
    target = TARGET_SHARE * _tokens(web)
    return Updates({node.id: node for node in nodes}, target)


def _tokens(leaves: Mapping[str, Leaf]) -> float:
    return sum(leaf.tokens or 0 for leaf in leaves.values())


def _key(text: str) -> str:
    return sha256(text.encode()).hexdigest()
