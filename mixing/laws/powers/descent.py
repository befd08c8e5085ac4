"""Levenberg-Marquardt for many effective power laws at once, on stacked arrays.

Every task, start and resample is one of N independent problems over the same K mixtures. A problem's parameters
are one row theta of 2m + 6 numbers, all free on the real line: log u (m), the domains' deviations of logit beta (m),
and the logit beta they deviate from, log gamma, log gap, a, log e and log s (`SHARED`). With y measured from its
lowest value in units of its standard deviation, and gap = min y - C in that unit,

    r = log(y + gap) - a + gamma log(sum_j u_j (p_j + eps)^beta_j + e)

is a run's residual, Student-t of scale s. The loss is the negative logarithm of the posterior: of the likelihood of
y, whose Jacobian log(y + gap) keeps the gap from growing without end, and of independent normal priors.
`mixing.laws.powers.few_runs` has what is done with fewer runs than domains have parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

FREEDOM = 4.0
"""Degrees of freedom of the Student-t noise."""

SHARED = ("exponent", "decay", "gap", "scale", "rest", "noise")
"""The last columns of theta, behind the two blocks of m: logit beta, log gamma, log gap, a, log e, log s."""

_LARGEST_STEP = 5.0  # in logarithms and logits
_NEAR = 1.0  # nats a step gains; below it the loss's own second derivatives lead to the minimum
_HOPELESS = 1e7  # damping at which not even a short step downhill improves
LOWEST_LOG_NOISE = np.log(1e-3)  # of the gap that is left; runs without any noise would take it to 0
_MEMORY = 2_000_000  # numbers in the largest stacked array: 16 MB


def column(name: str) -> int:
    """Where a shared parameter stands in theta, counted from the end."""
    return SHARED.index(name) - len(SHARED)


@dataclass(frozen=True)
class PowerPrior:
    """Normal priors, each (mean, standard deviation), of the law's parameters; see the module for the units.

    They were chosen by the rank correlation on the runs left out of random subsets of the published RegMix swarm,
    which hardly depends on any of them.
    """

    usefulness: tuple[float, float] = (-3.0, 2.0)
    bending: tuple[float, float] = (0.0, 0.3)
    exponent: tuple[float, float] = (-0.3, 0.4)
    decay: tuple[float, float] = (-1.0, 0.3)
    gap: tuple[float, float] = (-0.5, 1.5)
    scale: tuple[float, float] = (0.0, 5.0)
    rest: tuple[float, float] = (-2.0, 1.0)
    noise: tuple[float, float] = (-3.0, 1.0)

    def stacked(self, domains: int) -> tuple[np.ndarray, np.ndarray]:
        """(P,) means and (P,) standard deviations in the order of theta."""
        pairs = [self.usefulness] * domains + [self.bending] * domains
        pairs += [getattr(self, name) for name in SHARED]
        means, deviations = np.array(pairs).T
        return means, deviations


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
        return replace(self, metrics=self.metrics[chosen], importance=self.importance[chosen])

    def runs(self, chosen: np.ndarray) -> "PowerProblems":
        """The same problems over some of the runs."""
        return replace(
            self,
            log_weights=self.log_weights[chosen],
            metrics=self.metrics[:, chosen],
            importance=self.importance[:, chosen],
        )


@dataclass(frozen=True)
class State:
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

    def take(self, chosen: np.ndarray) -> "State":
        """The problems at these positions."""
        return State(*(values[chosen] for values in self._arrays()))

    def where(self, chosen: np.ndarray, other: "State") -> None:
        """Take over the other's problems where chosen."""
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            mine[chosen] = theirs[chosen]

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.terms, self.total, self.above, self.residuals, self.loss


Step = Callable[[PowerProblems, np.ndarray, State, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of problems, theta, their state, (N,) damping and (N,) whether near a minimum: (N, P) step and (N, P) gradient."""


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
    problems: PowerProblems,
    theta: np.ndarray,
    iterations: int,
    tolerance: float,
    step_of: Step | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From (N, P) parameters down to a local minimum: the parameters there, the (N,) loss and whether it is one.

    Far from a minimum the steps are Gauss-Newton's, near it Newton's own, which Gauss-Newton would take hundreds of
    steps to do without: parameters of domains that are worth next to nothing bend the loss as much as they slope it.
    A problem stops when a step of Newton's improves its loss by less than `tolerance` nats, or when no step along a
    steepest descent improves it at all; one that ran out of iterations before is not converged.
    """
    step_of = step_of or _newton
    results = [
        _descend(problems.part(part), theta[part].copy(), iterations, tolerance, step_of)
        for part in parts_of(problems, theta)
    ]
    stacked = [np.concatenate(pieces) for pieces in zip(*results, strict=True)]
    return stacked[0], stacked[1], stacked[2]


def information(problems: PowerProblems, theta: np.ndarray) -> np.ndarray:
    """(N, P, P) Gauss-Newton matrix of the loss: the inverse covariance of theta in Laplace's approximation."""
    parts = parts_of(problems, theta)
    return np.concatenate([_information(problems.part(part), theta[part]) for part in parts])


def evaluate(
    problems: PowerProblems, theta: np.ndarray, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,) loss, its (N, P) gradient and the (N, P, P) matrix that a step is made of, where (N,) `near` Newton's."""
    state = state_of(problems, theta)
    matrix, gradient = _normal_equations(problems, theta, state, near)
    return state.loss, gradient, matrix


def parts_of(problems: PowerProblems, theta: np.ndarray) -> list[slice]:
    """Problems that are worked on at once."""
    chunk = max(1, _MEMORY // (theta.shape[1] * max(theta.shape[1], len(problems.log_weights))))
    return [slice(first, first + chunk) for first in range(0, len(theta), chunk)]


def state_of(problems: PowerProblems, theta: np.ndarray) -> State:
    """At (N, P) parameters."""
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
    return State(terms, total, above, residuals, loss)


def jacobian_of(problems: PowerProblems, theta: np.ndarray, state: State) -> np.ndarray:
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
    problems: PowerProblems, theta: np.ndarray, state: State, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(N, P, P) matrix of a step and (N, P) gradient.

    The matrix is Gauss-Newton's, positive definite: the Student-t enters by its quadratic majoriser, weight
    (nu + 1) / (nu s^2 + r^2), and log s by its expected information, 2 nu / (nu + 3) a run; location and scale share
    none. For the problems that are (N,) `near` a minimum it is the loss's own second derivatives.
    """
    jacobian = jacobian_of(problems, theta, state)
    majoriser = majoriser_of(problems, theta, state)
    gradient = gradient_of(problems, theta, state, jacobian, majoriser)
    gap = column("gap")
    matrix = np.zeros((*theta.shape, theta.shape[1]))
    far = np.ones(len(theta), bool) if near is None else ~near
    if far.any():
        matrix[far, :-1, :-1] = _product(jacobian[far], majoriser[far], jacobian[far])
        matrix[far, -1, -1] = problems.importance[far].sum(1) * 2 * FREEDOM / (FREEDOM + 3)
    if not far.all():
        parts = (problems.part(~far), theta[~far], state.take(~far), jacobian[~far], majoriser[~far])
        matrix[~far] = _second_derivatives(*parts)
    matrix[:, gap, gap] += gap_bend(problems, theta, state)
    diagonal = np.arange(theta.shape[1])
    matrix[:, diagonal, diagonal] += 1 / problems.width**2
    return matrix, gradient


def majoriser_of(problems: PowerProblems, theta: np.ndarray, state: State) -> np.ndarray:
    """(N, K) what each squared residual counts in the quadratic that touches the loss from above."""
    variance = np.exp(2 * theta[:, column("noise"), None])
    return problems.importance * (FREEDOM + 1) / (FREEDOM * variance + state.residuals**2)


def gradient_of(
    problems: PowerProblems, theta: np.ndarray, state: State, jacobian: np.ndarray, majoriser: np.ndarray
) -> np.ndarray:
    """(N, P) gradient of the loss."""
    gradient = np.empty_like(theta)
    gradient[:, :-1] = ((majoriser * state.residuals)[:, None, :] @ jacobian)[:, 0]
    gradient[:, -1] = (problems.importance - majoriser * state.residuals**2).sum(1)
    share = np.exp(theta[:, column("gap"), None]) / state.above
    gradient[:, column("gap")] += (problems.importance * share).sum(1)
    gradient += (theta - problems.centre) / problems.width**2
    return gradient


def gap_bend(problems: PowerProblems, theta: np.ndarray, state: State) -> np.ndarray:
    """(N,) second derivative by the gap of the Jacobian log(y + gap), where it bends upwards."""
    share = np.exp(theta[:, column("gap"), None]) / state.above
    return (problems.importance * np.maximum(share * (1 - share), 0)).sum(1)


def bends_of(
    problems: PowerProblems, theta: np.ndarray, state: State, pull: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, m) second derivatives of a domain's own terms: by log u, by it and logit beta, by logit beta."""
    gamma = np.exp(theta[:, column("decay"), None])
    per_term = (pull * gamma / state.total)[:, :, None] * state.terms
    once = np.einsum("nkj,kj->nj", per_term, problems.log_weights)
    twice = np.einsum("nkj,kj->nj", per_term, problems.log_weights**2)
    beta = exponents(theta)
    slope = beta * (1 - beta)
    return per_term.sum(1), once * slope, twice * slope**2 + once * slope * (1 - 2 * beta)


def _second_derivatives(
    problems: PowerProblems, theta: np.ndarray, state: State, jacobian: np.ndarray, majoriser: np.ndarray
) -> np.ndarray:
    """(N, P, P) second derivatives of the sum over the runs, but for those of the Jacobian log(y + gap).

    With rho(r, log s) a run's loss they are rho'' J^T J + rho' times those of r. Of these, with S the total, v its
    derivatives and V its second ones, gamma (V / S - v v^T / S^2) joins log u, logit beta and log e; V has a block
    only where a domain meets itself.
    """
    domains = problems.log_weights.shape[1]
    variance = np.exp(2 * theta[:, column("noise"), None])
    gamma = np.exp(theta[:, column("decay"), None])
    pull = majoriser * state.residuals  # rho'
    spread = majoriser * FREEDOM * variance / (FREEDOM * variance + state.residuals**2)
    curvature = 2 * spread - majoriser  # rho''
    names = ("exponent", "decay", "gap", "scale", "rest")
    exponent, decay, gap, scale, rest = (theta.shape[1] + column(name) for name in names)
    matrix = np.zeros((*theta.shape, theta.shape[1]))
    # -v v^T / S^2 is in all but these three, for which it is put back.
    bent = pull / gamma
    matrix[:, :-1, :-1] = _product(jacobian, curvature - bent, jacobian)
    plain_ones = [decay, gap, scale]
    back = _product(jacobian[:, :, plain_ones], bent, jacobian)
    matrix[:, plain_ones, :-1] += back
    matrix[:, :-1, plain_ones] += back.transpose(0, 2, 1)
    matrix[:, decay : scale + 1, decay : scale + 1] -= back[:, :, plain_ones]
    crossed = -2 * spread * state.residuals
    matrix[:, -1, :-1] = matrix[:, :-1, -1] = (crossed[:, None, :] @ jacobian)[:, 0]
    matrix[:, -1, -1] = -(crossed * state.residuals).sum(1)
    along = (pull[:, None, :] @ jacobian)[:, 0]
    inside = [*range(2 * domains), exponent, rest]
    matrix[:, decay, inside] += along[:, inside]
    matrix[:, inside, decay] += along[:, inside]
    matrix[:, decay, decay] += along[:, decay]
    share = jacobian[:, :, gap]
    matrix[:, gap, gap] += (pull * share * (1 - share)).sum(1)
    matrix[:, rest, rest] += along[:, rest]
    plain, cross, bend = bends_of(problems, theta, state, pull)
    each = np.arange(domains)
    matrix[:, each, each] += plain
    for rows, columns in ((each, domains + each), (domains + each, each), (each, exponent), (exponent, each)):
        matrix[:, rows, columns] += cross
    matrix[:, domains + each, domains + each] += bend
    matrix[:, domains + each, exponent] += bend
    matrix[:, exponent, domains + each] += bend
    matrix[:, exponent, exponent] += bend.sum(1)
    return matrix


def _product(left: np.ndarray, share: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(N, P, Q) sum_k share_k left_k right_k^T of (N, K, P), (N, K) and (N, K, Q)."""
    return left.transpose(0, 2, 1) @ (right * share[:, :, None])


def _information(problems: PowerProblems, theta: np.ndarray) -> np.ndarray:
    return _normal_equations(problems, theta, state_of(problems, theta))[0]


def _descend(
    problems: PowerProblems, theta: np.ndarray, iterations: int, tolerance: float, step_of: Step
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    damping, near = np.full(len(theta), 1e-2), np.zeros(len(theta), bool)
    state = state_of(problems, theta)
    final = state.loss.copy()
    live = np.arange(len(theta))
    for _ in range(iterations):
        current = problems.part(live)
        step, gradient = step_of(current, theta[live], state, damping[live], near[live])
        step *= np.minimum(1, _LARGEST_STEP / np.abs(step).max(1, keepdims=True).clip(1e-300))
        proposed = theta[live] + step
        proposed[:, -1] = np.maximum(proposed[:, -1], LOWEST_LOG_NOISE)
        after = state_of(current, proposed)
        gain = state.loss - after.loss
        better = gain >= 0
        stopped = (better & near[live] & (gain <= tolerance)) | (damping[live] > _HOPELESS)
        theta[live[better]] = proposed[better]
        # How much of what the step promised it kept decides how boldly to go on (Nielsen's rule).
        promised = -0.5 * (step * gradient).sum(1)
        kept = np.clip(gain / np.maximum(promised, 1e-300), 0, 1.5)
        bolder = np.where(better, np.clip(1 - (2 * kept - 1) ** 3, 0.2, 2), 4)
        damping[live] = np.clip(damping[live] * bolder, 1e-9, 10 * _HOPELESS)
        near[live] = better & (gain < _NEAR)
        state.where(better, after)
        final[live] = state.loss
        if stopped.any():
            live, state = live[~stopped], state.take(~stopped)
        if not len(live):
            break
    converged = np.ones(len(theta), bool)
    converged[live] = False
    return theta, final, converged


def _newton(
    problems: PowerProblems, theta: np.ndarray, state: State, damping: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A `Step` of all parameters."""
    matrix, gradient = _normal_equations(problems, theta, state, near)
    held = (theta[:, -1] <= LOWEST_LOG_NOISE) & (gradient[:, -1] > 0)
    gradient[held, -1] = matrix[held, -1, :-1] = matrix[held, :-1, -1] = 0
    diagonal = np.arange(matrix.shape[1])
    matrix[:, diagonal, diagonal] += damping[:, None] * np.abs(matrix[:, diagonal, diagonal])
    return np.linalg.solve(matrix, -gradient[:, :, None])[:, :, 0], gradient
