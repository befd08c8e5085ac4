from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.revision_maps import Step, carried, carried_along, carry, carry_along, restrict
from mixing.change.patch import Patch, apply_patch
from mixing.change.revision import Changes, Leaf, Leaves
from mixing.errors import InvalidTokens, InvalidWeights, MissingDomain, UnknownDomain
from mixing.simplex_map import SimplexMap
from tests.mixing.revisions import documents, leaf, patched_revisions

OLD = {"a": Leaf(10), "b": Leaf(20), "c": Leaf(30), "d": Leaf(40), "e": Leaf(50)}


def step(old: Leaves, patch: Patch) -> Step:
    new, changes = apply_patch(old, patch)
    return Step(changes, old, new)


def of(step: Step) -> SimplexMap:
    return carry(step.changes, step.old, step.new)


def random_weights(names: Iterable[str], seed: int) -> dict[str, float]:
    names = list(names)
    return dict(zip(names, np.random.default_rng(seed).dirichlet(np.ones(len(names))).tolist(), strict=True))


def second_step(first: Step, seed: int) -> Step:
    """Whatever came out is renamed, revised, merged by twos or split; nothing is removed."""
    generator = np.random.default_rng(seed)
    rename, revise, split, merge = {}, {}, {}, {}
    names = sorted(first.new)
    while names:
        name, chosen = names.pop(), generator.integers(5)
        prefix = f"step{seed}x{len(names)}"
        if chosen == 0:
            rename[name] = prefix
        elif chosen == 1:
            revise[name] = leaf(documents(prefix, 3))
        elif chosen == 2 and names:
            merge[prefix] = (name, names.pop())
        elif chosen == 3:
            share = float(generator.uniform(0.1, 0.9))
            tokens = first.new[name].tokens or 0
            split[name] = {f"{prefix}:a": Leaf(share * tokens), f"{prefix}:b": Leaf((1 - share) * tokens)}
    return step(first.new, Patch(revise=revise, rename=rename, split=split, merge=merge))


def test_each_change_moves_weights_as_it_should() -> None:
    taken = step(
        OLD,
        Patch(
            add={"new": Leaf(5)},
            revise={"b": Leaf(99)},
            rename={"a": "z"},
            split={"c": {"c:x": Leaf(10), "c:y": Leaf(20)}},
            merge={"de": ("d", "e")},
        ),
    )
    weights, lost = carried(of(taken), {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.15, "e": 0.25})
    assert weights.as_dict() == pytest.approx(
        {"z": 0.1, "b": 0.2, "c:x": 0.1, "c:y": 0.2, "de": 0.4, "new": 0}
    )
    assert lost == 0


@given(patched_revisions(), st.integers(0, 2**32 - 1))
def test_maps_are_column_stochastic_and_conserve_mass(revision: tuple[Leaves, Patch], seed: int) -> None:
    old, patch = revision
    taken = step(old, patch)
    matrix = of(taken)
    assert matrix.leaves == tuple(sorted(taken.new))
    assert set(matrix.free) == set(old) - set(patch.remove)
    assert (matrix.matrix >= 0).all()
    np.testing.assert_allclose(matrix.matrix.sum(0), 1, atol=1e-12)
    mixture = random_weights(old, seed)
    weights, lost = carried(matrix, mixture)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert lost == pytest.approx(sum(mixture[name] for name in patch.remove), abs=1e-12)
    for name in taken.changes.added:
        assert weights[name] == 0
    for after, before in taken.changes.kept.items():
        assert weights[after] * (1 - lost) == pytest.approx(mixture[before], abs=1e-12)


@given(patched_revisions())
def test_the_natural_distribution_stays_natural_when_no_text_comes_or_goes(
    revision: tuple[Leaves, Patch],
) -> None:
    old, patch = revision
    taken = step(old, Patch(rename=patch.rename, split=patch.split, merge=patch.merge))
    total = sum(held.tokens or 0 for held in old.values())
    weights, _ = carried(of(taken), {name: (held.tokens or 0) / total for name, held in old.items()})
    assert weights.as_dict() == pytest.approx(
        {name: (held.tokens or 0) / total for name, held in taken.new.items()}
    )


@given(patched_revisions(), st.integers(0, 2**31))
def test_composition_is_associative_and_equals_carrying_step_by_step(
    revision: tuple[Leaves, Patch], seed: int
) -> None:
    first = step(*revision)
    second = second_step(first, seed)
    third = second_step(second, seed + 1)
    a, b, c = of(first), of(second), of(third)
    left, right = (c @ b) @ a, c @ (b @ a)
    np.testing.assert_allclose(left.matrix, right.matrix, atol=1e-14)
    np.testing.assert_allclose(carry_along([first, second, third]).matrix, left.matrix, atol=1e-14)
    mixture = random_weights(a.free, seed)
    once, lost = carried(left, mixture)
    slowly = carried(c, carried(b, carried(a, mixture)[0])[0])[0]
    assert once.as_dict() == pytest.approx(slowly.as_dict(), abs=1e-12)
    assert lost == 0


def test_what_a_later_step_removes_has_no_column_nor_has_a_parent_that_lost_a_part() -> None:
    first = step(OLD, Patch(split={"a": {"a:x": Leaf(4), "a:y": Leaf(6)}}, merge={"bc": ("b", "c")}))
    second = step(first.new, Patch(remove=("a:y", "d")))
    whole = carry_along([first, second])
    assert whole.free == ("b", "c", "e")
    weights, lost = carried(whole, {"a": 0, "b": 0.2, "c": 0.3, "d": 0, "e": 0.5})
    assert (weights.as_dict(), lost) == ({"a:x": 0, "bc": 0.5, "e": 0.5}, 0)


@given(patched_revisions(), st.integers(0, 2**31))
def test_chains_that_remove_compose_in_any_grouping(revision: tuple[Leaves, Patch], seed: int) -> None:
    old, patch = revision
    second = step(old, patch)
    first = Step(Changes(kept={name: name for name in old}), old, old)
    third = step(second.new, Patch(remove=tuple(sorted(second.new)[: len(second.new) // 2])))
    a, b, c = of(first), of(second), of(third)
    early = c @ restrict(b @ restrict(a, b.free), c.free)
    inner = c @ restrict(b, c.free)
    late = inner @ restrict(a, inner.free)
    assert early.free == late.free
    np.testing.assert_allclose(early.matrix, late.matrix, atol=1e-14)


def test_what_is_lost_along_a_chain_counts_against_the_first_mixture() -> None:
    first = step(OLD, Patch(remove=("e",), split={"a": {"a:x": Leaf(4), "a:y": Leaf(6)}}))
    second = step(first.new, Patch(remove=("a:y",)))
    mixture = {"a": 0.5, "b": 0.1, "c": 0.1, "d": 0.1, "e": 0.2}
    weights, lost = carried_along([first, second], mixture)
    assert lost == pytest.approx(0.2 + 0.5 * 0.6)  # e, and the six tenths of a that are a:y
    assert weights.as_dict() == pytest.approx({"a:x": 0.4, "b": 0.2, "c": 0.2, "d": 0.2})


def test_a_mixture_on_nothing_but_removed_domains_cannot_be_carried() -> None:
    taken = step(OLD, Patch(remove=("a", "b")))
    with pytest.raises(InvalidWeights, match="a, b"):
        carried(of(taken), {"a": 0.5, "b": 0.5, "c": 0, "d": 0, "e": 0})
    with pytest.raises(MissingDomain, match="c, d, e"):
        carried(of(taken), {"a": 0.5, "b": 0.5})


def test_an_uncounted_part_and_changes_of_other_revisions_are_named() -> None:
    new = {"a:x": Leaf(4), "a:y": Leaf()}
    with pytest.raises(InvalidTokens, match="a:y"):
        carry(Changes(split={"a": ("a:x", "a:y")}), {"a": Leaf(10)}, new)
    with pytest.raises(UnknownDomain, match="newer revision does not have b"):
        carry(Changes(kept={"b": "a"}), {"a": Leaf(10)}, {"a": Leaf(10)})
    with pytest.raises(MissingDomain, match="what is with b of the older"):
        carry(Changes(kept={"a": "a"}), {"a": Leaf(10), "b": Leaf(1)}, {"a": Leaf(10)})
    with pytest.raises(MissingDomain, match="at least one step"):
        carry_along([])
    with pytest.raises(UnknownDomain, match="no row for b"):
        restrict(carry(Changes(kept={"a": "a"}), {"a": Leaf(1)}, {"a": Leaf(1)}), ["b"])
