"""Several regressions averaged, each task by what cross-validation says of them.

A task's share of a member falls with the square of the member's held-out mean absolute error. Members about as
good count about equally: on the published RegMix swarm that beats choosing the best one, and beats stacking by least
squares, for with few runs held-out errors say little of small differences. A member ten times as bad hardly counts.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.processes.gaussian_process import GaussianProcess
from mixing.laws.regression import Fitted, Regression

_STEEPNESS = 2


@dataclass(frozen=True)
class FittedEnsemble(Fitted):
    """The members' fits and what they count.

    Attributes:
        members: those that had enough runs.
        shares: (M, T), each task's summing to 1.
        held_out_error: (M, T) cross-validated mean absolute error, in the metric's unit.
    """

    members: tuple[Fitted, ...]
    shares: np.ndarray
    held_out_error: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, both (n, T), of (n, m) mixtures.

        The variance is that of the mixture of the members: their own variances, and how far they disagree.
        """
        means, deviations = (np.stack(part) for part in zip(*self._predictions(weights), strict=True))
        shares = self.shares[:, None, :]
        mean = (shares * means).sum(0)
        variance = (shares * (deviations**2 + (means - mean) ** 2)).sum(0)
        return mean, np.sqrt(variance)

    def unfinished(self) -> np.ndarray:
        """(u,) the tasks for which a member's fit ran out of iterations before it reached a minimum."""
        return np.unique(np.concatenate([member.unfinished() for member in self.members]))

    @property
    def has_gradient(self) -> bool:
        """Whether every member has one."""
        return all(member.has_gradient for member in self.members)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j of the mean.

        Raises:
            InvalidSetting: a member has no gradient.
        """
        gradients = []
        for member in self.members:
            if not member.has_gradient:
                raise InvalidSetting(
                    f"{type(member).__name__}, a member of the ensemble, has no gradient", field="members"
                )
            gradients.append(member.gradient(weights))
        return np.einsum("mt,mntj->ntj", self.shares, np.stack(gradients))

    def _predictions(self, weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [member.predict(weights) for member in self.members]


def _members() -> tuple[Regression, ...]:
    law = EffectivePowerLaw()
    return law, GaussianProcess(), GaussianProcess(mean=law)


@dataclass(frozen=True)
class Ensemble(Regression):
    """The regression and its settings; see the module for what they mean.

    Attributes:
        members: at least one; those that need more runs than there are stay out. By default the convex law, which
            extrapolates and needs the fewest runs; a Gaussian process, which learns what no law has; and the two
            together.
        folds: of the cross-validation.
        repeats: of it, over different folds.
        seed: of the folds.

    >>> members = (EffectivePowerLaw(), GaussianProcess())
    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = Ensemble(members).fit(weights, bits).predict(weights)
    >>> mean.shape
    (20, 1)
    """

    members: tuple[Regression, ...] = field(default_factory=_members)
    folds: int = 5
    repeats: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.members:
            raise InvalidSetting("an ensemble needs at least one member", field="members")

    def runs_to_fit(self, domains: int) -> int:
        """Those of its least demanding member, when the largest fold is left out."""
        least = min(member.runs_to_fit(domains) for member in self.members)
        return -(-least * self.folds // (self.folds - 1))

    def fit(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None
    ) -> FittedEnsemble:
        """Fit every member that has enough runs to (K, m) mixtures and (K, T) metrics, and weigh them.

        Args:
            weights: rows on the simplex.
            metrics: what was measured.
            noise: (K, T) standard deviation of each measurement, 0 where unknown.

        Raises:
            TooFewRuns: no member has enough runs.
            InvalidMetrics: a metric that a member cannot work with.
        """
        nothing = np.empty((0, len(weights)), dtype=bool)
        return self.fit_and_hold_out(weights, metrics, nothing, noise)[0]

    def held_out(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> np.ndarray:
        """(B, K, T) predictions at all K runs by B fits, each to the runs its row of the (B, K) booleans keeps.

        The members are fitted without the other runs; what each counts is decided once, by all runs.
        """
        return self.fit_and_hold_out(weights, metrics, kept, noise)[1]

    def refits(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> list[FittedEnsemble]:
        """(B,) fits, each to the runs that its row of the (B, K) booleans keeps.

        What each member counts is decided once, by all runs.
        """
        fitted = self.fit(weights, metrics, noise)
        members = self._able(int(kept.sum(1).min()), weights.shape)
        if len(members) < len(fitted.members):
            return [
                self.fit(weights[rows], metrics[rows], None if noise is None else noise[rows])
                for rows in kept
            ]
        fits = [member.refits(weights, metrics, kept, noise) for member in members]
        return [replace(fitted, members=tuple(each)) for each in zip(*fits, strict=True)]

    def fit_and_hold_out(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> tuple[FittedEnsemble, np.ndarray]:
        """What `fit` and `held_out` give, every member fitted to all runs once."""
        runs = len(weights)
        left_out = fold_masks(runs, self.folds, self.repeats, np.random.default_rng(self.seed))
        masks = np.concatenate([~left_out, kept])
        members, errors, asked = [], [], []
        for member in self._able(int(masks.sum(1).min()), weights.shape):
            fitted, predicted = member.fit_and_hold_out(weights, metrics, masks, noise)
            missed = np.abs(predicted[: len(left_out)] - metrics) * left_out[:, :, None]
            members.append(fitted)
            errors.append(missed.sum((0, 1)) / left_out.sum())
            asked.append(predicted[len(left_out) :])
        shares = _shares(np.stack(errors))
        ensemble = FittedEnsemble(tuple(members), shares, np.stack(errors))
        return ensemble, np.einsum("mt,mbkt->bkt", shares, np.stack(asked))

    def _able(self, fewest: int, shape: tuple[int, ...]) -> list[Regression]:
        """The members that can be fitted to the smallest part of the (K, m) runs."""
        runs, domains = shape
        able = [member for member in self.members if fewest >= member.runs_to_fit(domains)]
        if not able:
            needed = self.runs_to_fit(domains)
            raise TooFewRuns(
                f"{runs} runs are too few for any member of the ensemble over {domains} domains; it needs"
                f" {needed}",
                needed=needed,
                given=runs,
            )
        return able


def fold_masks(runs: int, folds: int, repeats: int, generator: np.random.Generator) -> np.ndarray:
    """(repeats folds, K) booleans: the runs of each fold; each repeat has every run in one of its folds."""
    folds = min(folds, runs)
    assignment = np.stack([generator.permutation(runs) % folds for _ in range(repeats)])
    return (assignment[:, None, :] == np.arange(folds)[None, :, None]).reshape(-1, runs)


def _shares(error: np.ndarray) -> np.ndarray:
    """(M, T) of (M, T) errors; an exact member takes all."""
    relative = error / np.maximum(error.min(0), 1e-300)
    shares = np.maximum(relative, 1) ** -_STEEPNESS
    return shares / shares.sum(0)
