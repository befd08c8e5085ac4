"""scikit-learn's regressors as regressions, from a swarm to a mixture."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from mixing.answer.proposal import propose
from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.scikit_learn import FromScikitLearn
from mixing.methods import METHODS, combine
from mixing.parts import REGRESSIONS
from tests.mixing.laws.law_checks import swarm
from tests.mixing.test_proposal_parts import assert_sound, question_of, true_gain


def losses(weights: np.ndarray) -> np.ndarray:
    return np.column_stack([1 + weights[:, 0], 2 - np.sqrt(weights[:, 1])])


@pytest.mark.parametrize("name", ["Ridge", "KernelRidge"])
def test_a_regressor_named_in_a_recipe_finds_a_better_mixture_than_the_natural_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As for boosted trees, forests take seconds to predict as many candidates as are published.
    monkeypatch.setattr("mixing.solve.solvers.REGMIX_DRAWS", 2_000)
    recipe = combine(METHODS["mixwright"], regression=f"sklearn:{name}")
    assert recipe.solver == "mean-of-best"
    question, runs = question_of("mixwright", 24)
    document = propose(replace(question, recipe=recipe), runs).to_dict()
    assert_sound(document, 4.0)
    assert document["recipe"]["regression"] == f"sklearn:{name}"
    assert true_gain(document["weights"]) > 0


def test_every_task_is_fitted_as_scikit_learn_fits_it() -> None:
    weights, fresh = swarm(1, 30, 4), swarm(2, 9, 4)
    mean, deviation = FromScikitLearn(LinearRegression()).fit(weights, losses(weights)).predict(fresh)
    for task in range(2):
        alone = LinearRegression().fit(weights, losses(weights)[:, task])
        np.testing.assert_allclose(mean[:, task], alone.predict(fresh), rtol=1e-12)
    assert deviation[0, 0] < 1e-9, "the first task is linear, so that folds predict it exactly"
    assert deviation[0, 1] > 1e-2


def test_a_run_that_is_all_noise_is_worth_less_where_the_regressor_takes_weights() -> None:
    weights = swarm(3, 40, 3)
    spoiled, noise = losses(weights), np.full((40, 2), 1e-3)
    spoiled[0] += 3.0
    noise[0] = 3.0
    told, untold = (
        np.abs(FromScikitLearn(Ridge(1e-3)).fit(weights, spoiled, own).predict(weights)[0] - losses(weights))
        for own in (noise, None)
    )
    assert told[1:, 0].mean() < 0.1 * untold[1:, 0].mean()
    FromScikitLearn(KNeighborsRegressor()).fit(weights, spoiled, noise)  # takes no weights


def test_what_cannot_be_fitted_is_refused_by_name() -> None:
    weights = swarm(4, 20, 3)
    with pytest.raises(TooFewRuns, match="KernelRidge"):
        FromScikitLearn(KernelRidge()).fit(weights[:9], losses(weights[:9]))
    with pytest.raises(InvalidMetrics, match="same metric"):
        FromScikitLearn(KernelRidge()).fit(weights, np.ones((20, 1)))
    with pytest.raises(InvalidSetting, match="PoissonRegressor cannot be fitted"):
        REGRESSIONS["sklearn:PoissonRegressor"].make(None).fit(weights, -losses(weights))
    with pytest.raises(InvalidSetting, match="no regressor"):
        combine(METHODS["olmix"], regression="sklearn:KernelRigde")
    with pytest.raises(InvalidSetting, match="StackingRegressor is made of other estimators"):
        combine(METHODS["olmix"], regression="sklearn:StackingRegressor")
    with pytest.raises(InvalidSetting, match="convex"):
        combine(METHODS["olmix"], regression="sklearn:Ridge", solver="exact")
