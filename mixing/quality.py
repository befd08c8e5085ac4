"""Quality upsampling: within a topic, read better text more often (Olmo 3's curve).

A topic's tokens are sorted by quality; x in [0, 1] is the share of them that is worse. Text at x is read

    f(x) = 0 for x < a,   C (x - a)^p exp(lambda (x - a)) otherwise

times. C makes the integral of f the target over the available tokens of the topic, a discards the worst text, and
the mean of f over the best bucket, which is its largest, may not exceed M. A bucket is read as often as f is on
average over it.

The bounds leave many pairs (p, lambda); the published search takes any that fits. Here it is the steepest: the share
of f in the best bucket rises with p and with lambda, so p is raised as far as M allows, from 0.01 to 2 at lambda = 0,
and then lambda, to 2 at p = 2.

The integral is exact: with y = x - a, the integral of y^p exp(lambda y) from 0 is
y^(p+1) / (p+1) M(p+1, p+2, lambda y), where M is Kummer's function and M(., ., 0) = 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import hyp1f1

from mixing.errors import Infeasible, InvalidSetting, InvalidTokens

DISCARDED = 0.4
LARGEST_FACTOR = 7.0
EXPONENTS = (0.01, 2.0)
"""Lowest and highest p."""
RATES = (0.0, 2.0)
"""Lowest and highest lambda."""
_BISECTIONS = 60
_EDGE = 1e-12


@dataclass(frozen=True)
class QualityCurves:
    """The curves of T topics over Q quality buckets, worst first.

    Attributes:
        topics: (T,) names.
        edges: (T, Q + 1) quantiles at which the buckets end, from 0 to 1.
        start: (T,) a, an edge.
        exponent: (T,) p.
        rate: (T,) lambda.
        scale: (T,) C.
    """

    topics: tuple[str, ...]
    edges: np.ndarray
    start: np.ndarray
    exponent: np.ndarray
    rate: np.ndarray
    scale: np.ndarray

    @cached_property
    def factors(self) -> np.ndarray:
        """(T, Q) how often each bucket is read; f at its place for a bucket without tokens."""
        above = np.maximum(self.edges - self.start[:, None], 0.0)
        read = self.scale[:, None] * _integral(above, self.exponent[:, None], self.rate[:, None])
        widths = np.diff(self.edges, axis=1)
        here = self.at(self.edges[:, 1:])
        return np.where(widths > 0, np.diff(read, axis=1) / np.where(widths > 0, widths, 1.0), here)

    def at(self, quantiles: np.ndarray) -> np.ndarray:
        """(T, n) f at quantiles (n,) shared by the topics, or (T, n)."""
        above = np.maximum(quantiles - self.start[:, None], 0.0)
        curve = above ** self.exponent[:, None] * np.exp(self.rate[:, None] * above)
        return self.scale[:, None] * curve


def quality_curves(
    topics: Sequence[str],
    tokens: np.ndarray,
    targets: np.ndarray,
    discarded: float = DISCARDED,
    largest_factor: float = LARGEST_FACTOR,
) -> QualityCurves:
    """The steepest curve of every topic that reaches its target.

    Args:
        topics: (T,) names.
        tokens: (T, Q) available tokens per quality bucket, worst first; 0 where a topic has none.
        targets: (T,) tokens to be read of each topic.
        discarded: share of a topic that may be discarded; a is the last bucket edge up to it.
        largest_factor: M.

    Raises:
        InvalidTokens: a topic without tokens, or a count that is negative or not finite.
        InvalidSetting: a target that is negative or not finite, or a setting outside its range.
        Infeasible: topics whose target is out of reach, with what is within it.
    """
    tokens, targets = np.asarray(tokens, float), np.asarray(targets, float)
    _check(topics, tokens, targets, discarded, largest_factor)
    available = tokens.sum(axis=1)
    edges = np.concatenate([np.zeros((len(tokens), 1)), tokens.cumsum(axis=1)], axis=1) / available[:, None]
    start = np.where(edges <= discarded + _EDGE, edges, 0.0).max(axis=1)
    best = np.where(edges < 1 - _EDGE, edges, 0.0).max(axis=1)
    width, ratio = 1 - best, targets / available

    def top_factor(steepness: np.ndarray) -> np.ndarray:
        exponent, rate = _parameters(steepness)
        whole = _integral(1 - start, exponent, rate)
        return ratio / width * (1 - _integral(best - start, exponent, rate) / whole)

    flattest = top_factor(np.zeros(len(tokens)))
    _check_reachable(topics, available, ratio, flattest, largest_factor)
    exponent, rate = _parameters(_steepest(top_factor, len(tokens), largest_factor))
    scale = ratio / _integral(1 - start, exponent, rate)
    return QualityCurves(tuple(topics), edges, start, exponent, rate, scale)


def _parameters(steepness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p and lambda at a steepness of 0 (flattest) to 2: p rises over the first half, lambda over the second."""
    exponent = EXPONENTS[0] + np.clip(steepness, 0, 1) * (EXPONENTS[1] - EXPONENTS[0])
    return exponent, RATES[0] + np.clip(steepness - 1, 0, 1) * (RATES[1] - RATES[0])


def _integral(length: np.ndarray, exponent: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Of y^p exp(lambda y) over [0, length]; shapes broadcast."""
    power = exponent + 1
    return length**power / power * hyp1f1(power, power + 1, rate * length)


def _steepest(top_factor: Callable[[np.ndarray], np.ndarray], count: int, largest: float) -> np.ndarray:
    """(T,) largest steepness whose best bucket is read at most `largest` times; `top_factor` rises with it."""
    low, high = np.zeros(count), np.full(count, 2.0)
    low = np.where(top_factor(high) <= largest, high, low)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        fits = top_factor(middle) <= largest
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return low


def _check(
    topics: Sequence[str], tokens: np.ndarray, targets: np.ndarray, discarded: float, largest: float
) -> None:
    if tokens.ndim != 2 or len(topics) != len(tokens) or targets.shape != (len(tokens),):
        raise InvalidTokens(
            f"{len(topics)} topics need a token count per bucket and one target each, not {tokens.shape}"
            f" counts and {targets.shape} targets",
            field="tokens",
        )
    for topic, row, target in zip(topics, tokens, targets, strict=True):
        if not (np.isfinite(row).all() and (row >= 0).all() and row.sum() > 0):
            raise InvalidTokens(
                f"the counts of topic {topic!r} must be numbers of at least 0, and one above 0",
                field="tokens",
                names=[topic],
            )
        if not 0 <= target < np.inf:
            raise InvalidSetting(
                f"the target of topic {topic!r} is {target}; it must be a number of at least 0",
                field="targets",
                names=[topic],
            )
    if not 0 <= discarded < 1:
        raise InvalidSetting(f"discarded is {discarded}; it lies in [0, 1)", field="discarded")
    if not 0 < largest < np.inf:
        raise InvalidSetting(
            f"largest_factor is {largest}; it must be a number above 0", field="largest_factor"
        )


def _check_reachable(
    topics: Sequence[str], available: np.ndarray, ratio: np.ndarray, flattest: np.ndarray, largest: float
) -> None:
    beyond = np.flatnonzero(flattest > largest * (1 + _EDGE)).tolist()
    if not beyond:
        return
    reachable = np.floor(ratio * available * largest / np.maximum(flattest, _EDGE))
    reach = [
        f"{topics[t]!r} {ratio[t] * available[t]:,.0f} tokens of at most {reachable[t]:,.0f}" for t in beyond
    ]
    raise Infeasible(
        f"no curve reaches the target with the best bucket read at most {largest:g} times: {', '.join(reach)}."
        " Lower the target, discard less, or allow more",
        field="targets",
        names=[topics[t] for t in beyond],
        largest_target=int(reachable[beyond[0]]) if len(beyond) == 1 else None,
    )
