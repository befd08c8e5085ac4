"""The marginal likelihood of many Gaussian processes at once, and its descent, on stacked arrays.

N processes over the same K mixtures share their features; each has its own targets, noise and hyperparameters. The
covariance of a problem's targets is

    base + s^2 Matern52(|(x - x') / l|) exp(-(z - z')^2 / (2 l_z^2)) + n^2 diag(inflation),

with one length scale l_j per feature, and the factor in z, the logarithm of the proxy size, only where the runs have
more than one. theta holds the logarithms of l (m), of s, of n and, with z, of l_z. The loss is the negative logarithm
of the marginal likelihood and of independent normal priors on theta.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.linalg import get_lapack_funcs

_ROOT = np.sqrt(5.0)
_JITTER = 1e-9  # of the noise-free variance, where a fit finds no noise at all
_ARMIJO = 1e-4
_MEMORY = 1_000_000  # numbers in the largest temporary array: 8 MB, which a cache can hold
(_invert_factor,) = get_lapack_funcs(("potri",), dtype=np.float64)


@dataclass(frozen=True)
class ProcessProblems:
    """N processes over K runs.

    Attributes:
        features: (K, m).
        targets: (N, K), of prior mean 0.
        inflation: (N, K) variance of each run's noise, in units of the problem's n^2.
        base: (N, K, K) or (1, K, K) covariance that has no hyperparameters.
        fidelity: (K,) z, or None where all runs are of one size.
        centre: (P,) means of the priors of theta.
        width: (P,) their standard deviations.
    """

    features: np.ndarray
    targets: np.ndarray
    inflation: np.ndarray
    base: np.ndarray
    fidelity: np.ndarray | None
    centre: np.ndarray
    width: np.ndarray

    def part(self, chosen: np.ndarray) -> "ProcessProblems":
        """The problems at these positions."""
        base = self.base if len(self.base) == 1 else self.base[chosen]
        return replace(self, targets=self.targets[chosen], inflation=self.inflation[chosen], base=base)

    def runs(self, chosen: np.ndarray) -> "ProcessProblems":
        """The same processes over some of the runs."""
        return replace(
            self,
            features=self.features[chosen],
            targets=self.targets[:, chosen],
            inflation=self.inflation[:, chosen],
            base=self.base[:, chosen][:, :, chosen],
            fidelity=None if self.fidelity is None else self.fidelity[chosen],
        )


@dataclass(frozen=True)
class Posterior:
    """N processes given their targets.

    Attributes:
        whole: (N, K, K) inverse of the covariance of the targets of all runs.
        dual: (N, K) precision times targets, 0 for runs that are left out.
        out: (o,) runs that are left out.
    """

    whole: np.ndarray
    dual: np.ndarray
    out: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    @property
    def precision(self) -> np.ndarray:
        """(N, K, K) inverse of the covariance of the targets, 0 for runs that are left out."""
        if not len(self.out):
            return self.whole
        across = self.whole[:, :, self.out]
        kept = self.whole - across @ np.linalg.solve(across[:, self.out], across.transpose(0, 2, 1))
        kept[:, self.out] = kept[:, :, self.out] = 0.0
        return kept

    def without(self, out: np.ndarray) -> tuple["Posterior", np.ndarray]:
        """The same processes given the other runs' targets alone, and by how much they miss the (N, o) left out.

        With Q the precision and a = Q t of all runs and B those left out, the targets predicted at B are
        t_B - Q_BB^-1 a_B, and a without them is a - Q_.B Q_BB^-1 a_B. The hyperparameters stay.
        """
        across = self.whole[:, :, out]
        missed = np.linalg.solve(across[:, out], self.dual[:, out, None])
        alone = self.dual - (across @ missed)[:, :, 0]
        alone[:, out] = 0.0
        return replace(self, dual=alone, out=out), missed[:, :, 0]

    def left_out(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, K) residual of each target from its prediction by the other runs, and the variance of that residual."""
        variance = 1 / np.einsum("nkk->nk", self.precision)
        return self.dual * variance, variance


def correlation(
    theta: np.ndarray, left: np.ndarray, right: np.ndarray, apart: np.ndarray | None
) -> np.ndarray:
    """(N, n, K) prior covariance s^2 k of (n, m) and (K, m) features whose z lie (n, K) `apart`."""
    return _correlation_and_slope(theta, left, right, apart)[0]


def slope(theta: np.ndarray, left: np.ndarray, right: np.ndarray, apart: np.ndarray | None) -> np.ndarray:
    """(N, n, K) by which (x_j - x'_j) / l_j^2 is multiplied for minus d covariance / d x_j."""
    return _correlation_and_slope(theta, left, right, apart)[1]


def _correlation_and_slope(
    theta: np.ndarray, left: np.ndarray, right: np.ndarray, apart: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both (N, n, K): with d the distance times the root of 5 they share (1 + d) exp(-d)."""
    squared = _squared_distance(theta, left, right)
    width = left.shape[1]
    distance = np.sqrt(squared)
    falling = np.negative(distance)
    np.exp(falling, out=falling)
    falling *= np.exp(2 * theta[:, width])[:, None, None]
    if apart is not None:
        falling *= np.exp(-0.5 * (apart * np.exp(-theta[:, width + 2])[:, None, None]) ** 2)
    squared *= falling
    squared /= 3
    distance += 1
    distance *= falling
    squared += distance
    distance *= 5 / 3
    return squared, distance


def posterior(problems: ProcessProblems, theta: np.ndarray) -> Posterior:
    """Condition every process on its targets."""
    given = [_posterior(problems.part(part), theta[part]) for part in _parts(problems)]
    return Posterior(
        np.concatenate([each.whole for each in given]), np.concatenate([each.dual for each in given])
    )


def evaluate(problems: ProcessProblems, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) loss and its (N, P) gradient."""
    found = [_evaluate(problems.part(part), theta[part]) for part in _parts(problems)]
    return np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found])


def descend(
    problems: ProcessProblems,
    theta: np.ndarray,
    iterations: int,
    tolerance: float,
    inverse: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) parameters after at most so many BFGS iterations from `theta`, each problem stopping on its own.

    A problem stops when a step improves its loss by less than `tolerance`, in nats, or can no longer improve it.
    With the parameters comes what was learned of the (N, P, P) inverse Hessians, from which a descent of a
    problem that hardly differs may begin.
    """
    theta = theta.copy()
    loss, gradient = evaluate(problems, theta)
    inverse = first_curvature(theta) if inverse is None else inverse.copy()
    length = np.ones(len(theta))
    live = np.arange(len(theta))
    for _ in range(iterations):
        direction = -(inverse[live] @ gradient[live, :, None])[:, :, 0]
        direction *= np.minimum(1, 1 / np.abs(direction).max(1).clip(1e-300))[:, None]
        step = length[live, None] * direction
        after_loss, after_gradient = evaluate(problems.part(live), theta[live] + step)
        falls = (step * gradient[live]).sum(1)
        accepted = after_loss <= loss[live] + _ARMIJO * falls
        small = loss[live] - after_loss < tolerance
        taken = live[accepted]
        change = after_gradient - gradient[live]
        inverse[taken] = _updated(inverse[taken], step[accepted], change[accepted])
        theta[taken] += step[accepted]
        loss[taken], gradient[taken] = after_loss[accepted], after_gradient[accepted]
        length[live] = np.where(accepted, 1.0, length[live] * 0.3)
        live = live[~((accepted & small) | (length[live] < 1e-3))]
        if not len(live):
            break
    return theta, inverse


def first_curvature(theta: np.ndarray) -> np.ndarray:
    """(N, P, P) inverse Hessians that a descent of (N, P) parameters begins with where nothing is known of them."""
    return np.tile(0.1 * np.eye(theta.shape[1]), (len(theta), 1, 1))


def _parts(problems: ProcessProblems) -> list[np.ndarray]:
    """Positions of problems that are worked on at once."""
    runs = problems.targets.shape[1]
    return np.array_split(np.arange(len(problems.targets)), -(-problems.targets.size * runs // _MEMORY))


def _posterior(problems: ProcessProblems, theta: np.ndarray) -> Posterior:
    kernel = correlation(theta, problems.features, problems.features, _apart(problems))
    precision, _ = _invert(problems, theta, kernel)
    return Posterior(precision, (precision @ problems.targets[:, :, None])[:, :, 0])


def _evaluate(problems: ProcessProblems, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, width = problems.features, problems.features.shape[1]
    apart = _apart(problems)
    kernel, slopes = _correlation_and_slope(theta, features, features, apart)
    precision, log_determinant = _invert(problems, theta, kernel)
    dual = (precision @ problems.targets[:, :, None])[:, :, 0]
    deviation = (theta - problems.centre) / problems.width
    loss = 0.5 * ((problems.targets * dual).sum(1) + log_determinant + (deviation**2).sum(1))
    # d loss = tr(pull d covariance) / 2
    pull = precision - dual[:, :, None] * dual[:, None, :]
    gradient = deviation / problems.width
    gradient[:, width] += (pull * kernel).sum((1, 2))
    noise = np.exp(2 * theta[:, width + 1])[:, None] * problems.inflation
    gradient[:, width + 1] += (np.einsum("nkk->nk", pull) * noise).sum(1)
    if apart is not None:
        scaled = (apart * np.exp(-theta[:, width + 2])[:, None, None]) ** 2
        gradient[:, width + 2] += 0.5 * (pull * kernel * scaled).sum((1, 2))
    pull *= slopes
    # sum_kl M_kl (x_k - x_l)^2 / 2 without the differences
    own = pull.sum(2) @ features**2 - (features * (pull @ features)).sum(1)
    gradient[:, :width] += own * np.exp(-2 * theta[:, :width])
    return loss, gradient


def _updated(inverse: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """BFGS update of (n, P, P) inverse Hessians; none where the curvature along the step is not positive."""
    curvature = (step * change).sum(1)
    usable = curvature > 1e-10 * np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
    curvature = np.where(usable, curvature, 1.0)
    mapped = (inverse @ change[:, :, None])[:, :, 0]
    along = (1 + (change * mapped).sum(1) / curvature) / curvature
    cross = mapped[:, :, None] * step[:, None, :] / curvature[:, None, None]
    update = along[:, None, None] * step[:, :, None] * step[:, None, :] - cross - cross.transpose(0, 2, 1)
    return inverse + np.where(usable[:, None, None], update, 0)


def _apart(problems: ProcessProblems) -> np.ndarray | None:
    if problems.fidelity is None:
        return None
    return problems.fidelity[:, None] - problems.fidelity[None, :]


def _squared_distance(theta: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, n, K) 5 times the squared Euclidean distance of the features over their length scales."""
    inverse = _ROOT * np.exp(-theta[:, None, : left.shape[1]])
    first, second = left * inverse, right * inverse
    squared = first @ (-2 * second).transpose(0, 2, 1)
    squared += np.square(first).sum(2)[:, :, None]
    squared += np.square(second).sum(2)[:, None, :]
    return np.maximum(squared, 0, out=squared)


def _invert(
    problems: ProcessProblems, theta: np.ndarray, kernel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, K, K) inverse covariance of the targets and the (N,) logarithm of the covariance's determinant."""
    width = problems.features.shape[1]
    covariance = kernel + problems.base
    diagonal = np.arange(len(problems.features))
    noise = np.exp(2 * theta[:, width + 1])[:, None] * problems.inflation
    covariance[:, diagonal, diagonal] *= 1 + _JITTER
    covariance[:, diagonal, diagonal] += noise
    factors = np.linalg.cholesky(covariance)
    log_determinant = 2 * np.log(np.einsum("nkk->nk", factors)).sum(1)
    for index, factor in enumerate(factors):
        # LAPACK reads columns first: this row-major lower factor is its upper one.
        inverse, _ = _invert_factor(factor.T, lower=0)
        upper = np.triu(inverse)
        covariance[index] = upper + upper.T
        covariance[index, diagonal, diagonal] = np.diagonal(upper)
    return covariance, log_determinant
