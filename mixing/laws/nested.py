"""Nested scaling laws: losses of long runs and large models from those of short and small ones.

Data Mixing Laws (arXiv 2403.16952) fits L(D) = e^c + exp(alpha (log D0 - log D)) to every run over its steps, then
the same law over model sizes to what that predicts, and only then a mixing law to what that predicts. The law is
e^c + b D^-alpha; for a given alpha it is linear in e^c and b, so alpha alone is searched, for all runs and tasks at
once, and the least squares found are the lowest there are.
"""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns

_EXPONENTS = np.geomspace(1e-3, 5.0, 120)
_ZOOMS = 9
"""Each narrows the exponent ten times: 120 steps over four decades, then 1e-9 of that."""


@dataclass(frozen=True)
class ScalingLaws:
    """L(D) = constant + factor * (D / unit)^-exponent of many curves, arrays of one shape.

    Attributes:
        constant: e^c >= 0, the loss that no D removes.
        factor: what D = unit leaves above it, >= 0.
        exponent: alpha > 0.
        unit: the geometric mean of the D they were fitted to.
        residual_std: of the points about the curve.
    """

    constant: np.ndarray
    factor: np.ndarray
    exponent: np.ndarray
    unit: float
    residual_std: np.ndarray

    def at(self, amount: float) -> np.ndarray:
        """The loss after so many steps, or of a model so large."""
        return self.constant + self.factor * (amount / self.unit) ** -self.exponent


def fit_scaling(amounts: np.ndarray, losses: np.ndarray) -> ScalingLaws:
    """Least squares of every curve.

    Args:
        amounts: (n,) positive steps, tokens or parameters, in any unit.
        losses: (n, ...) losses there, such as (n, runs, tasks).

    Raises:
        TooFewRuns: fewer than three different amounts, the law's number of parameters.
        InvalidSetting: an amount that is not positive.
        InvalidMetrics: a loss that is not finite.
    """
    if not (np.isfinite(amounts) & (amounts > 0)).all():
        raise InvalidSetting("steps and sizes must be positive", field="amounts")
    if (given := len(np.unique(amounts))) < 3:
        raise TooFewRuns(
            f"a scaling law over {given} different steps or sizes is not determined; it needs 3",
            needed=3,
            given=given,
        )
    if not np.isfinite(losses).all():
        at = tuple(int(index) for index in np.argwhere(~np.isfinite(losses))[0])
        raise InvalidMetrics(f"the loss at index {at} is not finite", field="losses")
    unit = float(np.exp(np.log(amounts).mean()))
    curves = losses.reshape(len(amounts), -1).T
    logs = np.log(amounts / unit)
    exponents = np.broadcast_to(_EXPONENTS, (len(curves), len(_EXPONENTS)))
    ratio = _EXPONENTS[1] / _EXPONENTS[0]
    for _ in range(_ZOOMS):
        best = _at_exponents(logs, curves, exponents)
        chosen = best[2][:, None]
        exponents = chosen * ratio ** np.linspace(-1, 1, 21)
        ratio **= 0.1
    constant, factor, exponent, squares = _at_exponents(logs, curves, exponents)
    shape = losses.shape[1:]
    std = np.sqrt(squares / max(len(amounts) - 3, 1))
    return ScalingLaws(
        constant.reshape(shape), factor.reshape(shape), exponent.reshape(shape), unit, std.reshape(shape)
    )


def extrapolate(amounts: np.ndarray, losses: np.ndarray, to: float) -> np.ndarray:
    """(...) losses at `to` steps or parameters from (n, ...) losses at (n,) of them; see `fit_scaling`."""
    if not (np.isfinite(to) and to > 0):
        raise InvalidSetting(f"to is {to}; it must be a positive number", field="to")
    return fit_scaling(amounts, losses).at(to)


def extrapolate_steps_then_sizes(
    steps: np.ndarray, sizes: np.ndarray, losses: np.ndarray, to_steps: float, to_size: float
) -> np.ndarray:
    """(K, T) losses to fit a mixing law to, of K mixtures each run at several sizes and read at several steps.

    Args:
        steps: (n,).
        sizes: (s,).
        losses: (n, s, K, T).
        to_steps: of the model that is to be trained.
        to_size: its parameters.
    """
    return extrapolate(sizes, extrapolate(steps, losses, to_steps), to_size)


def _at_exponents(
    logs: np.ndarray, curves: np.ndarray, exponents: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Best of (N, E) exponents for (N, n) curves: (N,) constant, factor, exponent and sum of squares.

    Non-negative least squares in two variables: the free solution, or the better one with a variable at 0.
    """
    basis = np.exp(-exponents[:, :, None] * logs)
    mean, level = basis.mean(2), curves.mean(1)[:, None]
    centred = basis - mean[:, :, None]
    spread = np.square(centred).sum(2)
    factor = np.maximum(np.einsum("nei,ni->ne", centred, curves) / spread, 0)
    constant = level - factor * mean
    through = np.einsum("nei,ni->ne", basis, curves) / np.square(basis).sum(2)
    factor = np.where(constant < 0, np.maximum(through, 0), factor)
    constant = np.maximum(constant, 0)
    predicted = constant[:, :, None] + factor[:, :, None] * basis
    squares = np.square(predicted - curves[:, None, :]).sum(2)
    best = squares.argmin(1)
    every = np.arange(len(curves))
    return constant[every, best], factor[every, best], exponents[every, best], squares[every, best]
