from typing import Any

import pytest
from hypothesis import given

from mixing.change.patch import Patch, apply_patch
from mixing.change.revision import Changes, Leaf, Leaves
from mixing.errors import (
    DuplicateDomain,
    InvalidDomainName,
    InvalidSetting,
    InvalidTokens,
    MissingDomain,
    MixingError,
    SplitMismatch,
    UnknownDomain,
)
from tests.mixing.revisions import documents, leaf, patched_revisions

OLD = {"a": Leaf(10), "b": Leaf(20), "c": Leaf(30), "d": Leaf(40), "e": Leaf(50), "f": Leaf(60)}


def test_every_operation_does_what_it_says_and_the_rest_stays() -> None:
    patch = Patch(
        add={"new": Leaf(1)},
        remove=("a",),
        revise={"b": Leaf(21)},
        rename={"c": "renamed"},
        split={"d": {"d:x": Leaf(15), "d:y": Leaf(25)}},
        merge={"ef": ("e", "f")},
    )
    new, changes = apply_patch({**OLD, "stays": Leaf(7)}, patch)
    assert {name: held.tokens for name, held in new.items()} == {
        "b": 21, "d:x": 15, "d:y": 25, "ef": 110, "new": 1, "renamed": 30, "stays": 7
    }  # fmt: skip
    assert changes == Changes(
        kept={"renamed": "c", "stays": "stays"},
        revised={"b": "b"},
        added=("new",),
        removed=("a",),
        split={"d": ("d:x", "d:y")},
        merged={"ef": ("e", "f")},
    )
    assert Changes.from_dict(changes.to_dict()) == changes


@given(patched_revisions())
def test_splits_and_merges_conserve_tokens_and_text(revision: tuple[Leaves, Patch]) -> None:
    old, patch = revision
    new, _ = apply_patch(old, Patch(split=patch.split, merge=patch.merge))
    assert sum(held.tokens or 0 for held in new.values()) == sum(held.tokens or 0 for held in old.values())
    for name, sources in patch.merge.items():
        counted = sum(old[source].tokens or 0 for source in sources)
        assert new[name] == leaf(documents(name.split(":")[0], int(counted // 100)))


def test_two_domains_can_swap_names_and_a_part_may_be_called_like_its_parent() -> None:
    old = {"a": Leaf(1), "b": Leaf(2), "c": Leaf(10)}
    new, changes = apply_patch(
        old, Patch(rename={"a": "b", "b": "a"}, split={"c": {"c": Leaf(4), "x": Leaf(6)}})
    )
    assert new == {"a": Leaf(2), "b": Leaf(1), "c": Leaf(4), "x": Leaf(6)}
    assert changes == Changes(kept={"a": "b", "b": "a"}, split={"c": ("c", "x")})


def test_bringing_the_text_a_domain_has_already_is_no_revision() -> None:
    new, changes = apply_patch({"a": Leaf(1, "x")}, Patch(revise={"a": Leaf(2, "x")}))
    assert (new, changes) == ({"a": Leaf(2, "x")}, Changes(kept={"a": "a"}))


def test_merging_what_nobody_counted_leaves_it_uncounted() -> None:
    new, _ = apply_patch({"a": Leaf(1, "x"), "b": Leaf(None, "y")}, Patch(merge={"c": ("a", "b")}))
    assert new == {"c": Leaf(None, None)}


@pytest.mark.parametrize(
    ("patch", "error", "field", "says"),
    [
        ({"remove": ("nowhere",)}, UnknownDomain, "remove", "nowhere"),
        ({"revise": {"nowhere": Leaf(1)}}, UnknownDomain, "revise", "nowhere"),
        ({"rename": {"nowhere": "x"}}, UnknownDomain, "rename", "nowhere"),
        ({"split": {"nowhere": {"x": Leaf(1), "y": Leaf(1)}}}, UnknownDomain, "split", "nowhere"),
        ({"merge": {"x": ("a", "nowhere")}}, UnknownDomain, "merge", "nowhere"),
        ({"add": {"a": Leaf(1)}}, DuplicateDomain, "add", "one already; write revise"),
        ({"add": {"a": Leaf(1)}, "remove": ("a",)}, DuplicateDomain, "add", "removed as well; write revise"),
        ({"rename": {"a": "b"}}, DuplicateDomain, "rename", "'b'"),
        ({"rename": {"a": "x", "b": "x"}}, DuplicateDomain, "rename", "two operations bring"),
        (
            {"remove": ("a",), "revise": {"a": Leaf(1)}},
            DuplicateDomain,
            "revise",
            "'a' stands in remove and in revise",
        ),
        ({"remove": ("a", "a")}, DuplicateDomain, "remove", "'a'"),
        ({"merge": {"x": ("a", "a")}}, DuplicateDomain, "merge", "'a'"),
        ({"split": {"a": {"a:x": Leaf(10)}}}, InvalidSetting, "split", "two at least"),
        ({"merge": {"x": ("a",)}}, InvalidSetting, "merge", "two at least"),
        (
            {"split": {"a": {"x": Leaf(3), "y": Leaf(3)}}},
            SplitMismatch,
            "split",
            "6 tokens together against 10",
        ),
        ({"add": {"a:x": Leaf(1)}}, InvalidDomainName, "add", "'a' has 'a:x' under it"),
        ({"rename": {"a": "b:x"}}, InvalidDomainName, "rename", "'b' has 'b:x' under it"),
        ({"add": {"not a name": Leaf(1)}}, InvalidDomainName, "add", "not a name"),
        ({"revise": {"a": Leaf(0)}}, InvalidTokens, "revise", "'a' has 0 tokens"),
        ({"remove": tuple(OLD)}, MissingDomain, "remove", "leave one"),
    ],
)
def test_what_cannot_be_done_names_the_operation_and_the_domain(
    patch: dict[str, Any], error: type[MixingError], field: str, says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        apply_patch(OLD, Patch(**patch))
    assert caught.value.field == field
