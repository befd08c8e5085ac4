import numpy as np
import pytest
from scipy.stats import spearmanr

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.trees import ClimbTrees, Trees
from tests.mixing.laws.law_checks import swarm


def losses(weights: np.ndarray) -> np.ndarray:
    return np.column_stack([3 - np.sqrt(weights[:, 0]), 2 + np.exp(-3 * weights[:, 1]) + weights[:, 2]])


@pytest.mark.parametrize("trees", [Trees(), ClimbTrees()], ids=["regmix", "climb"])
def test_mixtures_are_ranked_even_from_34_runs(trees: Trees) -> None:
    """LightGBM's own 20 runs a leaf predict a constant there."""
    weights, fresh = swarm(0, 34, 4), swarm(1, 200, 4)
    mean, _ = trees.fit(weights, losses(weights)).predict(fresh)
    for task in range(2):
        assert spearmanr(mean[:, task], losses(fresh)[:, task]).statistic > 0.8


def test_the_same_runs_give_the_same_trees() -> None:
    weights = swarm(2, 60, 4)
    first, second = (Trees().fit(weights, losses(weights)).predict(weights) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_domains_without_an_order_and_tasks_without_company() -> None:
    weights = swarm(3, 80, 4)
    metrics, fresh, order = losses(weights), swarm(4, 60, 4), np.array([2, 0, 3, 1])
    plain = Trees().fit(weights, metrics).predict(fresh)[0]
    permuted = Trees().fit(weights[:, order], metrics).predict(fresh[:, order])[0]
    np.testing.assert_allclose(plain, permuted, atol=0.02)
    np.testing.assert_allclose(
        plain[:, 1:], Trees().fit(weights, metrics[:, 1:]).predict(fresh)[0], atol=1e-12
    )


def test_the_stated_deviation_is_the_error_on_fresh_runs_to_a_factor() -> None:
    weights, fresh = swarm(5, 300, 4), swarm(6, 300, 4)
    noise = 0.05 * np.random.default_rng(7).standard_normal((300, 2))
    mean, std = Trees().fit(weights, losses(weights) + noise).predict(fresh)
    again = 0.05 * np.random.default_rng(8).standard_normal((300, 2))
    error = np.sqrt(np.square(mean - losses(fresh) - again).mean(0))
    assert (std[0] / error < 2).all()
    assert (std[0] / error > 0.5).all()


def test_pure_noise_grows_hardly_a_tree() -> None:
    """Stopping early on runs that the trees do not see; 1000 rounds would follow the noise."""
    weights = swarm(9, 100, 4)
    metrics = np.random.default_rng(10).standard_normal((100, 3))
    mean, _ = Trees().fit(weights, metrics).predict(swarm(11, 50, 4))
    assert np.std(mean, axis=0).max() < 0.3


def test_a_noisy_run_counts_less() -> None:
    weights = swarm(12, 60, 4)
    metrics, noise = losses(weights), np.zeros((60, 2))
    spoiled = metrics.copy()
    spoiled[:6] += 2.0
    noise[:6] = 5.0
    fresh = swarm(13, 60, 4)
    truth = losses(fresh)
    told = np.abs(Trees().fit(weights, spoiled, noise).predict(fresh)[0] - truth).mean()
    untold = np.abs(Trees().fit(weights, spoiled).predict(fresh)[0] - truth).mean()
    assert told < 0.5 * untold


def test_held_out_runs_are_predicted_one_fit_after_the_other() -> None:
    weights = swarm(14, 40, 3)
    kept = np.arange(40)[None, :] % 4 != np.arange(2)[:, None]
    predicted = Trees().held_out(weights, losses(weights), kept)
    assert predicted.shape == (2, 40, 2)
    alone = Trees().fit(weights[kept[1]], losses(weights[kept[1]])).predict(weights)[0]
    np.testing.assert_array_equal(predicted[1], alone)


def test_what_cannot_be_fitted_is_refused() -> None:
    weights = swarm(15, 9, 3)
    with pytest.raises(TooFewRuns) as caught:
        Trees().fit(weights, losses(weights))
    assert caught.value.needed == 10
    with pytest.raises(InvalidMetrics):
        Trees().fit(swarm(15, 20, 3), np.ones((20, 1)))
    with pytest.raises(InvalidSetting, match="validation_share"):
        Trees(validation_share=0.9)
    with pytest.raises(InvalidSetting, match="rounds"):
        Trees(rounds=0)
