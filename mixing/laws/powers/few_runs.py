"""The effective power law where runs are fewer than the 2m parameters of its domains.

There the loss has no minimum that means anything: the parameters take up every run's noise, s goes to 0, and the law
predicts worse the longer it descends. So s is what makes the runs most likely whatever the parameters are, which
counts a run less for every parameter that the runs decide (MacKay, Neural Computation 4, 1992): descents at one s
and changes of s follow each other in turns. A fit ends where what is left to gain is small beside what the runs leave
open of the parameters.

A step solves equations of the runs' size. The matrix is Gauss-Newton's, a product of K rows, and of the second
derivatives of each domain's own two parameters what bends upwards, 2 by 2 blocks A.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from mixing.inverses import posterior_root
from mixing.laws.powers.descent import (
    FREEDOM,
    LOWEST_LOG_NOISE,
    PowerProblems,
    State,
    bends_of,
    column,
    descend,
    gap_bend,
    gradient_of,
    jacobian_of,
    majoriser_of,
    parts_of,
    state_of,
)

_HIGHEST_LOG_NOISE = 1.0
_TURNS = 30
_ROUGH = 0.1
"""Change of log s while which descents end at ten times the nats they end at last."""
_SETTLED = 5e-4
"""Nats a run at which a descent ends, and the change of log s: a thousandth of the half a nat a run that noise takes
up by itself. Of 30 runs that is a sixth of a posterior deviation."""


def lowest(
    problems: PowerProblems, starts: list[np.ndarray], iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) parameters from the best of several starts at one s, and (N,) whether they are settled."""
    count = len(problems.metrics)
    several = problems.part(np.tile(np.arange(count), len(starts)))
    theta, loss, _ = descend(several, np.concatenate(starts), iterations, 10 * _settled(problems), _step)
    best = loss.reshape(len(starts), count).argmin(0) * count + np.arange(count)
    return settle(problems, theta[best], iterations)


def again(problems: PowerProblems, theta: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """As `lowest`, from a fit to more of these runs at its (N,) noise, of which all of them say the most."""
    theta, _, converged = descend(problems, theta, iterations, _settled(problems), _step)
    return theta, converged


def settle(problems: PowerProblems, theta: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) parameters in turns with the noise, from (N, P), and (N,) whether both came to their end.

    The noise is the root of `slope`, found by secants inside a bracket.
    """
    theta, count, settled = theta.copy(), len(theta), _settled(problems)
    converged, rough, live = np.zeros(count, bool), np.ones(count, bool), np.arange(count)
    low, high = np.full(count, LOWEST_LOG_NOISE), np.full(count, _HIGHEST_LOG_NOISE)
    before = np.full((2, count), np.nan)  # log s and slope
    for _ in range(_TURNS):
        for some, least in ((live[rough[live]], 10 * settled), (live[~rough[live]], settled)):
            if len(some):
                found = descend(problems.part(some), theta[some], iterations, least, _step)
                theta[some], _, converged[some] = found
        at = theta[live, -1].copy()
        down, bend = slope(problems.part(live), theta[live])
        low[live] = np.where(down <= 0, np.maximum(at, low[live]), low[live])
        high[live] = np.where(down > 0, np.minimum(at, high[live]), high[live])
        with np.errstate(invalid="ignore", divide="ignore"):
            secant = (down - before[1, live]) / (at - before[0, live])
        bend = np.where(secant > bend / 4, secant, bend)
        to = at + np.clip(-down / bend, -1, 1)
        to = np.where((to > high[live]) | (to < low[live]), (low[live] + high[live]) / 2, to)
        before[:, live] = at, down
        moving = rough[live] | (bend * (to - at) ** 2 > 2 * settled)
        rough[live] = np.abs(to - at) > _ROUGH
        theta[live[moving], -1] = to[moving]
        live = live[moving]
        if not len(live):
            break
    converged[live] = False
    return theta, converged


def _settled(problems: PowerProblems) -> float:
    """Nats at which a descent to these runs ends."""
    return _SETTLED * len(problems.log_weights)


def slope(problems: PowerProblems, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) slope by log s of minus the logarithm of the runs' likelihood and prior of s, and about its curvature.

    The other parameters are integrated over in Laplace's approximation at theta, a minimum of the loss: with L the
    eigenvalues of what the runs know of them in units of the prior, they use up sum L / (1 + L) runs.
    """
    pieces = [_slope(problems.part(part), theta[part]) for part in parts_of(problems, theta)]
    down, bend = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    return down, bend


def _slope(problems: PowerProblems, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    state = state_of(problems, theta)
    majoriser = majoriser_of(problems, theta, state)
    scaled = jacobian_of(problems, theta, state) * problems.width[:-1]
    scaled *= np.sqrt(majoriser)[:, :, None]
    runs = scaled.shape[1]
    # sum L / (1 + L) = K - trace of the inverse
    used = [runs - np.trace(cho_solve(_factor(rows), np.eye(runs))) for rows in scaled]
    squared, variance = state.residuals**2, FREEDOM * np.exp(2 * theta[:, -1:])
    firm = problems.width[-1] ** -2
    down = (problems.importance - majoriser * squared).sum(1) - np.array(used)
    down += firm * (theta[:, -1] - problems.centre[-1])
    return down, 2 * (majoriser * squared * variance / (variance + squared)).sum(1) + firm


def _factor(rows: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky factor of 1 + X X^T, of (K, n) rows X."""
    gram = rows @ rows.T
    gram[np.diag_indices_from(gram)] += 1
    return cho_factor(gram, overwrite_a=True, check_finite=False)


def _step(
    problems: PowerProblems, theta: np.ndarray, state: State, damping: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A `Step` that leaves the noise as it is."""
    jacobian, majoriser = jacobian_of(problems, theta, state), majoriser_of(problems, theta, state)
    gradient = gradient_of(problems, theta, state, jacobian, majoriser)
    gradient[:, -1] = 0
    diagonal = np.tile(problems.width[:-1] ** -2.0, (len(theta), 1))
    diagonal[:, column("gap") + 1] += gap_bend(problems, theta, state)
    jacobian *= np.sqrt(majoriser)[:, :, None]
    diagonal += damping[:, None] * (diagonal + np.square(jacobian).sum(1))
    root = _Root.of(bends_of(problems, theta, state, majoriser * state.residuals), diagonal)
    rows, inner = root.after(jacobian), root.after(gradient[:, None, :-1])[:, 0]
    for row, right in enumerate(inner):
        own = rows[row, majoriser[row] > 0]
        right -= cho_solve(_factor(own), own @ right, check_finite=False) @ own
    return np.pad(-root.before(inner), ((0, 0), (0, 1))), gradient


class _Root:
    """C of A^-1 = C C^T, for N matrices A of a 2 by 2 block a domain and a diagonal."""

    def __init__(self, blocks: np.ndarray, alone: np.ndarray) -> None:
        """Of the (N, m, 2, 2) blocks and the (N, r) diagonal of C."""
        self._blocks, self._alone = blocks, alone

    @classmethod
    def of(cls, bends: tuple[np.ndarray, np.ndarray, np.ndarray], diagonal: np.ndarray) -> "_Root":
        """A is what of the (N, m) `bends` goes upwards, plus the (N, P-1) diagonal."""
        plain, cross, bend = bends
        width = plain.shape[1]
        blocks = np.stack([np.stack([plain, cross], -1), np.stack([cross, bend], -1)], -1)
        own = np.stack([diagonal[:, :width], diagonal[:, width : 2 * width]], -1) ** -0.5
        roots = posterior_root(blocks, own[..., None] * np.eye(2))
        return cls(roots, diagonal[:, 2 * width :] ** -0.5)

    def after(self, rows: np.ndarray) -> np.ndarray:
        """(N, n, P-1) rows times C."""
        first, second, rest = self._split(rows)
        (a, b), (c, d) = np.moveaxis(self._blocks[:, None], (-2, -1), (0, 1))
        return np.concatenate(
            [first * a + second * c, first * b + second * d, rest * self._alone[:, None]], axis=-1
        )

    def before(self, columns: np.ndarray) -> np.ndarray:
        """(N, P-1) C times columns."""
        first, second, rest = self._split(columns)
        (a, b), (c, d) = np.moveaxis(self._blocks, (-2, -1), (0, 1))
        return np.concatenate([a * first + b * second, c * first + d * second, rest * self._alone], axis=-1)

    def _split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = self._blocks.shape[1]
        return values[..., :width], values[..., width : 2 * width], values[..., 2 * width :]
