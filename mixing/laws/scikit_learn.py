"""Any regressor of scikit-learn as a regression, one a task.

Its settings are its own; what it is fitted to and judged by is as for every law. Noisy runs weigh less where it takes
weights, and its deviation is the error of its predictions of folds it has not seen. It has no gradient and promises
no convexity, so its mixture is searched, or taken from draws.
"""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import all_estimators

from mixing.errors import InvalidSetting
from mixing.laws.regression import (
    Fitted,
    FittedEach,
    Regression,
    importance,
)

_FOLDS = 5
_FEWEST_RUNS = 10
"""Two runs in each fold."""


@dataclass(frozen=True)
class FromScikitLearn(Regression):
    """The regression.

        law = FromScikitLearn(RandomForestRegressor(500, random_state=0)).fit(weights, metrics)
        mean, deviation = law.predict(mixtures)

    Attributes:
        estimator: with its settings; every fit is of a copy. A random one needs its `random_state`, or the same
            request will not give the same answer.
    """

    estimator: BaseEstimator

    # An estimator's settings know no unit, so it is fitted to metrics of deviation 1.

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - the others have one each
        """The class of the estimator."""
        return _name(self.estimator)

    def runs_to_fit(self, domains: int) -> int:
        """Two runs in each fold; what the estimator itself needs is not known."""
        return _FEWEST_RUNS

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedEach:
        """Fit every task to (K, m) mixtures and (K, T) metrics, finite, with (K, T) deviations where known.

        Raises:
            TooFewRuns: K < 10.
            InvalidMetrics: a metric that is not finite, or that is constant.
            InvalidSetting: the estimator refuses them, in its own words.
        """
        self.check(weights, metrics)
        folds = np.random.default_rng(0).permutation(len(weights)) % _FOLDS
        unseen = np.stack(
            [law.residual_std for law in self.refits(weights, metrics, _without_each(folds), noise)]
        )
        scale = metrics.std(0)
        estimators = self._fitted(weights, metrics / scale, importance(metrics, noise))
        return FittedEach(estimators, np.sqrt(np.square(unseen).mean(0)), scale)

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> list[FittedEach]:
        """(B,) fits, each to the runs that its row of the (B, K) booleans keeps; its deviation is of the others."""
        trust, scale, laws = importance(metrics, noise), metrics.std(0), []
        for rows in kept:
            estimators = self._fitted(weights[rows], metrics[rows] / scale, trust[rows])
            alone = FittedEach(estimators, np.zeros(metrics.shape[1]), scale)
            away = alone.predict(weights[~rows])[0] - metrics[~rows] if not rows.all() else np.zeros((1, 1))
            laws.append(replace(alone, residual_std=alone.residual_std + np.sqrt(np.square(away).mean(0))))
        return laws

    def _fitted(self, weights: np.ndarray, metrics: np.ndarray, trust: np.ndarray) -> tuple[Any, ...]:
        weighs = "sample_weight" in inspect.signature(self.estimator.fit).parameters  # pyright: ignore[reportAttributeAccessIssue]
        fits = []
        for metric, own in zip(metrics.T.copy(), trust.T.copy(), strict=True):  # SVR takes no strides
            estimator: Any = clone(self.estimator)
            try:
                fits.append(estimator.fit(weights, metric, **({"sample_weight": own} if weighs else {})))
            except ValueError as fault:
                raise InvalidSetting(
                    f"{_name(self.estimator)} cannot be fitted to these runs: {fault}; ask for another regression",
                    field="regression",
                ) from fault
        return tuple(fits)


def regressor_named(name: str) -> FromScikitLearn:
    """scikit-learn's regressor of that class name with its default settings, and a random state of 0.

    Raises:
        InvalidSetting: there is none, or it has no defaults.
    """
    known = dict(all_estimators(type_filter="regressor"))
    if name not in known:
        raise InvalidSetting(
            f"scikit-learn has no regressor {name!r}; it has {', '.join(sorted(known))}", field="regression"
        )
    parameters = inspect.signature(known[name]).parameters
    settings = {"random_state": 0} if "random_state" in parameters else {}
    try:
        return FromScikitLearn(known[name](**settings))
    except TypeError as fault:
        raise InvalidSetting(
            f"scikit-learn's {name} is made of other estimators and has no defaults; in Python, wrap one of yours"
            " with mixing.laws.scikit_learn.FromScikitLearn",
            field="regression",
        ) from fault


def _name(estimator: BaseEstimator) -> str:
    return type(estimator).__name__


def _without_each(folds: np.ndarray) -> np.ndarray:
    """(F, K) booleans: the runs outside each fold."""
    return folds[None, :] != np.arange(_FOLDS)[:, None]
