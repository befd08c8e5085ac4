"""Convex laws with random parameters, for measurements and tests of the solver alone."""

from dataclasses import dataclass
from typing import Self

import cvxpy as cp
import numpy as np

from mixing.laws.regression import Expansion, Fitted
from mixing.solve.conic import task_cones


@dataclass(frozen=True)
class ExponentialLaw(Fitted):
    """f_t(p) = constants_t + exp(a_t . p): the log-linear law without its statistics.

    Attributes:
        coefficients: (T, m) a_t.
        constants: (T,).
    """

    coefficients: np.ndarray
    constants: np.ndarray

    @classmethod
    def random(cls, generator: np.random.Generator, tasks: int, domains: int) -> Self:
        """Effects that differ by domain and, three times as much, by task."""
        effects = generator.normal(0, 0.3, domains) + generator.normal(0, 1.0, (tasks, domains))
        return cls(effects - 0.5, generator.uniform(0.3, 1.0, tasks))

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and zeros, both (n, T)."""
        values = self.constants + np.exp(weights @ self.coefficients.T)
        return values, np.zeros_like(values)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m)."""
        return np.exp(weights @ self.coefficients.T)[:, :, None] * self.coefficients

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one mixture."""
        pull = task_weights * np.exp(self.coefficients @ weights)
        return Expansion(
            float(task_weights @ self.constants + pull.sum()),
            pull @ self.coefficients,
            np.zeros(len(weights)),
            np.sqrt(pull)[:, None] * self.coefficients,
        )


@dataclass(frozen=True)
class EffectivePowerLaw(Fitted):
    """f_t(p) = C_t + exp(a_t) (sum_j u_tj (p_j + eps)^beta_t + e_t)^-gamma_t.

    The inner sum is concave and positive and x^-gamma convex and falling, so every f_t is convex.

    Attributes:
        constants: (T,) C_t.
        scale: (T,) exp(a_t).
        usefulness: (T, m) u_tj > 0.
        offset: (T,) e_t > 0.
        inner: (T,) 0 < beta_t <= 1.
        outer: (T,) gamma_t > 0.
        shift: eps.
    """

    constants: np.ndarray
    scale: np.ndarray
    usefulness: np.ndarray
    offset: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    shift: float = 1e-4

    @classmethod
    def random(cls, generator: np.random.Generator, tasks: int, domains: int) -> Self:
        """Parameters spread as they are fitted to proxy runs: log u around -2, beta and gamma around a half."""
        return cls(
            generator.uniform(0.3, 1.0, tasks),
            generator.uniform(0.5, 1.5, tasks),
            np.exp(generator.normal(-2, 1.0, (tasks, domains))),
            np.exp(generator.normal(-3, 0.5, tasks)),
            1 / (1 + np.exp(-generator.normal(0, 0.7, tasks))),
            np.exp(generator.normal(-0.7, 0.3, tasks)),
        )

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values and zeros, both (n, T)."""
        powers = (weights[:, None, :] + self.shift) ** self.inner[:, None]
        useful = (powers * self.usefulness).sum(2) + self.offset
        values = self.constants + self.scale * useful**-self.outer
        return values, np.zeros_like(values)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m)."""
        moved = weights[:, None, :] + self.shift
        terms = self.usefulness * moved ** self.inner[:, None]
        useful = terms.sum(2) + self.offset
        outer = -self.scale * self.outer * useful ** (-self.outer - 1)
        return outer[:, :, None] * self.inner[:, None] * terms / moved

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one mixture."""
        moved = weights + self.shift
        terms = np.multiply.outer(self.inner, np.log(moved))
        np.exp(terms, out=terms)
        terms *= self.usefulness
        useful = terms.sum(1) + self.offset
        tail = task_weights * self.scale * useful**-self.outer
        pull = tail * self.outer * self.inner / useful
        bend = tail * self.outer * (self.outer + 1) * (self.inner / useful) ** 2
        gradient = -(pull @ terms) / moved
        diagonal = ((pull * (1 - self.inner)) @ terms) / moved**2
        terms *= np.sqrt(bend)[:, None]
        terms /= moved
        return Expansion(float(task_weights @ self.constants + tail.sum()), gradient, diagonal, terms)


@task_cones.register
def _(law: ExponentialLaw, leaves: cp.Expression, tasks: np.ndarray) -> cp.Expression:
    return law.constants[tasks] + cp.exp(law.coefficients[tasks] @ leaves)


@task_cones.register
def _(law: EffectivePowerLaw, leaves: cp.Expression, tasks: np.ndarray) -> cp.Expression:
    """One power cone per task and domain, and one per task."""
    predictions = []
    for t in tasks:
        useful = law.usefulness[t] @ cp.power(leaves + law.shift, law.inner[t], approx=False) + law.offset[t]
        predictions.append(law.constants[t] + law.scale[t] * cp.power(useful, -law.outer[t], approx=False))
    return cp.hstack(predictions)
