"""Laws over the mixture, the parameters and the tokens: fitted to runs of several sizes and lengths, read at any.

Every form is, for n and d the logarithms of parameters and tokens in units of the proxies', a sum of powers of the
useful data that a task sees, each convex in the mixture whatever n and d are:

    y_t(p; n, d) = E(n, d) + sum_r s_r(n, d) S_r(p)^(-g_r(n, d)),   S_r(p) = sum_j u_rj (p_j + eps)^b_rj + e_r

- `additive` (Scaling Laws for Optimal Data Mixtures, arXiv 2507.09404): E + A e^(-an) + B e^(-bd), and one term of
  g = 1 and e = 0 that neither size nor tokens move: 1 / sum_j C_j h_j^c_j.
- `joint` (the same): A and B are powers of linear forms in h, here negative ones, which are convex.
- `moving`: our effective power law, whose size and decay are powers of parameters and tokens.

Parameters have weak normal priors in units of a task's spread, and are found task by task by least squares. Which
form is right is asked of extrapolation (`mixing.laws.extrapolation`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.regression import Expansion, Fitted

FLOOR = 5e-5
"""eps, as of the effective power law."""
_ERROR = 0.05
"""Deviation of a measurement from its law, of the task's spread, that the priors are weighed against."""
_STEPS = 60


@dataclass(frozen=True)
class PowerTerms:
    """One term of T tasks over m domains: scale * (sum_j usefulness_j (p_j + eps)^exponents_j + rest)^-decay.

    Attributes:
        usefulness: (T, m) above 0.
        exponents: (T, m) above 0, at most 1.
        rest: (T,) at least 0.
        decay: (T,) above 0.
        scales: (T,) above 0.
    """

    usefulness: np.ndarray
    exponents: np.ndarray
    rest: np.ndarray
    decay: np.ndarray
    scales: np.ndarray

    def useful(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) what each domain gives."""
        return self.usefulness * np.exp(self.exponents * np.log(weights + FLOOR)[:, None, :])

    def value(self, useful: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, T) sums and values."""
        total = useful.sum(axis=2) + self.rest
        return total, self.scales * total**-self.decay


@dataclass(frozen=True)
class FittedScaling(Fitted):
    """The law at one size and length: convex in the mixture.

    Attributes:
        constants: (T,) E.
        terms: that vary with the mixture.
    """

    constants: np.ndarray
    terms: tuple[PowerTerms, ...]

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean, and 0 for what is not known of its deviation, both (n, T), at (n, m) mixtures."""
        mean = self.constants + sum(term.value(term.useful(weights))[1] for term in self.terms)
        return mean, np.zeros_like(mean)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives, the weights taken as independent."""
        slopes = np.zeros((len(weights), len(self.constants), weights.shape[1]))
        for term in self.terms:
            useful = term.useful(weights)
            total, value = term.value(useful)
            slopes -= (
                (term.decay * value / total)[:, :, None]
                * term.exponents
                * useful
                / (weights + FLOOR)[:, None]
            )
        return slopes

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one (m,) mixture, for (T,) non-negative task weights."""
        value, present = float(task_weights @ self.constants), weights + FLOOR
        gradient, diagonal, factors = np.zeros(len(weights)), np.zeros(len(weights)), []
        for term in self.terms:
            useful = term.useful(weights[None])
            total, own = (found[0] for found in term.value(useful))
            slopes = term.exponents * useful[0] / present
            falling = term.decay * task_weights * own / total
            value += float(task_weights @ own)
            gradient -= falling @ slopes
            diagonal += falling @ (slopes * (1 - term.exponents) / present)
            factors.append(np.sqrt((term.decay + 1) * falling / total)[:, None] * slopes)
        return Expansion(value, gradient, diagonal, np.concatenate(factors))


# A form reads its (P,) parameters of one task at (n, d): the constant, and (u, b, e, g, s) of each term.
Term = tuple[np.ndarray, np.ndarray, float, float, float]
Read = Callable[[np.ndarray, int, np.ndarray], tuple[float, list[Term]]]


def _sigmoid(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value))


def _levels(rest: np.ndarray, at: np.ndarray) -> tuple[float, float, float]:
    """E, and e^(-an) and e^(-bd), of three parameters."""
    constant, size, tokens = rest
    return float(constant), float(np.exp(-np.exp(size) * at[0])), float(np.exp(-np.exp(tokens) * at[1]))


def _additive(theta: np.ndarray, domains: int, at: np.ndarray) -> tuple[float, list[Term]]:
    constant, size, tokens = _levels(theta[2 * domains : 2 * domains + 3], at)
    of_size, of_tokens = np.exp(theta[2 * domains + 3 :])
    shape = np.exp(theta[:domains]), _sigmoid(theta[domains : 2 * domains])
    return constant + of_size * size + of_tokens * tokens, [(*shape, 0.0, 1.0, 1.0)]


def _joint(theta: np.ndarray, domains: int, at: np.ndarray) -> tuple[float, list[Term]]:
    constant, size, tokens = _levels(theta[4 * domains : 4 * domains + 3], at)
    decays, ones = np.exp(theta[4 * domains + 3 :]), np.ones(domains)
    parts = np.exp(theta[: 3 * domains]).reshape(3, domains)
    bends = _sigmoid(theta[3 * domains : 4 * domains])
    return constant, [
        (parts[0], bends, 0.0, 1.0, 1.0),
        (parts[1], ones, 0.0, float(decays[0]), size),
        (parts[2], ones, 0.0, float(decays[1]), tokens),
    ]


def _moving(theta: np.ndarray, domains: int, at: np.ndarray) -> tuple[float, list[Term]]:
    constant, size, tokens = _levels(theta[2 * domains : 2 * domains + 3], at)
    of_size, of_tokens, rest, decay, scale, *moves = theta[2 * domains + 3 :]
    shape = np.exp(theta[:domains]), _sigmoid(theta[domains : 2 * domains])
    decay, scale = decay + np.array(moves[:2]) @ at, scale + np.array(moves[2:]) @ at
    level = constant + np.exp(of_size) * size + np.exp(of_tokens) * tokens
    return float(level), [(*shape, float(np.exp(rest)), float(np.exp(decay)), float(np.exp(scale)))]


@dataclass(frozen=True)
class _Form:
    """How its parameters are read, and the (mean, deviation) of their priors: of each domain's, and of the others."""

    read: Read
    each: tuple[tuple[float, float], ...]
    others: tuple[tuple[float, float], ...]

    def prior(self, domains: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = [pair for pair in self.each for _ in range(domains)] + list(self.others)
        mean, deviation = np.array(pairs).T
        return mean, deviation


_LEVEL, _RATE, _SHARE = (0.0, 10.0), (-1.5, 1.0), (0.0, 1.5)
_USEFUL, _BEND = (-1.0, 2.0), (0.0, 1.0)
_FORMS: Mapping[str, _Form] = {
    "additive": _Form(_additive, (_USEFUL, _BEND), (_LEVEL, _RATE, _RATE, _SHARE, _SHARE)),
    "joint": _Form(
        _joint, (_USEFUL, _USEFUL, _USEFUL, _BEND), (_LEVEL, _RATE, _RATE, (-1.0, 0.5), (-1.0, 0.5))
    ),
    "moving": _Form(
        _moving,
        (_USEFUL, _BEND),
        (_LEVEL, _RATE, _RATE, _SHARE, _SHARE, (-2.0, 1.0), (-1.0, 0.5), (0.0, 2.0), *((0.0, 0.1),) * 4),
    ),
}
FORMS = tuple(_FORMS)


@dataclass(frozen=True)
class ScalingLaw:
    """A fitted form over (m,) mixtures, parameters and tokens.

    Attributes:
        form: its name.
        domains: m.
        theta: (T, P).
        level: (T,) and
        unit: (T,) metric = level + unit * what the form says.
    """

    form: str
    domains: int
    theta: np.ndarray
    level: np.ndarray
    unit: np.ndarray

    def at(self, parameters: float, tokens: float) -> FittedScaling:
        """The law of the mixture at a size and length, in units of the proxies'.

        Raises:
            InvalidSetting: one that is not above 0.
        """
        if not (parameters > 0 and tokens > 0):
            raise InvalidSetting(f"a scale of {parameters} and {tokens} is not above 0", field="target")
        at = np.log([parameters, tokens])
        read = [_FORMS[self.form].read(theta, self.domains, at) for theta in self.theta]
        terms = []
        for task_terms in zip(*(found for _, found in read), strict=True):
            usefulness, exponents, rest, decay, scales = (
                np.array(part) for part in zip(*task_terms, strict=True)
            )
            terms.append(PowerTerms(usefulness, exponents, rest, decay, self.unit * scales))
        return FittedScaling(
            self.level + self.unit * np.array([constant for constant, _ in read]), tuple(terms)
        )


def fit_scaling_law(form: str, weights: np.ndarray, metrics: np.ndarray, scales: np.ndarray) -> ScalingLaw:
    """Least squares of every task with the form's priors.

    Args:
        form: one of `FORMS`.
        weights: (K, m) mixtures.
        metrics: (K, T), lower is better.
        scales: (K, 2) parameters and tokens of each run, in units of the proxies'.

    Raises:
        InvalidSetting: no such form; a scale that is not above 0; sizes and lengths that cannot be told apart.
        InvalidMetrics: one that is not finite.
        TooFewRuns: fewer than m / 2 + 8.
    """
    if form not in _FORMS:
        raise InvalidSetting(
            f"there is no form {form!r} of a scaling law; there are {', '.join(FORMS)}", field="law"
        )
    if not np.isfinite(metrics).all():
        raise InvalidMetrics("a scaling law needs every metric of every run", field="metrics")
    runs, domains = weights.shape
    if runs < (needed := domains // 2 + 8):
        message = f"{runs} runs are too few for a scaling law over {domains} domains"
        raise TooFewRuns(message, needed=needed, given=runs)
    _check_apart(scales)
    level, unit = metrics.mean(0), metrics.std(0)
    at = np.log(scales)
    values = (metrics - level) / unit
    theta = np.array([_fitted(form, weights, column, at) for column in values.T])
    return ScalingLaw(form, domains, theta, level, unit)


def _check_apart(scales: np.ndarray) -> None:
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise InvalidSetting("parameters and tokens of a run are above 0", field="scales")
    spread = np.ptp(np.log(scales), axis=0)
    if spread.max() < np.log(1.05):
        raise InvalidSetting(
            "all runs have one size and one length, which no law can tell apart", field="scales"
        )


def _fitted(form: str, weights: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(P,) parameters of one task; at each of the different scales all its runs are read at once."""
    spec, domains = _FORMS[form], weights.shape[1]
    mean, deviation = spec.prior(domains)
    logs = np.log(weights + FLOOR)
    different, which = np.unique(np.round(at, 9), axis=0, return_inverse=True)
    groups = [np.flatnonzero(which.ravel() == number) for number in range(len(different))]

    def away(theta: np.ndarray) -> np.ndarray:
        predicted = np.empty(len(values))
        for rows, scale in zip(groups, different, strict=True):
            constant, terms = spec.read(theta, domains, scale)
            predicted[rows] = constant
            for usefulness, exponents, rest, decay, size in terms:
                total = np.exp(logs[rows] * exponents) @ usefulness + rest
                predicted[rows] += size * total**-decay
        return np.concatenate([(predicted - values) / _ERROR, (theta - mean) / deviation])

    return least_squares(away, mean, x_scale=deviation, max_nfev=_STEPS).x
