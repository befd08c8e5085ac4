import numpy as np

from mixing.laws.composed import joined, measured_alike
from mixing.laws.exponential.log_linear import LogLinearLaw
from mixing.laws.linear import LinearLaw
from mixing.laws.regression import Fitted


def test_columns_measured_on_the_same_runs_stand_together_in_order() -> None:
    measured = np.array([[True, False, True, True], [True, True, True, False]])
    assert [block.tolist() for block in measured_alike(measured)] == [[0, 2], [1], [3]]


def test_tasks_fitted_apart_are_one_law_whose_tasks_are_in_their_places() -> None:
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(4), 40)
    metrics = 1 + np.exp(weights @ generator.normal(size=(4, 3)))
    law = LogLinearLaw()
    whole = law.fit(weights, metrics)
    columns = [np.array([0, 2]), np.array([1])]
    parts = joined(
        [law.fit(weights, metrics[:, tasks]) for tasks in columns], columns, ["law"] * len(columns)
    )
    assert parts.is_convex
    np.testing.assert_allclose(parts.predict(weights)[0], whole.predict(weights)[0], atol=1e-7)
    np.testing.assert_allclose(parts.gradient(weights), whole.gradient(weights), atol=1e-5)
    share = np.array([0.5, 0.2, 0.3])
    found, expected = parts.expand(weights[0], share), whole.expand(weights[0], share)
    assert abs(found.value - expected.value) < 1e-7
    np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-5)
    hessians = [
        np.diag(expansion.diagonal) + expansion.factors.T @ expansion.factors
        for expansion in (found, expected)
    ]
    np.testing.assert_allclose(*hessians, atol=1e-4)


def test_one_law_that_is_not_convex_makes_the_whole_not_convex() -> None:
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(3), 20)
    metrics = 1 + weights @ generator.uniform(size=(3, 2))

    class Bare(Fitted):
        def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return weights[:, :1], 0 * weights[:, :1]

    linear = LinearLaw().fit(weights, metrics[:, :1])
    law = joined([linear, Bare()], [np.array([1]), np.array([0])], ["linear", "bare"])
    assert not law.is_convex
    np.testing.assert_allclose(law.predict(weights)[0][:, 0], weights[:, 0])
