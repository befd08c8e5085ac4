"""Revisions whose truth is known: domains are sets of documents, contents the sums of their SHA-256 digests."""

import hashlib
from collections.abc import Iterable

from hypothesis import strategies as st

from mixing.change.patch import Patch
from mixing.change.revision import Leaf, Leaves


def leaf(documents: Iterable[str]) -> Leaf:
    """A domain of documents, each 100 tokens long."""
    texts = list(documents)
    total = sum(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") for text in texts)
    return Leaf(100 * len(texts), format(total % 2**256, "064x"))


def documents(name: str, count: int) -> list[str]:
    return [f"document {at} of {name}" for at in range(count)]


OPERATIONS = ("keep", "remove", "revise", "rename", "split", "merge")


@st.composite
def patched_revisions(draw: st.DrawFn) -> tuple[Leaves, Patch]:
    """A revision and a patch that does something to some of its sources, each recognisable from contents."""
    done = draw(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=12))
    added = draw(st.integers(0, 3))
    old: dict[str, Leaf] = {"anchor": leaf(documents("anchor", 2))}
    patch = Patch(add={f"added{at}": leaf(documents(f"added{at}", at + 1)) for at in range(added)})
    revise, rename, split, merge, remove = {}, {}, {}, {}, []
    for at, operation in enumerate(done):
        name = f"source{at}"
        texts = documents(name, draw(st.integers(4, 9)))
        cut = draw(st.integers(1, len(texts) - 1))
        if operation == "merge":
            old |= {f"{name}:a": leaf(texts[:cut]), f"{name}:b": leaf(texts[cut:])}
            merge[name] = (f"{name}:a", f"{name}:b")
            continue
        old[name] = leaf(texts)
        if operation == "remove":
            remove.append(name)
        elif operation == "revise":
            revise[name] = leaf(texts[:cut])
        elif operation == "rename":
            rename[name] = f"renamed{at}"
        elif operation == "split":
            split[name] = {f"{name}:a": leaf(texts[:cut]), f"{name}:b": leaf(texts[cut:])}
    return old, Patch(patch.add, tuple(remove), revise, rename, split, merge)
