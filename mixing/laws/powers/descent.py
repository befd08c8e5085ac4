"""Levenberg-Marquardt for many effective power laws at once, on stacked arrays.

Every task, start and resample is one of N independent problems over the same K mixtures. A problem's parameters
are one row theta of 2m + 6 numbers, all free on the real line: log u (m), the domains' deviations of logit beta (m),
and the logit beta they deviate from, log gamma, log gap, a, log e and log s (`SHARED`). With y measured from its
lowest value in units of its standard deviation, and gap = min y - C in that unit,

    r = log(y + gap) - a + gamma log(sum_j u_j (p_j + eps)^beta_j + e)

is a run's residual, Student-t of scale s. The loss is the negative logarithm of the posterior: of the likelihood of
y, whose Jacobian log(y + gap) keeps the gap from growing without end, and of independent normal priors.
"""

from dataclasses import dataclass

import numpy as np

FREEDOM = 4.0
"""Degrees of freedom of the Student-t noise."""

SHARED = ("exponent", "decay", "gap", "scale", "rest", "noise")
"""The last columns of theta, behind the two blocks of m: logit beta, log gamma, log gap, a, log e, log s."""

_LARGEST_STEP = 2.0  # in logarithms and logits
_MEMORY = 2_000_000  # numbers in the largest stacked array: 16 MB


def column(name: str) -> int:
    """Where a shared parameter stands in theta, counted from the end."""
    return SHARED.index(name) - len(SHARED)


@dataclass(frozen=True)
class PowerProblems:
    """N fits over the same mixtures.

    Attributes:
        log_weights: (K, m) log(p + eps).
        metrics: (N, K) what was measured, from its lowest value up, in units of its standard deviation.
        importance: (N, K) weight of each run, 0 to leave it out.
        centre: (P,) mean of the prior of theta.
        width: (P,) its standard deviation.
    """

    log_weights: np.ndarray
    metrics: np.ndarray
    importance: np.ndarray
    centre: np.ndarray
    width: np.ndarray

    def part(self, chosen: np.ndarray | slice) -> "PowerProblems":
        """The problems at these positions."""
        return PowerProblems(
            self.log_weights, self.metrics[chosen], self.importance[chosen], self.centre, self.width
        )


@dataclass(frozen=True)
class _State:
    """The laws and how they miss the runs, at one theta for each problem.

    Attributes:
        terms: (N, K, m) u_j (p_j + eps)^beta_j.
        total: (N, K) their sum, plus e.
        above: (N, K) y + gap; 1 where the run is left out, which may be lower than all that are kept.
        residuals: (N, K).
        loss: (N,).
    """

    terms: np.ndarray
    total: np.ndarray
    above: np.ndarray
    residuals: np.ndarray
    loss: np.ndarray

    def take(self, chosen: np.ndarray) -> "_State":
        return _State(*(values[chosen] for values in self._arrays()))

    def where(self, chosen: np.ndarray, other: "_State") -> None:
        """Take over the other's problems where chosen."""
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            mine[chosen] = theirs[chosen]

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.terms, self.total, self.above, self.residuals, self.loss


def exponents(theta: np.ndarray) -> np.ndarray:
    """(..., m) beta of each domain, in (0, 1), of (..., P) parameters."""
    domains = (theta.shape[-1] - len(SHARED)) // 2
    logits = theta[..., domains : 2 * domains] + theta[..., column("exponent"), None]
    return 1 / (1 + np.exp(-logits))


def useful_terms(theta: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """(..., K, m) u_j (p_j + eps)^beta_j of (..., P) parameters at (K, m) log(p + eps)."""
    domains = log_weights.shape[1]
    terms = exponents(theta)[..., None, :] * log_weights
    terms += theta[..., None, :domains]
    return np.exp(terms, out=terms)


def descend(
    problems: PowerProblems, theta: np.ndarray, iterations: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """From (N, P) parameters down to a local minimum: the parameters there and the (N,) loss.

    A problem stops when a step improves its loss by less than `tolerance`, relatively or, where the loss is
    near 0, absolutely; or when no step along a steepest descent improves it at all.
    """
    chunk = _chunk(problems, theta)
    parts = [slice(first, first + chunk) for first in range(0, len(theta), chunk)]
    found = [_descend(problems.part(part), theta[part].copy(), iterations, tolerance) for part in parts]
    return np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])


def information(problems: PowerProblems, theta: np.ndarray) -> np.ndarray:
    """(N, P, P) Gauss-Newton matrix of the loss: the inverse covariance of theta in Laplace's approximation."""
    chunk = _chunk(problems, theta)
    parts = [slice(first, first + chunk) for first in range(0, len(theta), chunk)]
    return np.concatenate([_information(problems.part(part), theta[part]) for part in parts])


def evaluate(problems: PowerProblems, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) loss, its (N, P) gradient and the (N, P, P) Gauss-Newton matrix that a step is made of."""
    state = _state(problems, theta)
    matrix, gradient = _normal_equations(problems, theta, state)
    return state.loss, gradient, matrix


def _chunk(problems: PowerProblems, theta: np.ndarray) -> int:
    return max(1, _MEMORY // (theta.shape[1] * max(theta.shape[1], len(problems.log_weights))))


def _state(problems: PowerProblems, theta: np.ndarray) -> _State:
    kept = problems.importance > 0
    terms = useful_terms(theta, problems.log_weights)
    total = terms.sum(2) + np.exp(theta[:, column("rest"), None])
    above = np.where(kept, problems.metrics + np.exp(theta[:, column("gap"), None]), 1.0)
    residuals = np.log(above) - theta[:, column("scale"), None]
    residuals += np.exp(theta[:, column("decay"), None]) * np.log(total)
    log_noise = theta[:, column("noise"), None]
    surprise = np.log1p((residuals * np.exp(-log_noise)) ** 2 / FREEDOM)
    per_run = np.log(above) + log_noise + 0.5 * (FREEDOM + 1) * surprise
    deviation = (theta - problems.centre) / problems.width
    loss = (problems.importance * per_run).sum(1) + 0.5 * (deviation**2).sum(1)
    return _State(terms, total, above, residuals, loss)


def _jacobian(problems: PowerProblems, theta: np.ndarray, state: _State) -> np.ndarray:
    """(N, K, P-1): d residual / d theta, the noise left out."""
    domains = problems.log_weights.shape[1]
    beta = exponents(theta)
    gamma = np.exp(theta[:, column("decay"), None])
    jacobian = np.empty((*state.total.shape, theta.shape[1] - 1))
    useful = jacobian[:, :, :domains]
    np.multiply(state.terms, (gamma / state.total)[:, :, None], out=useful)
    bending = jacobian[:, :, domains : 2 * domains]
    np.multiply(useful, problems.log_weights, out=bending)
    bending *= (beta * (1 - beta))[:, None, :]
    # The noise has no column here, so every shared parameter stands one further from the end.
    shared = {name: jacobian[:, :, column(name) + 1] for name in SHARED[:-1]}
    shared["exponent"][:] = bending.sum(2)
    shared["decay"][:] = gamma * np.log(state.total)
    shared["gap"][:] = np.exp(theta[:, column("gap"), None]) / state.above
    shared["scale"][:] = -1
    shared["rest"][:] = gamma / state.total * np.exp(theta[:, column("rest"), None])
    return jacobian


def _normal_equations(
    problems: PowerProblems, theta: np.ndarray, state: _State
) -> tuple[np.ndarray, np.ndarray]:
    """(N, P, P) Gauss-Newton matrix and (N, P) gradient.

    The Student-t enters by its quadratic majoriser, weight (nu + 1) / (nu s^2 + r^2), and log s by its expected
    information, 2 nu / (nu + 3) a run; location and scale share none.
    """
    jacobian = _jacobian(problems, theta, state)
    variance = np.exp(2 * theta[:, column("noise"), None])
    squared = state.residuals**2
    majoriser = problems.importance * (FREEDOM + 1) / (FREEDOM * variance + squared)
    gradient = np.empty_like(theta)
    gradient[:, :-1] = ((majoriser * state.residuals)[:, None, :] @ jacobian)[:, 0]
    gradient[:, -1] = (problems.importance - majoriser * squared).sum(1)
    matrix = np.zeros((*theta.shape, theta.shape[1]))
    weighted = jacobian * majoriser[:, :, None]
    matrix[:, :-1, :-1] = weighted.transpose(0, 2, 1) @ jacobian
    matrix[:, -1, -1] = problems.importance.sum(1) * 2 * FREEDOM / (FREEDOM + 3)
    share = np.exp(theta[:, column("gap"), None]) / state.above
    gap = column("gap")
    gradient[:, gap] += (problems.importance * share).sum(1)
    matrix[:, gap, gap] += (problems.importance * np.maximum(share * (1 - share), 0)).sum(1)
    gradient += (theta - problems.centre) / problems.width**2
    diagonal = np.arange(theta.shape[1])
    matrix[:, diagonal, diagonal] += 1 / problems.width**2
    return matrix, gradient


def _information(problems: PowerProblems, theta: np.ndarray) -> np.ndarray:
    return _normal_equations(problems, theta, _state(problems, theta))[0]


def _descend(
    problems: PowerProblems, theta: np.ndarray, iterations: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    damping = np.full(len(theta), 1e-2)
    state = _state(problems, theta)
    final = state.loss.copy()
    live = np.arange(len(theta))
    for _ in range(iterations):
        current = problems.part(live)
        matrix, gradient = _normal_equations(current, theta[live], state)
        proposed = theta[live] + _damped_step(matrix, gradient, damping[live])
        after = _state(current, proposed)
        better = after.loss <= state.loss
        small = state.loss - after.loss <= tolerance * (1 + np.abs(state.loss))
        stopped = (better & small) | (damping[live] > 1e7)
        theta[live[better]] = proposed[better]
        damping[live] = np.clip(np.where(better, damping[live] / 5, damping[live] * 4), 1e-9, 1e8)
        state.where(better, after)
        final[live] = state.loss
        if stopped.any():
            live, state = live[~stopped], state.take(~stopped)
        if not len(live):
            break
    return theta, final


def _damped_step(matrix: np.ndarray, gradient: np.ndarray, damping: np.ndarray) -> np.ndarray:
    diagonal = np.arange(matrix.shape[1])
    matrix[:, diagonal, diagonal] *= 1 + damping[:, None]
    step = np.linalg.solve(matrix, -gradient[:, :, None])[:, :, 0]
    return step * np.minimum(1, _LARGEST_STEP / np.abs(step).max(1, keepdims=True).clip(1e-300))
