from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from mixing.change.revision import Leaf
from mixing.errors import Infeasible, InvalidSetting, TooFewRuns, UnknownDomain, UnknownRevision
from mixing.methods import combine, method_named
from mixing.reuse.choice import StartMixture
from mixing.reuse.plan import plan_reuse
from mixing.simplex_map import SimplexMap
from tests.mixing.reuse_world import (
    FIRST,
    TASKS,
    continuation_of,
    past_of,
    runs_of_first,
    second,
    updated_space,
)
from tests.mixing.solve.problems import share_between

KINDS = ("added", "removed", "renamed", "revised", "split", "merged")


def planned(changes: str, runs: int = 0, **asked: object):
    space = updated_space(*second(changes))
    past = past_of(runs_of_first(space, runs)) if runs else ()
    return plan_reuse(continuation_of(space, past, **asked))


@pytest.mark.parametrize(
    ("changes", "affected"),
    [
        ("added", {"e0", "e1"}),
        ("removed", set()),
        ("renamed", set()),
        ("revised", {"d3"}),
        ("split", {"d3:0", "d3:1", "d3:2"}),
        ("merged", {"whole"}),
    ],
)
def test_what_is_affected_is_what_no_old_domain_is(changes: str, affected: set[str]) -> None:
    space = updated_space(*second(changes))
    plan = plan_reuse(continuation_of(space))
    assert set(plan.recomputed) == affected
    (ratios,) = plan.groups.values()
    assert set(ratios) == set(space.newest.free) - affected
    renamed = {"other": "d3"}
    tokens = {name: FIRST[renamed.get(name, name)].tokens or 0 for name in ratios}
    assert ratios == pytest.approx({name: count / sum(tokens.values()) for name, count in tokens.items()})


@pytest.mark.parametrize(
    # Domains nobody has trained on are directions; the parts of a split were always trained in one proportion.
    ("changes", "directions"),
    [("added", 2), ("removed", 0), ("renamed", 0), ("revised", 1), ("split", 2), ("merged", 0)],
)
@pytest.mark.parametrize("kind", ["full", "none"])
def test_new_runs_are_counted_by_what_the_older_ones_never_moved(
    changes: str, directions: int, kind: str
) -> None:
    plan = planned(changes, runs=40, kind=kind)
    assert plan.new_runs == (np.ceil(2.5 * (directions + 1)) if directions else 0)
    assert len(plan.reused) == 40
    assert not plan.set_aside
    domains = len(second(changes)[0])
    assert plan.recompute_runs == 3 * (domains + 1)  # Olmix's number, which is ours too


def test_a_law_without_priors_gets_three_runs_for_a_direction() -> None:
    olmix = {"method": "olmix", "recipe": combine(method_named("olmix"))}
    assert planned("added", runs=40, kind="none", **olmix).new_runs == 3 * (2 + 1)


def test_where_older_runs_count_auto_searches_every_domain() -> None:
    plan = planned("added", runs=40, kind="auto")
    assert (plan.kind, plan.groups, plan.new_runs) == ("none", {}, 8)
    without = planned("added", runs=40, kind="auto", reuse_runs=False)
    assert without.kind == "full"


def test_without_older_runs_the_searched_domains_get_a_swarm_of_the_usual_size() -> None:
    assert planned("added").new_runs == 3 * (3 + 1)  # two new domains and the virtual one
    assert planned("added", kind="none").new_runs == 3 * (8 + 1)
    assert planned("added", runs=40, reuse_runs=False).new_runs == 3 * (3 + 1)


def test_a_domain_that_is_taken_out_costs_no_run() -> None:
    by_ratios = planned("removed")
    assert by_ratios.is_renormalised
    assert by_ratios.new_runs == 0
    solved_again = planned("removed", runs=40, kind="auto")
    assert (solved_again.kind, solved_again.new_runs) == ("none", 0)
    assert not solved_again.is_renormalised
    assert "Every domain is searched" in solved_again.why[0]


def test_older_runs_that_lack_a_task_are_made_up_for() -> None:
    space = updated_space(*second("added"))
    past = past_of(runs_of_first(space, 40))
    plan = plan_reuse(continuation_of(space, past, tasks=(*TASKS, "held-out/e0")))
    needed = combine(method_named("mixwright")).minimum_runs(len(space.contents))
    assert plan.new_runs == max(needed, 8)
    assert plan.least_new_runs == combine(method_named("mixwright")).minimum_runs(
        3
    )  # over the virtual domain
    assert set(plan.reused.values()) == {"trained for revision 1, counts for 3 of 4 tasks"}


def test_fewer_runs_than_a_law_can_do_with_are_refused_with_the_number() -> None:
    space = updated_space(*second("added"))
    past = past_of(runs_of_first(space, 5))
    needed = combine(method_named("mixwright")).minimum_runs(8) - 5
    with pytest.raises(TooFewRuns, match=f"ask for {needed} or more") as refused:
        plan_reuse(continuation_of(space, past, kind="none", runs=needed - 1))
    assert (refused.value.needed, refused.value.given) == (needed, needed - 1)
    assert plan_reuse(continuation_of(space, past, kind="none", runs=needed)).least_new_runs == needed


def test_runs_that_cannot_be_compared_are_set_aside_with_the_reason() -> None:
    space = updated_space(*second("revised"))
    first, other, stranger, *_ = past_of(runs_of_first(space, 3))
    past = (
        replace(first, seed=7, mixture={**dict.fromkeys(FIRST, 0.1), "d3": 0.5}),
        replace(other, unlike="another proxy: nano-1M"),
        replace(stranger, tasks=("something else",)),
    )
    plan = plan_reuse(continuation_of(space, past))
    assert plan.set_aside == {
        "old1": "another proxy: nano-1M",
        "old2": "none of the objective's tasks was measured on it",
    }
    assert list(plan.reused) == ["old0"]
    assert plan.reused["old0"] == (
        "trained for revision 1, 50% of it text that is no longer there, with another seed, so it counts about half"
    )


def test_a_run_that_was_trained_twice_counts_once() -> None:
    space = updated_space(*second("renamed"))
    first, other, *_ = past_of(runs_of_first(space, 3))
    there = {name if name != "d3" else "other": weight for name, weight in first.mixture.items()}
    again = replace(first, id="again", revision="2", mixture=there)
    plan = plan_reuse(continuation_of(space, (first, again, other, replace(again, id="replicate", seed=1))))
    assert set(plan.reused) == {first.id, other.id, "replicate"}
    assert plan.set_aside == {"again": "it repeats run old0: the same mixture, trained with the same seed"}


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_the_cap_of_a_virtual_domain_is_the_most_its_members_let_it_weigh(seed: int, changes: str) -> None:
    generator = np.random.default_rng(seed)
    weights = dict(zip(FIRST, generator.dirichlet(np.ones(len(FIRST))).tolist(), strict=True))
    start = StartMixture("m1", "1", weights)
    space = updated_space(*second(changes))
    continuation = continuation_of(space, start=start, target_tokens=1e9 + generator.random() * 19e9)
    plan = plan_reuse(continuation)
    # By linear programming over the members, each held to its share of the virtual domain.
    ((virtual, ratios),) = plan.groups.items()
    names = list(ratios)
    caps = [
        4 * (second(changes)[0][name].tokens or 0) / continuation.question.target_tokens for name in names
    ]
    solved = linprog([-1.0], np.array([[ratios[name]] for name in names]), caps, bounds=[(0, None)])
    assert plan.virtual_caps[virtual] == pytest.approx(-solved.fun)
    binding = plan.binding_members[virtual]
    assert ratios[binding] * plan.virtual_caps[virtual] == pytest.approx(caps[names.index(binding)])
    way = SimplexMap.freeze(space.newest.free, plan.groups)
    assert way.pull_back_caps(np.full(len(way.leaves), np.inf))[0].shape == (len(way.free),)


def test_ratios_that_no_mixture_can_keep_name_the_member_and_the_smallest_relaxation() -> None:
    space = updated_space(*second("added"))
    weights = {"d0": 0.95, **dict.fromkeys(["d1", "d2", "d3", "d4", "d5"], 0.01)}
    start = StartMixture("m1", "1", weights)
    # 4 x 10 G of d0 in 100 G: at most .4, so the virtual domain at most .42; e0 and e1 are pinned to .1.
    pin = share_between("new ones", ["e0", "e1"], 0.0, 0.1)
    continuation = continuation_of(space, start=start, constraints=(pin,))
    with pytest.raises(
        Infeasible, match="First to run out is d0; with reuse 'partial' and d0 free"
    ) as refused:
        plan_reuse(continuation)
    assert set(refused.value.names) == {"d0", "new ones"}
    # Either the cap of d0 grows to .95 x .9, or the share to 1 - .4 / .95: the smaller change is .455.
    assert f"{0.95 * 0.9 - 0.4:.4g}" in str(refused.value)
    freed = plan_reuse(replace(continuation, kind="auto"))
    assert "d0" in freed.recomputed
    assert freed.kind == "partial"
    assert any(sentence.endswith("unless these are freed too: d0.") for sentence in freed.why)


def test_partial_frees_what_it_names_or_the_most_coupled() -> None:
    named = planned("added", kind="partial", free=("d1",))
    assert set(named.recomputed) == {"d1", "e0", "e1"}
    assert named.kind == "partial"
    space = updated_space(*second("revised"))
    coupling = {"d3": {"d0": 1e-4, "d1": 3e-2, "d2": 5e-3, "d4": 0.0, "d5": 0.0}}
    base = continuation_of(space).start
    assert base is not None
    start = replace(base, coupling=coupling)
    most = plan_reuse(continuation_of(space, kind="partial", most_coupled=2, start=start))
    assert set(most.recomputed) == {"d1", "d2", "d3"}


@pytest.mark.parametrize(
    ("gain", "noise", "freed"),
    # Keeping all costs .0351: d1 .03, d2 .005, d0 .0001. Tolerated is 1% of the gain, or 10% of the noise.
    [
        (0.005, 0.0, {"d0", "d1", "d2"}),
        (0.05, 0.0, {"d1", "d2"}),
        (0.6, 0.0, {"d1"}),
        (5.0, 0.0, set()),
        (0.05, 0.36, set()),
    ],
)
def test_auto_frees_the_most_coupled_until_the_rest_costs_less_than_gain_and_noise_tolerate(
    gain: float, noise: float, freed: set[str]
) -> None:
    space = updated_space(*second("revised"))
    coupling = {"d3": {"d0": 1e-4, "d1": 3e-2, "d2": 5e-3, "d4": 0.0, "d5": 0.0}}
    base = continuation_of(space).start
    assert base is not None
    start = replace(base, coupling=coupling, gain=gain, noise=noise)
    plan = plan_reuse(continuation_of(space, kind="auto", start=start))
    assert set(plan.recomputed) - {"d3"} == freed
    assert plan.kind == ("partial" if freed else "full")


def test_bad_questions_are_refused_by_name() -> None:
    with pytest.raises(InvalidSetting, match="no mixture whose ratios"):
        planned("added", start=None)
    assert planned("added", start=None, kind="auto").kind == "none"
    with pytest.raises(InvalidSetting, match="needs the domains to free"):
        planned("added", kind="partial")
    with pytest.raises(UnknownDomain, match="d3") as removed:
        planned("removed", kind="partial", free=("d3",))
    assert removed.value.field == "reuse.free"
    with pytest.raises(InvalidSetting, match="frees nothing"):
        planned("added", free=("d1",))
    with pytest.raises(InvalidSetting, match="tells no couplings"):
        planned("added", kind="partial", most_coupled=1)
    with pytest.raises(UnknownRevision, match="revision 9 is not in the lineage") as stranger:
        planned("added", start=StartMixture("m9", "9", {"d0": 1.0}))
    assert stranger.value.field == "reuse.mixture"


def test_a_method_with_a_design_of_its_own_says_that_it_cannot_reuse() -> None:
    autoscale = {"method": "autoscale", "recipe": combine(method_named("autoscale"))}
    with pytest.raises(InvalidSetting, match="design of its own"):
        planned("added", **autoscale)
    plan = planned("added", runs=4, kind="auto", **autoscale)
    assert plan.kind == "none"
    assert not plan.reused
    assert all("design of its own" in reason for reason in plan.set_aside.values())
    assert plan.new_runs == 2 * (2 * 8 + 1)


def test_the_virtual_domain_is_called_like_no_domain() -> None:
    leaves, changes = second("added")
    leaves["kept"] = leaves.pop("e0")
    changes = replace(changes, added=("e1", "kept"))
    plan = plan_reuse(continuation_of(updated_space(leaves, changes)))
    assert list(plan.groups) == ["kept_"]
    assert Leaf(30e9, "text e0") == leaves["kept"]
