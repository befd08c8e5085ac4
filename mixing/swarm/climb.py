"""CLIMB's rounds (arXiv 2504.13161): each swarm is drawn from where the last fit predicts the best mixtures.

Round 1: Dirichlet draws on the token counts. Every later round: many candidates, half of them Dirichlet draws at
several concentrations, half local perturbations of the best; of the N with the lowest prediction, K_r at random.
The published rounds have 64, 32 and 16 runs.
"""

from dataclasses import dataclass, field

import numpy as np

from mixing.errors import Infeasible, InvalidSetting
from mixing.swarm.acquisition import Predict
from mixing.swarm.design import CONCENTRATIONS, candidate_pool, perturbed_around
from mixing.swarm.dirichlet import dirichlet_rows
from mixing.swarm.filling import Filling, distinct, fill
from mixing.swarm.space import SwarmSpace

ROUNDS = (64, 32, 16)
"""Runs of each published round."""


@dataclass(frozen=True)
class Climb:
    """Settings of the rounds.

    Attributes:
        concentrations: of round 1's draws, one at random per draw: the sum of the Dirichlet's shapes is this times
            the number of domains.
        candidates: how many are predicted in a later round.
        best: N, the candidates with the lowest prediction that a round is sampled from, in multiples of its runs.
        centres: how many of the best are perturbed.
        filling: rejection, near-duplicates and coverage of round 1.
    """

    concentrations: tuple[float, ...] = CONCENTRATIONS
    candidates: int = 4096
    best: float = 4.0
    centres: int = 8
    filling: Filling = field(default_factory=Filling)

    def __post_init__(self) -> None:
        if not self.best >= 1 or self.centres < 1:
            raise InvalidSetting(
                f"best is {self.best} and centres {self.centres}; both must be at least 1", field="best"
            )


def first_batch(
    space: SwarmSpace, runs: int, generator: np.random.Generator, settings: Climb | None = None
) -> np.ndarray:
    """(runs, m) Dirichlet draws on the token counts, in the space and distinct.

    Raises:
        InvalidSetting: no runs.
        Infeasible: the space has fewer than `runs` distinct mixtures.
    """
    settings = settings or Climb()

    def draw(count: int) -> np.ndarray:
        if not space.drawn.any():
            return np.zeros((count, len(space)))
        concentration = generator.choice(settings.concentrations, size=(count, 1))
        return dirichlet_rows(concentration * space.drawn.sum() * space.prior, generator)

    return fill(space, runs, draw, generator, settings.filling)


def next_batch(
    predict: Predict,
    existing: np.ndarray,
    space: SwarmSpace,
    runs: int,
    generator: np.random.Generator,
    settings: Climb | None = None,
) -> np.ndarray:
    """(runs, m) mixtures for the next round, none near an existing one.

    Args:
        predict: the fit to all runs so far; only its mean is used.
        existing: (e, m) mixtures trained or training.
        space: where the mixtures may lie.
        runs: K_r.
        generator: draws the candidates and the choice among the best.
        settings: as published where they are not given.

    Raises:
        Infeasible: fewer than `runs` new mixtures were found.
    """
    settings = settings or Climb()
    wide = candidate_pool(space, max(settings.candidates // 2, 2 * runs), generator)
    centres = np.concatenate([existing, wide])
    centres = centres[np.argsort(predict(centres)[0], kind="stable")[: settings.centres]]
    near = perturbed_around(space, centres, max(settings.candidates - len(wide), 2 * runs), generator)
    pool = np.concatenate([existing, wide, near])
    fresh = distinct(pool, settings.filling.duplicate_distance)
    fresh[: len(existing)] = False
    candidates = pool[fresh]
    if len(candidates) < runs:
        raise Infeasible(
            f"only {len(candidates)} mixtures of the space are not trained yet, fewer than {runs}; lower the"
            " target tokens or raise the repetition cap",
            field="runs",
            names=space.domains.names,
        )
    best = np.argsort(predict(candidates)[0], kind="stable")[: max(runs, int(settings.best * runs))]
    return candidates[np.sort(generator.choice(best, size=runs, replace=False))]
