"""Boosted trees (LightGBM), as RegMix and CLIMB predict a mixture's metrics.

RegMix (arXiv 2407.01492): gradient boosting at a learning rate of 0.01, 1000 rounds, stopped early after 3 rounds
without improvement on a validation part. The published notebook stops on its test runs; here the part is cut from the
runs themselves. CLIMB (arXiv 2504.13161): shallow trees with L1 and L2 penalties.

LightGBM wants 20 runs in every leaf. Of 34 runs that leaves no split at all and a constant prediction, so unless told
otherwise a leaf holds a tenth of the runs here, from 3 to 20. Once the validation part has said after how many rounds
to stop, the trees are grown again on all runs: a tenth more evidence costs nothing in overfitting.

Trees have no gradient and are flat outside the runs' range. One tree ensemble a task, on one thread, deterministic.
"""

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.regression import FittedEach, Regression, importance
from mixing.objective import USUAL_SPREAD

_FEWEST_RUNS = 10
"""Two leaves of 3 runs, and at least 2 runs that decide when to stop."""


@dataclass(frozen=True)
class Trees(Regression):
    """The regression; its defaults are RegMix's, as published but for the validation part and the runs in a leaf.

    Attributes:
        rounds: most trees.
        learning_rate: what each adds.
        patience: rounds without improvement on the validation part after which to stop.
        validation_share: of the runs, in the validation part.
        leaves: most leaves of a tree.
        depth: of a tree; None for any.
        runs_per_leaf: fewest; None for a tenth of the runs, from 3 to 20.
        l1: penalty on the size of a leaf's value.
        l2: penalty on its square.
        seed: of the validation part and of LightGBM.

    Raises:
        InvalidSetting: a setting outside its range.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = Trees().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> mean.shape
    (20, 1)
    """

    title = "trees"

    rounds: int = 1000
    learning_rate: float = 0.01
    patience: int = 3
    validation_share: float = 0.1
    leaves: int = 31
    depth: int | None = None
    runs_per_leaf: int | None = None
    l1: float = 0.0
    l2: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "patience", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InvalidSetting(f"{name} is {getattr(self, name)}; it must be above 0", field=name)
        if not 0 < self.validation_share <= 0.5:
            raise InvalidSetting(
                f"validation_share is {self.validation_share}; it must be above 0 and at most 0.5",
                field="validation_share",
            )

    def runs_to_fit(self, domains: int) -> int:
        """Enough for a split and a validation part; trees do not count domains."""
        return _FEWEST_RUNS

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedEach:
        """Fit every task to (K, m) mixtures and (K, T) metrics, finite, with (K, T) deviations where known.

        Raises:
            TooFewRuns: K < 10.
            InvalidMetrics: a metric that is not finite, or that is constant.
        """
        self.check(weights, metrics)
        trust = importance(metrics, noise)
        order = np.random.default_rng(self.seed).permutation(len(weights))
        held = max(2, round(self.validation_share * len(weights)))
        # LightGBM counts in single precision, and its penalties in the unit of what it predicts.
        level, scale = metrics.mean(0), metrics.std(0) / USUAL_SPREAD
        grown = [
            self._grow(weights, values, own, order[:held], order[held:])
            for values, own in zip(((metrics - level) / scale).T, trust.T, strict=True)
        ]
        errors = scale * np.array([error for _, error in grown])
        return FittedEach(tuple(trees for trees, _ in grown), errors, scale, level)

    def _grow(
        self,
        weights: np.ndarray,
        metric: np.ndarray,
        trust: np.ndarray,
        validation: np.ndarray,
        training: np.ndarray,
    ) -> tuple[lightgbm.Booster, float]:
        """One task's ensemble on all runs, and its error on the validation part before it saw that."""
        settings = self._settings(len(weights))

        def data(runs: np.ndarray | slice) -> lightgbm.Dataset:
            return lightgbm.Dataset(weights[runs], metric[runs], weight=trust[runs], params=settings)

        trial = lightgbm.train(
            settings,
            data(training),
            self.rounds,
            valid_sets=[data(validation)],
            callbacks=[lightgbm.early_stopping(self.patience, verbose=False)],
        )
        kept = trial.best_iteration
        away = np.asarray(trial.predict(weights[validation], num_iteration=kept)) - metric[validation]
        return lightgbm.train(settings, data(slice(None)), kept), float(np.sqrt(np.square(away).mean()))

    def _settings(self, runs: int) -> dict[str, Any]:
        tenth = min(20, max(3, runs // 10))
        return {
            "objective": "regression",
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "max_depth": self.depth or -1,
            "min_data_in_leaf": self.runs_per_leaf or tenth,
            "min_data_in_bin": 1,
            "lambda_l1": self.l1,
            "lambda_l2": self.l2,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": self.seed,
            "verbosity": -1,
        }


@dataclass(frozen=True)
class ClimbTrees(Trees):
    """CLIMB's: depth 4, L1 and L2, 5 runs a leaf or more, as published; the sizes of the penalties are ours."""

    patience: int = 20
    validation_share: float = 0.2
    leaves: int = 16
    depth: int | None = 4
    runs_per_leaf: int | None = 5
    l1: float = 0.1
    l2: float = 0.1
