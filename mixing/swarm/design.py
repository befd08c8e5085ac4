"""Designs that need no labels: which mixtures to train so that a law is identified best (D-optimal) or the space
is filled (maximin).

D-optimal: the runs whose information matrix X'X has the largest determinant, X being features of the mixtures
(Fedorov, Theory of Optimal Experiments, 1972). First greedily, one row at a time where the prediction is least
certain; then by exchange, a chosen row for the candidate that raises the determinant most, until none does. Both
keep the inverse by rank-one updates: O(n f) a step for n candidates and f features.

Maximin: the smallest distance between two runs as large as can be (Johnson, Moore and Ylvisaker, 1990): farthest
point first, which is within a factor of 2 of the best, then exchange of one of the closest pair.

Runs already trained count as chosen.
"""

import numpy as np

from mixing.errors import TooFewRuns
from mixing.inverses import floored_inverse
from mixing.swarm.dirichlet import dirichlet_rows
from mixing.swarm.filling import DUPLICATE_DISTANCE, distinct
from mixing.swarm.space import SwarmSpace, corners, into_space

CONCENTRATIONS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Of Dirichlet draws: from nearly one domain a mixture to nearly the centre."""


def candidate_pool(space: SwarmSpace, count: int, generator: np.random.Generator) -> np.ndarray:
    """(about count, m) distinct mixtures of the space.

    Half are Dirichlet draws at several concentrations around the natural distribution and around equal weights, a
    quarter corners of the space, and a quarter averages of two to four of these.
    """
    drawn = np.flatnonzero(space.drawn)
    if not len(drawn):
        return space.pinned[None].copy()
    around = np.stack([space.prior[drawn], np.full(len(drawn), 1 / len(drawn))])
    concentration = generator.choice(CONCENTRATIONS, size=(count // 2, 1))
    centre = around[generator.integers(0, 2, size=count // 2)]
    raw = np.zeros((count // 2, len(space)))
    raw[:, drawn] = dirichlet_rows(concentration * len(drawn) * centre, generator)
    extremes = corners(space, max(len(drawn), count // 4), generator)
    shares = generator.dirichlet(np.ones(4), size=count // 4)
    shares[np.arange(4) >= generator.integers(2, 5, size=(count // 4, 1))] = 0.0
    shares /= shares.sum(1, keepdims=True)
    members = extremes[generator.integers(0, len(extremes), size=(count // 4, 4))]
    mixed = into_space(space, np.einsum("nk,nkm->nm", shares, members), generator)
    pool = np.concatenate([extremes, into_space(space, raw, generator), mixed])
    return pool[distinct(pool, DUPLICATE_DISTANCE)]


def perturbed_around(
    space: SwarmSpace, centres: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """(count, m) mixtures of the space near (c, m) centres: Dirichlet draws of concentration 30 to 3,000 on them.

    One in four first moves a tenth of itself towards the natural distribution, so that domains a centre leaves
    out can come back.
    """
    mean = centres[generator.integers(0, len(centres), size=count)] * space.drawn
    mean /= np.maximum(mean.sum(1, keepdims=True), np.finfo(float).tiny)
    returning = generator.random((count, 1)) < 0.25
    mean = np.where(returning, 0.9 * mean + 0.1 * space.prior, mean)
    if not space.drawn.any():
        return np.tile(space.pinned, (count, 1))
    concentration = 10 ** generator.uniform(np.log10(30), np.log10(3000), size=(count, 1))
    return into_space(space, dirichlet_rows(concentration * mean, generator), generator)


_HALF_WEIGHT = 1e-3
"""Where log(1 + p / eps) turns from linear to logarithmic."""
_PASSES = 4
"""Most rounds of exchange over all chosen rows."""
_SWAPS_PER_PASS = 32
"""Of maximin, whose every swap mends one closest pair."""


def log_weights(weights: np.ndarray) -> np.ndarray:
    """(n, m) log(1 + p / 0.001), what of a mixture a law is thought to be linear in.

    Of the weights, their roots and these it chose best on the published RegMix runs (`benchmarks.designs`).
    """
    return np.log1p(weights / _HALF_WEIGHT)


def log_features(weights: np.ndarray) -> np.ndarray:
    """(n, m + 1) rows of X: the log-weights and a constant."""
    return np.concatenate([log_weights(weights), np.ones((len(weights), 1))], axis=1)


def d_optimal(rows: np.ndarray, runs: int, existing: np.ndarray, ridge: float = 1e-3) -> np.ndarray:
    """(runs,) row numbers of the (n, f) candidates to train, rising.

    Args:
        rows: features of the candidates.
        runs: how many to choose.
        existing: (e, f) features of the mixtures trained already, which the choice complements.
        ridge: information assumed beforehand, as a share of what one average candidate gives; it decides where
            there are fewer runs than features.

    Raises:
        TooFewRuns: fewer than `runs` candidates.
    """
    _check_enough(rows, runs)
    before = existing.T @ existing + ridge * (rows**2).mean() * np.eye(rows.shape[1])
    inverse = floored_inverse(before)
    variance = np.einsum("nf,fg,ng->n", rows, inverse, rows)
    free = np.ones(len(rows), bool)
    chosen = np.empty(runs, int)
    for step in range(runs):
        pick = int(np.argmax(np.where(free, variance, -1.0)))
        chosen[step], free[pick] = pick, False
        inverse, variance = _with_row(inverse, variance, rows, pick, 1.0)
    for _ in range(_PASSES):
        if not _exchange_pass(rows, chosen, free, before):
            break
    return np.sort(chosen)


def _check_enough(candidates: np.ndarray, runs: int) -> None:
    if not 1 <= runs <= len(candidates):
        raise TooFewRuns(
            f"{runs} runs cannot be chosen from {len(candidates)} candidates",
            needed=runs,
            given=len(candidates),
        )


def _exchange_pass(rows: np.ndarray, chosen: np.ndarray, free: np.ndarray, before: np.ndarray) -> bool:
    """Offer every chosen row, in place, for the candidate that raises the determinant most; whether any went."""
    # Anew for each pass, so that the rounding of rank-one updates does not add up.
    inverse = floored_inverse(before + rows[chosen].T @ rows[chosen])
    variance = np.einsum("nf,fg,ng->n", rows, inverse, rows)
    improved = False
    for position, old in enumerate(chosen):
        # det(M - x x' + y y') / det(M) = (1 - d_x)(1 + d_y) + d_xy^2
        ratio = (1 - variance[old]) * (1 + variance) + (rows @ (inverse @ rows[old])) ** 2
        new = int(np.argmax(np.where(free, ratio, 0.0)))
        if ratio[new] <= 1 + 1e-9:
            continue
        inverse, variance = _with_row(inverse, variance, rows, new, 1.0)
        inverse, variance = _with_row(inverse, variance, rows, int(old), -1.0)
        chosen[position], free[old], free[new] = new, True, False
        improved = True
    return improved


def _with_row(
    inverse: np.ndarray, variance: np.ndarray, rows: np.ndarray, row: int, sign: float
) -> tuple[np.ndarray, np.ndarray]:
    """Inverse information and every row's variance once a row is added (sign 1) or taken away (-1)."""
    direction = inverse @ rows[row]
    scale = sign / (1 + sign * variance[row])
    return (
        inverse - scale * np.outer(direction, direction),
        variance - scale * (rows @ direction) ** 2,
    )


def maximin(points: np.ndarray, runs: int, existing: np.ndarray) -> np.ndarray:
    """(runs,) row numbers of the (n, f) points to train, rising; (e, f) existing ones count as chosen.

    Raises:
        TooFewRuns: fewer than `runs` candidates.
    """
    _check_enough(points, runs)
    known = existing if len(existing) else points.mean(0, keepdims=True)
    nearest, squares = _squared_distances(points, known).min(1), (points**2).sum(1)
    chosen: list[int] = []
    for step in range(runs):
        pick = int(np.argmax(nearest))
        chosen.append(pick)
        distances = np.maximum(squares + squares[pick] - 2 * (points @ points[pick]), 0.0)
        nearest = distances if step == 0 and not len(existing) else np.minimum(nearest, distances)
        nearest[chosen] = -1.0
    # The candidates farthest from what is chosen are those an exchange can gain from.
    outside = np.argsort(-nearest, kind="stable")[: min(2 * runs, len(points) - runs)]
    return np.sort(_spread_by_exchange(points, np.array(chosen), outside, existing))


def _spread_by_exchange(
    points: np.ndarray, chosen: np.ndarray, outside: np.ndarray, existing: np.ndarray
) -> np.ndarray:
    """Replace one of the closest pair by an outside candidate for as long as the smallest distance grows."""
    rows = np.concatenate([chosen, outside])
    held = np.concatenate([points[rows], existing])
    apart = _squared_distances(points[rows], held)
    np.fill_diagonal(apart, np.inf)
    taken = np.zeros(len(held), bool)
    taken[: len(chosen)] = taken[len(rows) :] = True
    for _ in range(_PASSES * _SWAPS_PER_PASS):
        nearest = np.where(taken[: len(rows)], apart[:, taken].min(1, initial=np.inf), np.inf)
        closest = int(np.argmin(nearest))
        pair = int(np.argmin(np.where(taken, apart[closest], np.inf)))
        swaps = []
        for old in {closest, pair} & set(np.flatnonzero(taken[: len(rows)]).tolist()):
            others = taken.copy()
            others[old] = False
            gain = np.where(taken[: len(rows)], -1.0, apart[:, others].min(1, initial=np.inf))
            swaps.append((float(gain.max()), old, int(gain.argmax())))
        best, old, new = max(swaps)
        if best <= nearest[closest] * (1 + 1e-12):
            break
        taken[old], taken[new] = False, True
    return rows[taken[: len(rows)]]


def _squared_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, o) between (n, f) and (o, f) points."""
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1)
    return np.maximum(squares - 2 * (points @ others.T), 0.0)
