"""Every method as published, and which of its parts can be replaced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixing.errors import InvalidSetting, TooFewRuns, UnknownMethod
from mixing.methods import METHODS, Recipe, combine, method_named
from mixing.parts import REGRESSIONS, SAMPLERS

TRAINING = sorted(name for name, method in METHODS.items() if method.trains_runs)


def recipe_of(name: str) -> Recipe:
    recipe = METHODS[name].recipe
    assert recipe is not None
    return recipe


@pytest.mark.parametrize(
    ("name", "domains", "runs"),
    [
        ("olmix", 17, 54),  # 3 (m + 1), arXiv 2602.12237
        ("olmix", 63, 192),
        ("regmix", 17, 512),  # arXiv 2407.01492
        ("dml", 7, 20),  # arXiv 2403.16952
        ("autoscale", 6, 26),  # 2m + 1 at each of two budgets, arXiv 2407.20177
        ("bimix", 17, 4),  # one for each of four entropies, arXiv 2405.14908
        ("bimix", 2, 4),
        ("admire", 17, 101),
        ("climb", 21, 112),  # arXiv 2504.13161
    ],
)
def test_the_published_size_of_the_swarm_is_the_default(name: str, domains: int, runs: int) -> None:
    assert METHODS[name].default_runs(domains) == runs


def test_climb_is_split_into_its_three_published_rounds() -> None:
    climb = METHODS["climb"]
    assert climb.split(recipe_of("climb"), 112, 21) == (64, 32, 16)


def test_autoscale_has_a_base_and_two_runs_a_domain_at_each_budget() -> None:
    autoscale = METHODS["autoscale"]
    assert autoscale.split(recipe_of("autoscale"), 26, 6) == (13, 13)
    for other in (25, 27, 13):
        with pytest.raises(InvalidSetting, match="26 in all") as caught:
            autoscale.split(recipe_of("autoscale"), other, 6)
        assert caught.value.field == "runs"


@pytest.mark.parametrize(
    ("name", "parts", "cap", "kl_weight"),
    [
        ("olmix", ("two-level-dirichlet", "log-linear", "per task", "exact"), 4.0, 0.05),
        ("regmix", ("tempered-dirichlet", "lightgbm", "aggregated", "mean-of-best"), None, 0.0),
        ("dml", ("exponential-grid", "log-linear", "aggregated", "search"), None, 0.0),
        ("bimix", ("entropy", "bimix-own-share", "per task", "exact"), None, 0.0),
        ("admire", ("acquisition", "multi-fidelity", "aggregated", "posterior-mean"), None, 0.0),
        ("climb", ("predicted-best", "lightgbm-climb", "aggregated", "predicted-best"), None, 0.0),
    ],
)
def test_the_parts_are_those_of_the_paper(
    name: str, parts: tuple[str, ...], cap: float | None, kl_weight: float
) -> None:
    method = METHODS[name]
    recipe = recipe_of(name)
    assert (recipe.sampler, recipe.regression, recipe.granularity, recipe.solver) == parts
    assert (method.repetition_cap, method.kl_weight) == (cap, kl_weight)


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("domains", [2, 3, 17, 64])
def test_the_default_number_of_runs_can_be_split(name: str, domains: int) -> None:
    method, recipe = METHODS[name], recipe_of(name)
    rounds = method.split(recipe, method.default_runs(domains), domains)
    assert sum(rounds) == method.default_runs(domains) >= recipe.minimum_runs(domains)
    assert len(rounds) == len(method.rounds)
    assert min(rounds) >= 1


@given(
    st.sampled_from(TRAINING), st.integers(2, 40), st.integers(0, 600), st.sampled_from(sorted(REGRESSIONS))
)
def test_a_split_sums_to_its_runs_and_leaves_no_round_empty_or_refuses(
    name: str, domains: int, runs: int, regression: str
) -> None:
    method = METHODS[name]
    try:
        recipe = combine(method, regression=regression)
        if SAMPLERS[recipe.sampler].exact_runs(domains) is not None:
            return  # one number of runs alone, see above
    except InvalidSetting:
        return
    least = max(recipe.minimum_runs(domains), len(method.rounds))
    if runs < least:
        with pytest.raises(TooFewRuns) as caught:
            method.split(recipe, runs, domains)
        assert caught.value.given == runs < least <= caught.value.needed
        runs = caught.value.needed
    elif SAMPLERS[recipe.sampler].learns:
        runs += len(method.rounds) - 1
    rounds = method.split(recipe, runs, domains)
    assert sum(rounds) == runs
    assert min(rounds) >= 1
    if SAMPLERS[recipe.sampler].learns:
        assert rounds[0] >= recipe.minimum_runs(domains), "the second round is chosen by a fit to the first"


def test_the_default_number_of_runs_is_enough_for_a_replaced_regression() -> None:
    method = METHODS["olmix"]
    recipe = combine(method, regression="lightgbm")
    assert method.default_runs(2) == 9 < recipe.minimum_runs(2)
    assert sum(method.split(recipe, method.default_runs(2, recipe), 2)) == recipe.minimum_runs(2) + 1
    perturbed = combine(method, sampler="perturbation", regression="multi-fidelity")
    assert method.default_runs(5, perturbed) == 11
    with pytest.raises(InvalidSetting, match="takes 9 runs") as caught:
        method.split(perturbed, 9, 4)
    assert caught.value.field == "regression"


def test_a_replaced_part_is_replaced_and_the_others_stay() -> None:
    assert combine(METHODS["olmix"], sampler="d-optimal") == Recipe(
        "d-optimal", "log-linear", "per task", "exact"
    )
    assert combine(METHODS["regmix"], granularity="per task").granularity == "per task"
    assert combine(METHODS["olmix"]) == METHODS["olmix"].recipe


@pytest.mark.parametrize(
    ("method", "regression", "solver"),
    [
        ("olmix", "lightgbm", "mean-of-best"),
        ("olmix", "effective-power", "exact"),
        ("regmix", "effective-power", "mean-of-best"),
        ("autoscale", "multi-fidelity", "search"),
    ],
)
def test_a_regression_brings_a_solver_that_can_read_it(method: str, regression: str, solver: str) -> None:
    assert combine(METHODS[method], regression=regression).solver == solver


@pytest.mark.parametrize(
    ("method", "changes", "field", "reason"),
    [
        ("olmix", {"regression": "lightgbm", "solver": "exact"}, "solver", "convex"),
        ("olmix", {"solver": "extrapolated-closed-form"}, "solver", "closed form"),
        ("olmix", {"sampler": "perturbation"}, "regression", "how much is trained"),
        ("olmix", {"sampler": "acquisition"}, "regression", "how much is trained"),
        ("olmix", {"regression": "autoscale-budgets"}, "sampler", "perturbation"),
        ("autoscale", {"sampler": "two-level-dirichlet"}, "sampler", "perturbation"),
        ("autoscale", {"granularity": "per task"}, "granularity", "aggregated"),
        ("autoscale", {"solver": "search"}, "solver", "solved by"),
        ("bimix", {"granularity": "aggregated"}, "granularity", "per task"),
        ("olmix", {"sampler": "dice"}, "sampler", "there is no sampler 'dice'"),
        ("olmix", {"regression": "tarot"}, "regression", "there is no regression 'tarot'"),
        ("uniform", {"sampler": "entropy"}, "method", "trains no runs"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_with_the_reason(
    method: str, changes: dict[str, str], field: str, reason: str
) -> None:
    with pytest.raises(InvalidSetting, match=reason) as caught:
        combine(METHODS[method], **changes)
    assert caught.value.field == field


def test_every_sampler_and_regression_goes_with_some_method() -> None:
    used = set()
    for method in (METHODS[name] for name in TRAINING):
        for sampler in SAMPLERS:
            for regression in REGRESSIONS:
                try:
                    used |= {sampler, combine(method, sampler=sampler, regression=regression).regression}
                except InvalidSetting:
                    continue
    assert used >= set(SAMPLERS) | set(REGRESSIONS)


def test_a_method_is_found_by_its_name_or_those_there_are_are_named() -> None:
    assert method_named("climb").title == "CLIMB"
    with pytest.raises(UnknownMethod, match="olmix") as caught:
        method_named("alchemy")
    assert caught.value.names == ("alchemy",)
    assert [name for name, method in METHODS.items() if method.name != name] == []
