"""How published methods choose a mixture from a fitted regression: among candidates, no constraints of their own.

`predict` gives the value to be minimised, (n,) for (n, m) mixtures; candidates come from `mixing.swarm`.
"""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist

from mixing.errors import InvalidSetting

Predict = Callable[[np.ndarray], np.ndarray]

REGMIX_DRAWS = 100_000
REGMIX_BEST = 128


def regmix_candidates(
    prior: np.ndarray, generator: np.random.Generator, draws: int = REGMIX_DRAWS
) -> np.ndarray:
    """(draws, m) of Dirichlet(prior), the prior being the weights themselves, which sum to 1 (arXiv 2407.01492)."""
    drawn = np.maximum(generator.dirichlet(prior, size=draws), 0.0)
    return drawn / drawn.sum(axis=1, keepdims=True)


def mean_of_best(predict: Predict, candidates: np.ndarray, best: int = REGMIX_BEST) -> np.ndarray:
    """RegMix's choice: the mean of the `best` candidates with the lowest predictions.

    Raises:
        InvalidSetting: fewer candidates than are to be averaged.
    """
    if not 1 <= best <= len(candidates):
        raise InvalidSetting(
            f"the mean of the {best} best needs that many candidates, not {len(candidates)}", field="best"
        )
    chosen = np.argsort(predict(candidates), kind="stable")[:best]
    return candidates[chosen].mean(axis=0)


def predicted_best(
    predict: Predict, candidates: np.ndarray, trained: np.ndarray | None = None, apart: float = 1e-5
) -> np.ndarray:
    """The candidate with the lowest prediction.

    CLIMB (arXiv 2504.13161) chooses among fresh candidates: those within L1 distance `apart` of a (K, m) `trained`
    mixture are left out. ADMIRE-BayesOpt chooses the best posterior mean at full fidelity among all of its
    candidates, trained ones included: leave `trained` out and let `predict` be that mean.

    Raises:
        InvalidSetting: every candidate was trained already.
    """
    fresh = candidates
    if trained is not None:
        fresh = candidates[cdist(candidates, trained, "cityblock").min(axis=1) > apart]
    if not len(fresh):
        raise InvalidSetting("every candidate has been trained already", field="candidates")
    return fresh[int(np.argmin(predict(fresh)))]
