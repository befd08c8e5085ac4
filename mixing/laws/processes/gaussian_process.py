"""Gaussian processes over mixtures, for all tasks at once.

    log(y_t(p) - C_t) = mean_t(p) + g_t(phi(p)) + noise

g has a Matern 5/2 covariance with one length scale per domain on a feature map phi: the first traces of a domain
change a loss more than the next, so a root or a logarithm of the weights does far better than the weights. The noise
is Student-t: each run's Gaussian noise is widened by its own leave-one-out residual, in turns with the
hyperparameters, which are those of the highest marginal likelihood under weak normal priors.

The mean is a constant, with C half a standard deviation below the lowest metric, or a regression:

- the effective power law is fitted **together** with g: linear around its own fit, its parameters have their prior,
  so the process knows what the law could still have explained, and leave-one-out leaves a run out of both;
- any other is fitted first, and g (then of y itself) to the residuals of its predictions by five folds without the
  run, because the residuals of runs it has seen are too small.

Hyperparameters cost K^3 a step. Beyond `search_runs` runs they are searched on that many and only finished on all.
Far from all runs g returns to 0 and the mean decides: with a constant mean a process does not extrapolate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mixing.laws.powers.effective_power import EffectivePowerLaw, FittedEffectivePower
from mixing.laws.processes.descent import ProcessProblems, descend, first_curvature, posterior
from mixing.laws.processes.fitted_process import (
    FeatureMap,
    FittedProcess,
    Frame,
    constant_frame,
    law_frame,
    residual_frame,
)
from mixing.laws.regression import Fitted, Refitted, Regression

FREEDOM = 4.0
"""Degrees of freedom of the Student-t noise."""


@dataclass(frozen=True)
class ProcessPrior:
    """Normal priors (mean, standard deviation) of log hyperparameters, in units of the frame's targets."""

    length: tuple[float, float] = (1.0, 1.0)
    amplitude: tuple[float, float] = (0.5, 1.0)
    noise: tuple[float, float] = (-2.5, 1.0)
    fidelity_length: tuple[float, float] = (1.0, 1.0)

    def stacked(self, domains: int, fidelity: bool) -> tuple[np.ndarray, np.ndarray]:
        """(P,) means and standard deviations in the order of theta."""
        pairs = [self.length] * domains + [self.amplitude, self.noise] + [self.fidelity_length] * fidelity
        means, deviations = np.array(pairs).T
        return means, deviations


@dataclass(frozen=True)
class GaussianProcess(Regression):
    """The regression and its settings; see the module for what they mean.

    Attributes:
        features: what the covariance sees of a mixture.
        mean: None for a constant, or the regression whose prediction the process corrects.
        prior: of the hyperparameters; None for the usual one of its kind of mean.
        rounds: BFGS iterations before each renewal of the runs' own noise.
        search_runs: most runs on which the hyperparameters are searched.
        finishing: iterations on all runs after a search on fewer.
        again: most iterations on the runs of a refit, from the hyperparameters of all runs.
        tolerance: improvement of the log likelihood, in nats, at which a search is finished.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = GaussianProcess().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> bool(np.abs(mean - bits).max() < 0.05)
    True
    """

    title = "Gaussian process"

    features: FeatureMap = field(default_factory=FeatureMap)
    mean: Regression | None = None
    prior: ProcessPrior | None = None
    rounds: tuple[int, ...] = (20, 5, 5)
    search_runs: int = 128
    finishing: int = 3
    again: int = 2
    tolerance: float = 1e-2

    def runs_to_fit(self, domains: int) -> int:
        """8, or what the mean needs: five folds of it where it is not the effective power law."""
        if self.mean is None:
            return 8
        needed = self.mean.runs_to_fit(domains)
        return max(8, needed if isinstance(self.mean, EffectivePowerLaw) else -(-needed * 5 // 4))

    def work(self, runs: int, domains: int, tasks: int) -> float:
        """Covariances of a search's mixtures with the runs, and of the runs with each other."""
        return tasks * runs * (runs / 8 + domains + 50)

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedProcess:
        """Fit every task to (K, m) mixtures and (K, T) metrics.

        Args:
            weights: rows on the simplex.
            metrics: what was measured.
            noise: (K, T) standard deviation of each measurement, added to the noise that is fitted.

        Raises:
            TooFewRuns: K < `runs_to_fit(m)`.
            InvalidMetrics: a metric that is not finite, or that is constant.
        """
        return self._fit(weights, metrics, noise, None)

    def _fit(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None, mean: Fitted | None
    ) -> FittedProcess:
        """`fit`, where the mean may have been fitted to these runs already."""
        self.check(weights, metrics)
        frame = self._frame(weights, metrics, noise, mean)
        usual = ProcessPrior(amplitude=(0.0, 1.0), noise=(-1.0, 1.0)) if frame.law else ProcessPrior()
        return condition(replace(self, prior=self.prior or usual), frame, weights, metrics, noise)

    @property
    def fits_subsets_at_once(self) -> bool:
        """Whether its mean is fitted together with it."""
        return self.mean is None or isinstance(self.mean, EffectivePowerLaw)

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> Sequence[Fitted]:
        """(B,) fits, each to the runs that its row of the (B, K) booleans `kept` keeps.

        With a constant or the effective power law as mean the processes are conditioned on the kept runs alone, and
        their hyperparameters found by these: those of all runs have seen what is held out, and would miss it by a
        tenth to a third less than new runs. Beyond `search_runs`, of which no fold decides, they stay, which has a
        closed form; C and the point around which the law is linear are always those of all runs.
        """
        if not self.fits_subsets_at_once:
            return super().refits(weights, metrics, kept, noise)
        fitted = whole if isinstance(whole, FittedProcess) else self.fit(weights, metrics, noise)
        return self._refits(fitted, kept)

    def _refits(self, whole: FittedProcess, kept: np.ndarray) -> list[FittedProcess]:
        if len(whole.weights) > self.search_runs:
            return [whole.without(np.flatnonzero(~rows)) for rows in kept]
        return [whole.again(np.flatnonzero(rows), self.again, self.tolerance) for rows in kept]

    def fit_and_refit(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        known: Sequence[tuple[Regression, Fitted]] = (),
    ) -> Refitted:
        """What `fit` and `refits` give, at the runs without their covariances where these are known."""
        if not self.fits_subsets_at_once:
            return super().fit_and_refit(weights, metrics, kept, noise, known)
        mean = next((fitted for regression, fitted in known if regression == self.mean), None)
        whole = self._fit(weights, metrics, noise, mean)
        parts = self._refits(whole, kept)
        if len(weights) > self.search_runs:
            return Refitted(whole, tuple(parts), whole.held_out(kept))
        predicted = np.empty((len(kept), *metrics.shape))
        for number, (part, rows) in enumerate(zip(parts, kept, strict=True)):
            predicted[number, rows], predicted[number, ~rows] = part.at_runs(), part.mean(weights[~rows])
        return Refitted(whole, tuple(parts), predicted)

    def held_out(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> np.ndarray:
        """(B, K, T) predictions at all K runs by `refits`."""
        return self.fit_and_refit(weights, metrics, kept, noise).predicted

    def _frame(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None, mean: Fitted | None
    ) -> Frame:
        if self.mean is None:
            return constant_frame(metrics)
        if isinstance(self.mean, EffectivePowerLaw):
            law = mean if isinstance(mean, FittedEffectivePower) else self.mean.fit(weights, metrics, noise)
            return law_frame(law, self.mean.prior.stacked(weights.shape[1]))
        return residual_frame(self.mean, weights, metrics, noise)


def condition(
    process: GaussianProcess,
    frame: Frame,
    weights: np.ndarray,
    metrics: np.ndarray,
    noise: np.ndarray | None,
    fidelity: np.ndarray | None = None,
) -> FittedProcess:
    """Search the hyperparameters and condition the processes on the runs.

    Args:
        process: the settings.
        frame: what is modelled of the metrics, and around which mean.
        weights: (K, m).
        metrics: (K, T).
        noise: (K, T) or None.
        fidelity: (K,) the centred logarithm of each run's size, or None.
    """
    targets, columns = frame.targets(weights, metrics), frame.columns(weights, fidelity)
    base = columns @ columns.transpose(0, 2, 1)
    if noise is not None:
        diagonal = np.arange(len(weights))
        base = np.array(np.broadcast_to(base, (len(targets), *base.shape[1:])))
        base[:, diagonal, diagonal] += (noise.T * frame.rate(metrics)) ** 2
    prior = process.prior or ProcessPrior()
    centre, width = prior.stacked(weights.shape[1], fidelity is not None)
    features = process.features(weights)
    problems = ProcessProblems(features, targets, np.ones_like(targets), base, fidelity, centre, width)
    theta = np.tile(centre, (len(targets), 1))
    rounds = process.rounds
    if len(weights) > process.search_runs:
        searched = np.sort(np.random.default_rng(0).permutation(len(weights))[: process.search_runs])
        (theta, _), _ = _search(problems.runs(searched), theta, rounds, process.tolerance)
        problems = _with_own_noise(problems, theta)
        rounds = (process.finishing,)
    found, problems = _search(problems, theta, rounds, process.tolerance)
    return FittedProcess.of(process.features, frame, weights, problems, found, columns)


def _search(
    problems: ProcessProblems, theta: np.ndarray, rounds: tuple[int, ...], tolerance: float
) -> tuple[tuple[np.ndarray, np.ndarray], ProcessProblems]:
    """Hyperparameters, with what the descents learned of their curvature, and the runs' own noise, in turns."""
    found = theta, first_curvature(theta)
    for iterations in rounds:
        found = descend(problems, found[0], iterations, tolerance, found[1])
        problems = _with_own_noise(problems, found[0])
    return found, problems


def _with_own_noise(problems: ProcessProblems, theta: np.ndarray) -> ProcessProblems:
    """Each run's noise widened as the Student-t does, by how far it lies from its prediction by the others."""
    residual, variance = posterior(problems, theta).left_out()
    return replace(problems, inflation=(FREEDOM + residual**2 / variance) / (FREEDOM + 1))
