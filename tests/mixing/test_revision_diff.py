from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.change.diff import diff
from mixing.change.patch import Patch, apply_patch
from mixing.change.revision import Changes, Leaf, Leaves
from mixing.errors import (
    AmbiguousChange,
    InvalidAnswer,
    InvalidDomainName,
    InvalidTokens,
    MergeMismatch,
    SplitMismatch,
    UnknownDomain,
)
from tests.mixing.revisions import documents, leaf, patched_revisions

WIKI = documents("wiki", 6)


def asked(old: Leaves, new: Leaves, said: dict[str, str] | None = None) -> dict[str, tuple[str, ...]]:
    """`{domain: words}` of the questions."""
    with pytest.raises(AmbiguousChange) as caught:
        diff(old, new, said)
    assert set(caught.value.names) == {question.domain for question in caught.value.questions}
    return {asked.domain: tuple(word for word, _ in asked.candidates) for asked in caught.value.questions}


def test_the_same_name_with_the_same_text_is_kept_and_with_another_text_revised() -> None:
    old = {"a": Leaf(1, "x"), "b": Leaf(1, "y")}
    assert diff(old, {"a": Leaf(1, "x"), "b": Leaf(1, "z")}) == Changes(kept={"a": "a"}, revised={"b": "b"})


def test_where_nobody_keeps_contents_names_and_counts_decide() -> None:
    old, new = {"a": Leaf(5), "b": Leaf(5), "c": Leaf()}, {"a": Leaf(5), "b": Leaf(6), "c": Leaf()}
    assert diff(old, new) == Changes(kept={"a": "a", "c": "c"}, revised={"b": "b"})


@pytest.mark.parametrize(
    ("before", "after"),
    [(Leaf(5, "x"), Leaf(5)), (Leaf(5), Leaf(5, "x")), (Leaf(5), Leaf(None)), (Leaf(), Leaf(5))],
)
def test_a_text_that_only_one_revision_tells_is_asked_about(before: Leaf, after: Leaf) -> None:
    assert asked({"a": before}, {"a": after}) == {"a": ("kept", "revised")}
    assert diff({"a": before}, {"a": after}, {"a": "kept"}) == Changes(kept={"a": "a"})
    assert diff({"a": before}, {"a": after}, {"a": "revised"}) == Changes(revised={"a": "a"})


def test_a_text_found_under_another_name_is_a_rename_for_certain() -> None:
    changes = diff({"a": Leaf(1, "x"), "b": Leaf(2, "y")}, {"a": Leaf(1, "x"), "c": Leaf(2, "y")})
    assert changes == Changes(kept={"a": "a", "c": "b"})
    assert changes.renamed == {"c": "b"}


def test_content_wins_over_name_when_two_domains_swap() -> None:
    old, new = {"a": Leaf(1, "x"), "b": Leaf(1, "y")}, {"a": Leaf(1, "y"), "b": Leaf(1, "x")}
    assert diff(old, new) == Changes(kept={"a": "b", "b": "a"})


def test_of_several_domains_with_one_text_somebody_has_to_say_which_is_which() -> None:
    old = {"a": Leaf(1, "x"), "b": Leaf(1, "x")}
    new = {"c": Leaf(1, "x"), "d": Leaf(1, "x")}
    assert asked(old, new) == {"c": ("a", "b", "separate"), "d": ("a", "b", "separate")}
    assert diff(old, new, {"c": "b", "d": "a"}) == Changes(kept={"c": "b", "d": "a"})
    assert diff(old, new, {"c": "b", "d": "separate"}) == Changes(
        kept={"c": "b"}, added=("d",), removed=("a",)
    )
    with pytest.raises(InvalidAnswer, match="'c' and 'd' are both said to be 'a'"):
        diff(old, new, {"c": "a", "d": "a"})


@pytest.mark.parametrize(
    "names",
    [("wiki:a", "wiki:b", "wiki:c"), ("other:a", "other:b", "other:c"), ("p", "q", "r"), ("wiki", "q", "r")],
)
def test_parts_whose_contents_sum_to_the_parents_are_a_split_however_they_are_called(
    names: tuple[str, ...],
) -> None:
    old = {"wiki": leaf(WIKI), "web": leaf(documents("web", 3))}
    parts = {name: leaf(WIKI[2 * at : 2 * at + 2]) for at, name in enumerate(names)}
    assert diff(old, {"web": old["web"], **parts}) == Changes(
        kept={"web": "web"}, split={"wiki": tuple(sorted(names))}
    )
    assert diff({"web": old["web"], **parts}, old) == Changes(
        kept={"web": "web"}, merged={"wiki": tuple(sorted(names))}
    )


def test_a_split_is_found_beside_an_unrelated_addition_of_the_same_source() -> None:
    old = {"s:wiki": leaf(WIKI)}
    new = {
        "s:wiki:a": leaf(WIKI[:2]),
        "s:wiki:b": leaf(WIKI[2:]),
        "s:new": leaf(documents("new", 2)),
        "z": Leaf(9),
    }
    assert diff(old, new) == Changes(added=("s:new", "z"), split={"s:wiki": ("s:wiki:a", "s:wiki:b")})


def test_twins_are_split_into_the_parts_under_their_own_names() -> None:
    old = {"p": leaf(WIKI), "q": leaf(WIKI)}
    new = {f"{name}:{part}": leaf(WIKI[at::2]) for name in "pq" for at, part in enumerate("ab")}
    assert diff(old, new) == Changes(split={"p": ("p:a", "p:b"), "q": ("q:a", "q:b")})


def test_contents_that_sum_outrank_counts() -> None:
    parts = {"wiki:a": Leaf(10_000, leaf(WIKI[:2]).content), "wiki:b": leaf(WIKI[2:])}
    assert diff({"wiki": leaf(WIKI)}, parts).split == {"wiki": ("wiki:a", "wiki:b")}


def test_domains_under_a_name_that_is_gone_are_a_split_only_once_said() -> None:
    old, new = {"p": Leaf(1000), "q": Leaf(7)}, {"p:a": Leaf(400), "p:b": Leaf(609), "q": Leaf(7)}
    assert asked(old, new) == {"p": ("split", "separate")}
    assert diff(old, new, {"p": "split"}) == Changes(kept={"q": "q"}, split={"p": ("p:a", "p:b")})
    assert diff(old, new, {"p": "separate"}) == Changes(kept={"q": "q"}, added=("p:a", "p:b"), removed=("p",))


def test_a_name_whose_domains_are_gone_is_a_merge_only_once_said() -> None:
    old, new = {"p:a": Leaf(400), "p:b": Leaf(609), "q": Leaf(7)}, {"p": Leaf(1000), "q": Leaf(7)}
    assert asked(old, new) == {"p": ("merge", "separate")}
    assert diff(old, new, {"p": "merge"}) == Changes(kept={"q": "q"}, merged={"p": ("p:a", "p:b")})
    assert diff(old, new, {"p": "separate"}) == Changes(kept={"q": "q"}, added=("p",), removed=("p:a", "p:b"))


def test_a_said_split_whose_parts_do_not_add_up_names_both_counts_and_the_ways_out() -> None:
    old, new = {"p": Leaf(1000)}, {"p:a": Leaf(400), "p:b": Leaf(550)}
    with pytest.raises(
        SplitMismatch, match=r"'p'.*950.*1,000.*-5.00%.*'separate'.*revise the parent"
    ) as caught:
        diff(old, new, {"p": "split"})
    assert (caught.value.parts, caught.value.whole) == (950, 1000)
    assert caught.value.names == ("p", "p:a", "p:b")
    with pytest.raises(MergeMismatch, match=r"'p'.*950.*1,000"):
        diff(new, old, {"p": "merge"})


def test_a_said_split_of_other_text_is_refused_even_if_the_counts_agree() -> None:
    old = {"p": leaf(WIKI)}
    new = {"p:a": leaf(documents("other", 3)), "p:b": leaf(documents("another", 3))}
    with pytest.raises(SplitMismatch, match="their texts differ"):
        diff(old, new, {"p": "split"})
    assert diff(old, new, {"p": "separate"}).removed == ("p",)


def test_a_split_with_an_uncounted_part_is_taken_on_somebodys_word() -> None:
    assert diff({"p": Leaf(9)}, {"p:a": Leaf(4), "p:b": Leaf()}, {"p": "split"}).split == {
        "p": ("p:a", "p:b")
    }


def test_an_equal_count_without_contents_may_be_a_rename_and_somebody_says_so() -> None:
    old, new = {"a": Leaf(5), "k": Leaf(9)}, {"b": Leaf(5), "c": Leaf(6), "k": Leaf(9)}
    assert asked(old, new) == {"b": ("rename", "revised", "separate")}
    assert diff(old, new, {"b": "rename"}) == Changes(kept={"b": "a", "k": "k"}, added=("c",))
    assert diff(old, new, {"b": "revised"}) == Changes(kept={"k": "k"}, revised={"b": "a"}, added=("c",))
    assert diff(old, new, {"b": "separate"}) == Changes(kept={"k": "k"}, added=("b", "c"), removed=("a",))


def test_with_several_possible_origins_the_word_is_the_others_name() -> None:
    old, new = {"a": Leaf(5), "b": Leaf(5, "x")}, {"c": Leaf(5), "d": Leaf(8)}
    assert asked(old, new) == {"c": ("a", "b", "separate")}
    assert diff(old, new, {"c": "b"}) == Changes(kept={"c": "b"}, added=("d",), removed=("a",))


def test_the_only_one_gone_and_the_only_one_new_are_asked_about_where_nothing_is_known() -> None:
    assert asked({"a": Leaf()}, {"b": Leaf()}) == {"b": ("rename", "revised", "separate")}
    assert asked({"a": Leaf(5)}, {"b": Leaf(6)}) == {"b": ("rename", "separate")}
    assert diff({"a": Leaf(5)}, {"b": Leaf(6)}, {"b": "rename"}) == Changes(revised={"b": "a"})
    assert asked({"a": Leaf(5)}, {"a:b": Leaf(6), "c": Leaf(1)}) == {"a:b": ("rename", "separate")}


def test_different_contents_suggest_nothing() -> None:
    changes = Changes(added=("b",), removed=("a",))
    assert diff({"a": Leaf(5, "x")}, {"b": Leaf(5, "y")}) == changes
    assert diff({"a": Leaf(5, "x")}, {"a:b": Leaf(5, "y")}) == Changes(added=("a:b",), removed=("a",))


def test_all_that_is_open_is_asked_at_once_and_answering_it_leaves_nothing_open() -> None:
    old = {"p": Leaf(10), "x:a": Leaf(1), "x:b": Leaf(2), "r": Leaf(77), "u": Leaf(3, "k"), "t": Leaf(8, "z")}
    new = {"p:a": Leaf(4), "p:b": Leaf(6), "x": Leaf(3), "s": Leaf(77), "u": Leaf(3), "t1": Leaf(8, "z")}
    new["t2"] = Leaf(8, "z")
    words = asked(old, new)
    assert set(words) == {"p", "x", "s", "u", "t1", "t2"}
    said = {"p": "split", "x": "merge", "s": "rename", "u": "kept", "t1": "rename", "t2": "separate"}
    assert diff(old, new, said) == Changes(
        kept={"s": "r", "t1": "t", "u": "u"},
        added=("t2",),
        split={"p": ("p:a", "p:b")},
        merged={"x": ("x:a", "x:b")},
    )
    every_separate = {name: ("revised" if name == "u" else "separate") for name in words}
    assert diff(old, new, every_separate).revised == {"u": "u"}


def test_answers_nobody_asked_for_are_named() -> None:
    kept = {"a": Leaf(5, "x")}
    with pytest.raises(UnknownDomain, match="nowhere"):
        diff(kept, kept, {"nowhere": "kept"})
    with pytest.raises(InvalidAnswer, match="nothing is open about a"):
        diff(kept, kept, {"a": "kept"})
    with pytest.raises(InvalidAnswer, match=r"'renamed' is no answer.*rename, revised, separate") as caught:
        diff({"a": Leaf(5)}, {"b": Leaf(5)}, {"b": "renamed"})
    assert (caught.value.field, caught.value.names) == ("said", ("b",))


def test_what_is_no_tree_or_no_count_is_refused() -> None:
    with pytest.raises(InvalidDomainName):
        diff({}, {"a": Leaf(1), "a:b": Leaf(1)})
    with pytest.raises(InvalidTokens, match="'a'"):
        diff({"a": Leaf(0)}, {"a": Leaf(1)})


def test_the_first_revision_is_all_new() -> None:
    assert diff({}, {"b": Leaf(5), "a": Leaf(5)}) == Changes(added=("a", "b"))


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_renaming_and_shuffling_domains_changes_nothing(domains: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    old = {f"d{at}": leaf(documents(f"d{at}", at % 4 + 1)) for at in range(domains)}
    called = dict(
        zip(old, generator.permutation([*old, *(f"other{at}" for at in range(domains))]), strict=False)
    )
    new = {str(called[name]): old[name] for name in generator.permutation(list(old))}
    assert diff(old, new) == Changes(kept={str(after): before for before, after in called.items()})


@given(patched_revisions(), st.integers(0, 2**32 - 1))
def test_the_changes_of_a_patch_are_found_again_in_any_order_of_the_domains(
    revision: tuple[Leaves, Patch], seed: int
) -> None:
    old, patch = revision
    new, changes = apply_patch(old, patch)
    generator = np.random.default_rng(seed)
    shuffled = [{name: leaves[name] for name in generator.permutation(list(leaves))} for leaves in (old, new)]
    assert diff(*shuffled) == changes


LEAVES = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "p:a", "p:b", "p:c", "q:a", "q:b"]),
    st.builds(
        Leaf, st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, "x", "y", f"{1:064x}", f"{2:064x}"])
    ),
    min_size=1,
)


@given(LEAVES, LEAVES, st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_whatever_is_answered_every_domain_has_one_fate_and_one_origin(
    old: Leaves, new: Leaves, whole_old: bool, whole_new: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    if whole_old:
        old = {name: leaf for name, leaf in old.items() if name[:2] != "p:"} | {"p": Leaf(3)}
    if whole_new:
        new = {name: leaf for name, leaf in new.items() if name[:2] != "q:"} | {"q": Leaf(3)}
    said: dict[str, str] = {}
    for _ in range(40):
        try:
            changes = diff(old, new, said)
            break
        except AmbiguousChange as ambiguous:
            for question in ambiguous.questions:
                words = [word for word, _ in question.candidates]
                said[question.domain] = words[generator.integers(len(words))]
        except SplitMismatch as mismatch:
            said[mismatch.names[0]] = "separate"
        except InvalidAnswer as invalid:
            if "both" in str(invalid):
                said[invalid.names[1]] = "separate"
            else:  # what was said about another domain has settled it
                said.pop(invalid.names[0])
    else:
        pytest.fail("the questions never end")
    parts = [part for parts in changes.split.values() for part in parts]
    sources = [source for sources in changes.merged.values() for source in sources]
    origins = Counter([*changes.kept, *changes.revised, *changes.added, *changes.merged, *parts])
    fates = Counter(
        [*changes.kept.values(), *changes.revised.values(), *changes.removed, *changes.split, *sources]
    )
    assert origins == Counter(list(new))
    assert fates == Counter(list(old))
