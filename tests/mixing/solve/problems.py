"""Random problems that the tests of the optimizer share."""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

from benchmarks.laws import EffectivePowerLaw, ExponentialLaw
from mixing.laws.regression import Fitted
from mixing.simplex_map import SimplexMap
from mixing.solve.constraints import LinearConstraint
from mixing.solve.problem import HALF_LIFE_EPOCHS, MixtureProblem, Objective, TaskMean

LAWS = [ExponentialLaw, EffectivePowerLaw]


def names(domains: int) -> tuple[str, ...]:
    return tuple(f"d{index:04d}" for index in range(domains))


def problem_of(
    seed: int,
    domains: int,
    *,
    law: type[ExponentialLaw] | type[EffectivePowerLaw] = ExponentialLaw,
    tasks: int = 5,
    kl_weight: float = 0.05,
    caps: np.ndarray | None = None,
    families: tuple[TaskMean, ...] = (),
    **rest: Any,
) -> MixtureProblem:
    """A random law and prior; caps of about four times the prior where none are given."""
    generator = np.random.default_rng(seed)
    fitted: Fitted = law.random(generator, tasks, domains)
    prior = generator.dirichlet(np.ones(domains)) * 0.9 + 0.1 / domains
    if caps is None:
        caps = 4 * prior * generator.uniform(0.5, 1.5, domains)
    weights = generator.uniform(0.1, 1, tasks)
    objective = Objective(fitted, weights / weights.sum(), prior, kl_weight, families)
    return MixtureProblem(objective, SimplexMap.identity(names(domains)), caps, **rest)


def pinned_at(domain: str, weight: float) -> LinearConstraint:
    """A domain held at one weight."""
    return LinearConstraint(f"{domain} at {weight:g}", {domain: 1.0}, weight, weight)


def at_least(domain: str, weight: float) -> LinearConstraint:
    """The least weight of a domain."""
    return LinearConstraint(f"{domain} at least {weight:g}", {domain: 1.0}, lower=weight)


def share_between(name: str, domains: Collection[str], lower: float, upper: float) -> LinearConstraint:
    """The total weight of a group within a range."""
    return LinearConstraint(name, dict.fromkeys(domains, 1.0), lower, upper)


def single_tasks(count: int) -> tuple[TaskMean, ...]:
    return tuple(TaskMean(f"task {t}", np.eye(count)[t]) for t in range(count))


def grid(domains: int, steps: int) -> np.ndarray:
    """Every mixture with weights in multiples of 1 / steps."""
    heads = itertools.product(range(steps + 1), repeat=domains - 1)
    return np.array([(*head, steps - sum(head)) for head in heads if sum(head) <= steps]) / steps


def effective_tokens(unique_tokens: np.ndarray | float, total_tokens: np.ndarray | float) -> np.ndarray:
    """Fresh tokens that `total_tokens` read from `unique_tokens` are worth (same shape, broadcast).

    D' = U + U R* (1 - exp(-(D/U - 1) / R*)) for D > U, else D (arXiv 2305.16264, section 3.1).
    """
    unique = np.asarray(unique_tokens, float)
    total = np.asarray(total_tokens, float)
    repeats = np.maximum(total / unique - 1, 0)
    saturating = unique * (1 - HALF_LIFE_EPOCHS * np.expm1(-repeats / HALF_LIFE_EPOCHS))
    return np.where(total > unique, saturating, total)
