"""What a gain at the proxies' size and length is worth at another: each task's law carried there by an affine map.

    y_t(p; N, D) = a_t(N, D) + exp(l_t(N, D)) f_t(p),   f_t the law of the proxies, l_t = 0 there

The map is increasing, so a law that is convex in the mixture stays so, and a solve at the target is the proxies'
solve with each task weighing exp(l_t). On the published models of RegMix (arXiv 2407.01492) it is what happens: from
1M to 60M parameters, and to 1B on 25 times the tokens, losses are an affine function of the 1M losses with
correlations of .97 to 1.00, while the slopes are .47 to .98 and .34 to .67. So tasks keep their order of mixtures,
and their mean over tasks does not.

l_t is a Gaussian process over (u, v), the doublings of parameters and of tokens, a drift and a random walk in each:

    cov(l(u, v), l(u', v')) = DRIFT^2 (u u' + v v') + WALK^2 (min(|u|, |u'|) [same side] + likewise of v)
                              + OWN^2 [of one scale, not the proxies']

The root mean square of the published l is .32 over 5.9 doublings of the parameters (13 losses) and .84 over 10 of the
parameters and 4.6 of the tokens (7 losses). WALK alone allows the first, with DRIFT beside it just the second. Where
nothing else is known that is all that is said of the transfer, either way: gains may grow as well as shrink.

Runs of other sizes and lengths (anchors) tell more: per task and scale the slope of what they measured on f_t, with a
free level, by least squares whose residuals have a Student-t likelihood of an unknown scale. Before an anchor is seen
that scale is RESIDUAL of the task's spread, the published maps' root mean square.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize

from mixing.inverses import posterior_covariance, pseudo_roots
from mixing.laws.diagnostics import rank_correlation

DRIFT, WALK = 0.061, 0.13
"""Deviation of l for each doubling, and for the square root of each; see the module."""
OWN = 0.02
"""Of each scale's own: parameters and tokens need not act apart."""
SHARED = 0.75
"""Of the variance of l what all tasks share: .57 and .91 of the squares of the two published pairs."""
RESIDUAL = 0.15
"""Deviation of what the map misses, of a task's spread over the runs; see the module."""
_DEVIATIONS = 1.6449
"""Half the width of a 90% interval of a normal distribution, in standard deviations."""
_TRUST = 4.0
"""Anchors that the residual's expected scale counts for."""
CARRIED = "carried"
"""Name of the law that this module makes, beside those of `mixing.laws.scaling`."""
FEWEST_ANCHORS = 3
"""Different mixtures at a scale: a level, a slope, and one to see that there is a line."""


@dataclass(frozen=True)
class Anchors:
    """Runs of one other size and length.

    Attributes:
        scale: parameters and tokens, in units of the proxies'.
        weights: (n, m) mixtures.
        metrics: (n, C) lower is better; NaN where one was not measured.
    """

    scale: tuple[float, float]
    weights: np.ndarray
    metrics: np.ndarray

    @property
    def mixtures(self) -> int:
        """How many different ones there are."""
        return len(np.unique(np.round(self.weights, 9), axis=0))

    @property
    def is_told_apart(self) -> bool:
        """Whether so many different mixtures tell the scale from the proxies'."""
        return self.mixtures >= FEWEST_ANCHORS


@dataclass(frozen=True)
class Transfer:
    """What gains of C columns at the proxies are worth at the target.

    Attributes:
        factors: (C,) the expected exp(l), its median.
        unknown: deviation of l that no anchor explains, the same for every column.
        measured: (C,) deviation of l from how well the anchors' slopes are known; 0 without any.
        residual: (C,) deviation of what the map misses of one mixture, at the proxies' scale, in the metric's unit.
        agreement: (C,) lowest rank correlation over the anchors' scales of predicted and measured; NaN where none.
        anchors: how many there are.
        left_out: those of scales with too few mixtures to be told from the others: they count for nothing.
        law: what the factors are told by.
        errors: `{law: its error at the largest scale, fitted without it}`, where one could be left out.
    """

    factors: np.ndarray
    unknown: float
    measured: np.ndarray
    residual: np.ndarray
    agreement: np.ndarray
    anchors: int
    left_out: tuple[Anchors, ...] = ()
    law: str = CARRIED
    errors: Mapping[str, float] = field(default_factory=dict)


def doublings(scale: tuple[float, float]) -> np.ndarray:
    """(2,) of the parameters and of the tokens."""
    return np.log2(np.asarray(scale, float))


def prior(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, k) covariance of l between (n, 2) and (k, 2) doublings."""
    one, other = first[:, None, :], second[None, :, :]
    walk = np.where(one * other > 0, np.minimum(np.abs(one), np.abs(other)), 0.0)
    own = np.isclose(one, other).all(axis=2) & (np.abs(one) > 0).any(axis=2)
    return (DRIFT**2 * one * other + WALK**2 * walk).sum(axis=2) + OWN**2 * own


def unknown_after(target: tuple[float, float], anchors: Sequence[tuple[float, float]] = ()) -> float:
    """Deviation of l at the target once it is known at the anchors' scales: what these are worth, before they run."""
    at, known = doublings(target)[None], np.array([doublings(scale) for scale in anchors]).reshape(-1, 2)
    left = prior(at, at)[0, 0]
    if len(known):
        across = prior(at, known)
        left -= np.square(across @ pseudo_roots(prior(known, known))[1]).sum()
    return float(np.sqrt(max(left, 0.0)))


def factor_interval(deviation: float) -> tuple[float, float]:
    """Ends of the 90% interval of exp(l) about its median, in units of that."""
    return float(np.exp(-_DEVIATIONS * deviation)), float(np.exp(_DEVIATIONS * deviation))


@dataclass(frozen=True)
class ToKnow:
    """Anchors worth having, and the interval of exp(l) at the target before and after them.

    Attributes:
        runs: how many.
        parameters: of each one's model.
        tokens: that each trains.
        unknown: ends of the interval without them, in units of its median.
        known: with them, as far as their number lets their own slopes be known.
    """

    runs: int
    parameters: float
    tokens: float
    unknown: tuple[float, float]
    known: tuple[float, float]


def halfway(target: tuple[float, float], proxy: tuple[float, float]) -> ToKnow:
    """The anchors half way to the target as doublings count: a root of what the target costs, for most of the answer.

    Args:
        target: its parameters and tokens.
        proxy: those of a whole proxy run.
    """
    scale = target[0] / proxy[0], target[1] / proxy[1]
    half = float(np.sqrt(scale[0])), float(np.sqrt(scale[1]))
    return ToKnow(
        FEWEST_ANCHORS + 1,
        half[0] * proxy[0],
        half[1] * proxy[1],
        factor_interval(unknown_after(scale)),
        factor_interval(unknown_after(scale, [half] if scale != (1.0, 1.0) else [])),
    )


def transfer(
    target: tuple[float, float],
    anchors: Sequence[Anchors],
    predicted: Sequence[np.ndarray],
    spreads: np.ndarray,
) -> Transfer:
    """What C columns' gains are worth at the target.

    Args:
        target: parameters and tokens, in units of the proxies'.
        anchors: one a scale.
        predicted: for each the (n, C) predictions of its mixtures by the law of the proxies.
        spreads: (C,) standard deviation of each column over the proxies' runs.
    """
    columns = len(spreads)
    logs, errors, residual = np.zeros(columns), np.zeros(columns), RESIDUAL * spreads
    told = [one.is_told_apart for one in anchors]
    left_out = tuple(one for one, apart in zip(anchors, told, strict=True) if not apart)
    predicted = [guess for guess, apart in zip(predicted, told, strict=True) if apart]
    anchors = [one for one, apart in zip(anchors, told, strict=True) if apart]
    scales = [one.scale for one in anchors]
    for column in range(columns):
        lines = [
            line
            for one, guess in zip(anchors, predicted, strict=True)
            if (line := _Line.of(one, guess[:, column], one.metrics[:, column], spreads[column])) is not None
        ]
        if lines:
            logs[column], errors[column], share = _carried(lines, doublings(target)[None])
            residual[column] = share * spreads[column]
    return Transfer(
        factors=np.exp(logs),
        unknown=unknown_after(target, scales),
        measured=errors,
        residual=residual,
        agreement=_agreement(anchors, predicted, columns),
        anchors=sum(len(one.weights) for one in anchors),
        left_out=left_out,
    )


@dataclass(frozen=True)
class _Line:
    """Sums of squares about their means of n predictions x and measurements y, in the task's spread."""

    at: np.ndarray
    runs: int
    xx: float
    xy: float
    yy: float

    @classmethod
    def of(cls, anchors: Anchors, guess: np.ndarray, measured: np.ndarray, spread: float) -> "_Line | None":
        known = np.isfinite(measured)
        if known.sum() < FEWEST_ANCHORS:
            return None
        x, y = ((values[known] - values[known].mean()) / spread for values in (guess, measured))
        return cls(doublings(anchors.scale), int(known.sum()), float(x @ x), float(x @ y), float(y @ y))


def _carried(lines: Sequence[_Line], target: np.ndarray) -> tuple[float, float, float]:
    """l of one task at the target, its deviation, and the residual's, in the task's spread and at the proxies' scale.

    The posterior's mode of l at the anchors, with the curvature there by Gauss and Newton.
    """
    at = np.array([line.at for line in lines])
    xx, xy, yy = np.array([[line.xx, line.xy, line.yy] for line in lines]).T
    root, inverse = pseudo_roots(prior(at, at))  # l = root z, z standard normal
    expected, runs = _TRUST * RESIDUAL**2, _TRUST + sum(line.runs - 1 for line in lines)

    def squares(logs: np.ndarray) -> tuple[np.ndarray, float]:
        slopes = np.exp(logs)
        return slopes, expected + float((yy - 2 * slopes * xy + slopes**2 * xx).sum())

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        slopes, total = squares(root @ z)
        gradient = z + (runs * slopes * (slopes * xx - xy) / total) @ root
        return 0.5 * float(z @ z) + 0.5 * runs * np.log(total), gradient

    z = minimize(loss, np.zeros(len(lines)), jac=True, method="BFGS").x
    slopes, total = squares(root @ z)
    told = (root.T * (runs * slopes**2 * xx / total)) @ root
    covariance = posterior_covariance(told[None], np.eye(len(z)))[0]
    reach = prior(target, at) @ inverse
    relative = np.sqrt((expected + ((yy - 2 * slopes * xy + slopes**2 * xx) / slopes**2).sum()) / runs)
    return float((reach @ z)[0]), float(np.sqrt((reach @ covariance @ reach.T)[0, 0])), float(relative)


def _agreement(anchors: Sequence[Anchors], predicted: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """(C,) lowest Spearman correlation over the scales; NaN where no scale measured a column often enough."""
    lowest = np.full(columns, np.nan)
    for one, guess in zip(anchors, predicted, strict=True):
        for column in range(columns):
            known = np.isfinite(one.metrics[:, column])
            if known.sum() >= FEWEST_ANCHORS:
                both = guess[known][:, [column]], one.metrics[known][:, [column]]
                lowest[column] = np.fmin(lowest[column], rank_correlation(*both)[0])
    return lowest
