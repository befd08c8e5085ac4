import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.change.lineage import RevisionNode, space_of
from mixing.change.revision import Changes, Leaf
from mixing.errors import InvalidLineage, InvalidTokens, UnknownDomain, UnknownRevision
from tests.mixing.random_lineage import DocumentLineage

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.booleans())
def test_a_run_of_any_revision_reads_the_same_documents_when_it_is_carried(seed: int, hashes: bool) -> None:
    made = DocumentLineage.drawn(seed, hashes=hashes)
    space = space_of(made.nodes, made.nodes[-1].id)
    contents = {name: made.content(name) for name in space.contents.names}
    for number, domains in enumerate(made.revisions):
        mixture = made.mixture(number)
        carried = space.carry(str(number + 1), mixture)
        np.testing.assert_allclose(made.read(contents, carried), made.read(domains, mixture), atol=1e-12)


@given(seeds)
def test_maps_into_the_contents_are_column_stochastic_and_contents_are_told_apart_by_their_documents(
    seed: int,
) -> None:
    made = DocumentLineage.drawn(seed)
    space = space_of(made.nodes, made.nodes[-1].id)
    for way in space.maps.values():
        assert way.leaves == space.contents.names
        np.testing.assert_allclose(way.matrix.sum(axis=0), 1, atol=1e-12)
    documents = [made.content(name) for name in space.contents.names]
    assert len(set(documents)) == len(documents)
    np.testing.assert_allclose(space.contents.tokens, [made.tokens(some) for some in documents])


@given(seeds)
def test_a_mixture_of_the_newest_revision_comes_back_as_it_went(seed: int) -> None:
    made = DocumentLineage.drawn(seed)
    space = space_of(made.nodes, made.nodes[-1].id)
    mixture = made.mixture(-1)
    weights = np.array([mixture[name] for name in space.newest.free])
    back, off = space.onto_newest(space.newest.expand(weights)[None])
    np.testing.assert_allclose(back[0], weights, atol=1e-12)
    assert off[0] < 1e-12


def chain(*steps: tuple[dict[str, Leaf], Changes | None]) -> list[RevisionNode]:
    return [
        RevisionNode(str(number), leaves, str(number - 1) if changes else None, changes)
        for number, (leaves, changes) in enumerate(steps, start=1)
    ]


def test_an_added_domain_weighs_nothing_in_older_runs_and_a_revised_one_is_another_content() -> None:
    lineage = chain(
        ({"a": Leaf(10), "b": Leaf(30)}, None),
        (
            {"a": Leaf(10), "b": Leaf(25), "c": Leaf(5)},
            Changes(kept={"a": "a"}, revised={"b": "b"}, added=("c",)),
        ),
    )
    space = space_of(lineage, "2")
    assert space.carry("1", {"a": 0.4, "b": 0.6}) == {"a": 0.4, "b": 0, "b@1": 0.6, "c": 0}
    mixtures, off = space.onto_newest(np.array([[0.4, 0.0, 0.6, 0.0]]))
    np.testing.assert_allclose(mixtures, [[1, 0, 0]])  # nothing else of the run is there any more
    np.testing.assert_allclose(off, [1.2])


def test_a_split_carries_the_parent_at_the_natural_ratio_of_its_parts() -> None:
    lineage = chain(
        ({"a": Leaf(10), "web": Leaf(40)}, None),
        (
            {"a": Leaf(10), "web:x": Leaf(10), "web:y": Leaf(30)},
            Changes(kept={"a": "a"}, split={"web": ("web:x", "web:y")}),
        ),
    )
    carried = space_of(lineage, "2").carry("1", {"a": 0.2, "web": 0.8})
    assert carried == pytest.approx({"a": 0.2, "web:x": 0.2, "web:y": 0.6})


def test_a_merged_domain_is_its_members_and_their_runs_keep_telling_them_apart() -> None:
    lineage = chain(
        ({"x": Leaf(10), "y": Leaf(30)}, None),
        ({"whole": Leaf(40)}, Changes(merged={"whole": ("x", "y")})),
    )
    space = space_of(lineage, "2")
    assert space.contents.names == ("x@1", "y@1")
    assert space.carry("2", {"whole": 1.0}) == pytest.approx({"x@1": 0.25, "y@1": 0.75})
    assert space.carry("1", {"x": 0.5, "y": 0.5}) == {"x@1": 0.5, "y@1": 0.5}


def test_what_was_taken_out_and_put_back_finds_its_old_runs() -> None:
    a, b = Leaf(10, "text a"), Leaf(30, "text b")
    lineage = chain(
        ({"a": a, "b": b}, None),
        ({"a": a}, Changes(kept={"a": "a"}, removed=("b",))),
        ({"a": a, "again": b}, Changes(kept={"a": "a"}, added=("again",))),
    )
    assert space_of(lineage, "3").carry("1", {"a": 0.4, "b": 0.6}) == {"a": 0.4, "again": 0.6}


def test_a_split_that_is_undone_is_the_parent_again() -> None:
    whole, x, y = Leaf(40, "whole"), Leaf(10, "x"), Leaf(30, "y")
    lineage = chain(
        ({"web": whole, "a": Leaf(5, "a")}, None),
        ({"x": x, "y": y, "a": Leaf(5, "a")}, Changes(kept={"a": "a"}, split={"web": ("x", "y")})),
        ({"web": whole, "a": Leaf(5, "a")}, Changes(kept={"a": "a"}, merged={"web": ("x", "y")})),
    )
    space = space_of(lineage, "3")
    first = space.carry("1", {"web": 0.8, "a": 0.2})
    assert first == pytest.approx(space.carry("3", {"web": 0.8, "a": 0.2}))
    assert space.carry("2", {"x": 0.8, "y": 0.0, "a": 0.2}) != pytest.approx(first)


def test_names_of_contents_never_collide_with_a_domain_that_is_called_so() -> None:
    lineage = chain(
        ({"a": Leaf(10), "b": Leaf(30)}, None),
        ({"a": Leaf(10), "b@1": Leaf(5)}, Changes(kept={"a": "a"}, removed=("b",), added=("b@1",))),
    )
    assert space_of(lineage, "2").contents.names == ("a", "b@1", "b@1@")


def test_revisions_that_do_not_descend_from_each_other_are_refused_by_name() -> None:
    leaves, kept = {"a": Leaf(1)}, Changes(kept={"a": "a"})
    with pytest.raises(InvalidLineage, match="1 is given twice"):
        space_of([RevisionNode("1", leaves), RevisionNode("1", leaves)], "1")
    with pytest.raises(InvalidLineage, match="parent 0 of revision 1"):
        space_of([RevisionNode("1", leaves, "0", kept)], "1")
    with pytest.raises(InvalidLineage, match="needs both"):
        space_of([RevisionNode("1", leaves), RevisionNode("2", leaves, "1")], "2")
    around = [RevisionNode("1", leaves, "2", kept), RevisionNode("2", leaves, "1", kept)]
    with pytest.raises(InvalidLineage, match="own ancestor: 2 <- 1 <- 2") as cycle:
        space_of(around, "2")
    assert cycle.value.field == "parent"
    with pytest.raises(InvalidTokens, match="revision 1: b"):
        space_of([RevisionNode("1", {"b": Leaf(None)})], "1")
    lineage = [RevisionNode("1", leaves)]
    with pytest.raises(UnknownRevision, match="7"):
        space_of(lineage, "7")
    with pytest.raises(UnknownRevision, match="not in the lineage of revision 1"):
        space_of(lineage, "1").carry("2", {"a": 1})
    with pytest.raises(UnknownDomain, match="z"):
        space_of(lineage, "1").carry("1", {"z": 1})
