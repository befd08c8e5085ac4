"""Several regressions averaged, each task by what cross-validation says of them.

A task's share of a member falls with the cube of the member's held-out mean absolute error. Members about as
good count about equally: that beats choosing the best one, and beats stacking by least squares, for with few runs
held-out errors say little of small differences. A member five times as bad hardly counts.

An average of convex laws is convex, and its best mixture can be certified. So the convex members are averaged alone
unless there is a task that all of them together predict better by `WORTH_SEARCHING`. It is all tasks or none: one
that keeps the others takes the certificate from the whole law, and then the others help every task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.composed import added
from mixing.laws.linear import LinearLaw
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.processes.gaussian_process import GaussianProcess
from mixing.laws.regression import Expansion, Fitted, Refitted, Regression, importance

_STEEPNESS = 3
_USUAL_NOISE = 0.05  # of a metric's deviation over the runs
MOST_WORK = 1e6
"""About 7 CPU seconds of a proposal: of 512 runs with 13 tasks over 17 domains, or of 100 with 70 over 30."""
WORTH_SEARCHING = 0.05
"""Share of a task's held-out error by which the members that are not convex must lower it to be asked."""


@dataclass(frozen=True)
class FittedEnsemble(Fitted):
    """The members' fits and what they count.

    Attributes:
        members: those that had enough runs and count for some task.
        shares: (M, T), each task's summing to 1.
        held_out_error: (M, T) cross-validated mean absolute error, in the metric's unit; NaN for one that is alone.
        names: (M,) of the members.
        absent: those that would have taken too long, in words.
    """

    members: tuple[Fitted, ...]
    shares: np.ndarray
    held_out_error: np.ndarray
    names: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, both (n, T), of (n, m) mixtures.

        The variance is that of the mixture of the members: their own variances, and how far they disagree.
        """
        predictions = [member.predict(weights) for member in self.members]
        means, deviations = (np.stack(part) for part in zip(*predictions, strict=True))
        shares = self.shares[:, None, :]
        mean = (shares * means).sum(0)
        variance = (shares * (deviations**2 + (means - mean) ** 2)).sum(0)
        return mean, np.sqrt(variance)

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) the mean alone."""
        return np.einsum("mt,mnt->nt", *self.by_member(weights))

    def by_member(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, T) shares and (M, n, T) means of the members."""
        return self.shares, np.stack([member.mean(weights) for member in self.members])

    def unfinished(self) -> np.ndarray:
        """(u,) the tasks for which a member's fit ran out of iterations before it reached a minimum."""
        return np.unique(np.concatenate([member.unfinished() for member in self.members]))

    def parts(self) -> tuple[dict[str, float], ...]:
        """(T,) `{member: its share}`, without those that do not count."""
        return tuple(
            {name: float(share) for name, share in zip(self.names, column, strict=True) if share > 0}
            for column in self.shares.T
        )

    def notes(self) -> tuple[str, ...]:
        """Which members stayed out, and why."""
        return self.absent

    @property
    def has_gradient(self) -> bool:
        """Whether every member has one."""
        return all(member.has_gradient for member in self.members)

    @property
    def is_convex(self) -> bool:
        """Whether every member is."""
        return all(member.is_convex for member in self.members)

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one (m,) mixture, for (T,) non-negative task weights.

        Raises:
            InvalidSetting: a member is not convex.
        """
        return added(
            [
                member.expand(weights, shares * task_weights)
                for member, shares in zip(self.members, self.shares, strict=True)
            ]
        )

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


PROCESSES = {"Gaussian process", "Gaussian process around the effective power law"}
"""Names of the default members that are not convex."""


def _members() -> dict[str, Regression]:
    law = EffectivePowerLaw()
    return {
        "linear": LinearLaw(),
        "effective power": law,
        "Gaussian process": GaussianProcess(),
        "Gaussian process around the effective power law": GaussianProcess(mean=law),
    }


@dataclass(frozen=True)
class Ensemble(Regression):
    """The regression and its settings; see the module for what they mean.

    Attributes:
        members: by name, at least one; those that need more runs than there are stay out. By default a linear law,
            which can say that a domain harms, and overfits least where measurements are mostly noise; the effective
            power law, which extrapolates and needs the fewest runs; a Gaussian process, which learns what no law has;
            and these two together.
        folds: of the cross-validation.
        repeats: of it, over different folds.
        seed: of the folds.
        most_work: above which a member stays out where there is another (`Regression.work`).

    >>> members = {"law": EffectivePowerLaw(), "process": GaussianProcess()}
    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = Ensemble(members).fit(weights, bits).predict(weights)
    >>> mean.shape
    (20, 1)
    """

    members: Mapping[str, Regression] = field(default_factory=_members)
    folds: int = 5
    repeats: int = 2
    seed: int = 0
    most_work: float = MOST_WORK

    def __post_init__(self) -> None:
        if not self.members:
            raise InvalidSetting("an ensemble needs at least one member", field="members")

    def runs_to_fit(self, domains: int) -> int:
        """Those of its least demanding member, which is alone where none could be judged without a fold."""
        return min(member.runs_to_fit(domains) for member in self.members.values())

    def fit(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None
    ) -> FittedEnsemble:
        """Fit every member that has enough runs to (K, m) mixtures and (K, T) metrics, and weigh them.

        Args:
            weights: rows on the simplex.
            metrics: what was measured.
            noise: (K, T) standard deviation of each measurement, 0 where unknown.

        Raises:
            TooFewRuns: no member has enough runs for any fit.
            InvalidMetrics: a metric that a member cannot work with.
        """
        nothing = np.empty((0, len(weights)), dtype=bool)
        whole = self.fit_and_refit(weights, metrics, nothing, noise).whole
        assert isinstance(whole, FittedEnsemble)
        return whole

    def held_out(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> np.ndarray:
        """(B, K, T) predictions at all K runs by B fits, each to the runs its row of the (B, K) booleans keeps.

        The members are fitted without the other runs; what each counts is decided once, by all runs.
        """
        return self.fit_and_refit(weights, metrics, kept, noise).predicted

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> Sequence[Fitted]:
        """(B,) fits, each to the runs that its row of the (B, K) booleans keeps.

        What each member counts is decided once, by all runs.
        """
        return self.fit_and_refit(weights, metrics, kept, noise).parts

    def fit_and_refit(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        known: Sequence[tuple[Regression, Fitted]] = (),
    ) -> Refitted:
        """What `fit` and `refits` give, every member fitted to all runs once.

        Where the (B, K) booleans leave every run out equally often they are the folds by which members are weighed.
        """
        absent = self._too_long(len(weights), weights.shape[1], metrics.shape[1])
        if absent:
            rest = {name: member for name, member in self.members.items() if name not in absent}
            found = replace(self, members=rest).fit_and_refit(weights, metrics, kept, noise, known)
            sizes = f"{weights.shape[0]} runs, {weights.shape[1]} domains and {metrics.shape[1]} tasks"
            note = f"For {sizes} these would have taken too long, and had no part in the law: {', '.join(absent)}."
            assert isinstance(found.whole, FittedEnsemble)
            return replace(found, whole=replace(found.whole, absent=(note,)))
        self._able(len(weights), weights.shape)
        folds = self._folds(kept)
        masks = kept if folds is kept else np.concatenate([folds, kept])
        fewest = int(masks.sum(1).min())
        able = self._able(fewest, weights.shape)
        if fewest < self.runs_to_fit(weights.shape[1]):  # one alone, which no fold can judge
            ((name, member),) = able.items()
            return _alone(name, member.fit_and_refit(weights, metrics, kept, noise, known))
        results: list[Refitted] = []
        for member in able.values():
            results.append(member.fit_and_refit(weights, metrics, masks, noise, known))
            known = (*known, (member, results[-1].whole))
        predicted = np.stack([each.predicted for each in results])
        missed = np.where(~folds[:, :, None], predicted[:, : len(folds)] - metrics, 0.0)
        missed *= importance(metrics, noise, _USUAL_NOISE * metrics.std(0))  # a doubtful run judges nobody
        convex = np.array([each.whole.is_convex for each in results])
        shares, errors = _shares(missed, convex, (~folds).sum())
        used = np.flatnonzero(shares.any(axis=1))
        names = tuple(able)

        def of(members: Sequence[Fitted]) -> FittedEnsemble:
            return FittedEnsemble(tuple(members), shares[used], errors[used], tuple(names[at] for at in used))

        first = len(masks) - len(kept)
        parts = (of([results[at].parts[row] for at in used]) for row in range(first, len(masks)))
        return Refitted(
            of([results[at].whole for at in used]),
            tuple(parts),
            np.einsum("mt,mbkt->bkt", shares, predicted[:, first:]),
        )

    def _folds(self, kept: np.ndarray) -> np.ndarray:
        """(F, K) booleans of the runs that are kept where members are weighed: `kept` itself where it can serve."""
        left_out = (~kept).sum(axis=0)
        if len(kept) and left_out[0] > 0 and (left_out == left_out[0]).all():
            return kept
        generator = np.random.default_rng(self.seed)
        return ~fold_masks(kept.shape[1], self.folds, self.repeats, generator)

    def _too_long(self, runs: int, domains: int, tasks: int) -> list[str]:
        """Names of the members that so much is too much for; none where it is for all."""
        found = [
            name
            for name, member in self.members.items()
            if member.work(runs, domains, tasks) > self.most_work
        ]
        return found if len(found) < len(self.members) else []

    def _able(self, fewest: int, shape: tuple[int, ...]) -> dict[str, Regression]:
        """The members that can be fitted to the smallest part of the (K, m) runs.

        Where there is none, the least demanding, by itself: it can be fitted to all of them.
        """
        runs, domains = shape
        able = {
            name: member for name, member in self.members.items() if fewest >= member.runs_to_fit(domains)
        }
        needed = self.runs_to_fit(domains)
        if not able and runs >= needed:
            return dict([min(self.members.items(), key=lambda item: item[1].runs_to_fit(domains))])
        if not able:
            raise TooFewRuns(
                f"{runs} runs are too few for any member of the ensemble over {domains} domains; it needs"
                f" {needed}",
                needed=needed,
                given=runs,
            )
        return able


def work(runs: int, domains: int, tasks: int) -> float:
    """Of the member that takes longest, as `MOST_WORK` has it."""
    return max(member.work(runs, domains, tasks) for member in Ensemble().members.values())


def fold_masks(runs: int, folds: int, repeats: int, generator: np.random.Generator) -> np.ndarray:
    """(repeats folds, K) booleans: the runs of each fold; each repeat has every run in one of its folds."""
    folds = min(folds, runs)
    assignment = np.stack([generator.permutation(runs) % folds for _ in range(repeats)])
    return (assignment[:, None, :] == np.arange(folds)[None, :, None]).reshape(-1, runs)


def _alone(name: str, found: Refitted) -> Refitted:
    """An ensemble of one member, which nothing was held against."""
    whole = np.ones((1, found.predicted.shape[-1]))
    ensemble = FittedEnsemble((found.whole,), whole, np.nan * whole, (name,))
    parts = tuple(replace(ensemble, members=(part,)) for part in found.parts)
    return Refitted(ensemble, parts, found.predicted)


def _shares(missed: np.ndarray, convex: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, T) shares and held-out errors.

    Args:
        missed: (M, F, K, T) by how much each member missed the `count` runs of the folds left out, 0 elsewhere.
        convex: (M,) whether the member is.
        count: runs left out, over all folds.
    """
    errors = np.abs(missed).sum((1, 2)) / count
    shares = _falling(errors)
    if convex.any() and not convex.all():
        alone = np.zeros_like(shares)
        alone[convex] = _falling(errors[convex])
        together, apart = (
            np.abs(np.einsum("mt,mfkt->fkt", each, missed)).sum((0, 1)) for each in (shares, alone)
        )
        if (together >= (1 - WORTH_SEARCHING) * apart).all():
            shares = alone
    return shares, errors


def _falling(error: np.ndarray) -> np.ndarray:
    """(M, T) shares that fall with (M, T) errors; an exact member takes all."""
    relative = error / np.maximum(error.min(0), 1e-300)
    shares = np.maximum(relative, 1) ** -_STEEPNESS
    return shares / shares.sum(0)
