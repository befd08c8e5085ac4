"""How strongly domains are coupled in a fitted law: what keeping one's ratio costs when another changes.

At the optimum p* of the objective F, let the whole weight of domain a be lost to the others in proportion, or as much
come to it from them. To first order of the gradient, F's slopes along every other domain's ratio then change by

    r_j = d_j . H Delta,   Delta_a = -+p_a,   Delta_k = +-p_k p_a / (1 - p_a) for the others,

with H the Hessian of F and d_j = e_j - p' the direction that gives weight to j and takes it from the others in
proportion. To keep j's ratio all the same costs what one Newton step along d_j would gain, as far as j's weight and
its cap let it go. The larger of the two directions counts. The KL term does not couple domains, but it does hold
them: it is in the curvature d_j . H d_j.
"""

import numpy as np

from mixing.solve.problem import MixtureProblem

_LEAST = 1e-12
"""A weight below this is none."""


def couplings(problem: MixtureProblem, weights: np.ndarray) -> np.ndarray | None:
    """(m, m) cost, in the metrics' unit, of keeping the column's ratio when the row's whole weight changes.

    Args:
        problem: whose optimum, over domains that are all free, the weights are.
        weights: (m,) p*.

    Returns:
        The costs, 0 on the diagonal; None for a law without a gradient, and for the worst of several families, which
        has no curvature. Of a law that is not convex what bends down counts as straight.
    """
    objective = problem.objective
    inside = np.maximum(weights, _LEAST)
    expansion = None if objective.families else objective.local(inside)
    if expansion is None:
        return None
    diagonal, factors = expansion.diagonal, expansion.factors
    caps = np.minimum(problem.caps, 1.0)
    costs = np.zeros((len(weights), len(weights)))
    for a in np.flatnonzero(weights > _LEAST):
        others = np.where(np.arange(len(weights)) == a, 0.0, inside)
        others /= others.sum()
        change = weights[a] * (others - np.eye(len(weights))[a])
        # H v for v the change and for the others' own proportions, against every d_j = e_j - others at once.
        moved = diagonal * change + (factors @ change) @ factors
        within = diagonal * others + (factors @ others) @ factors
        slope = moved - others @ moved
        curvature = diagonal + np.einsum("rj,rj->j", factors, factors) - 2 * within + others @ within
        rest = expansion.gradient - others @ expansion.gradient
        for sign in (1.0, -1.0):
            now = np.maximum(weights + sign * change, 0.0)
            room = (-now, np.maximum(caps - now, 0.0))
            cost = _gain(rest + sign * slope, curvature, room) - _gain(rest, curvature, room)
            costs[a] = np.maximum(costs[a], np.where(np.arange(len(weights)) == a, 0.0, cost))
    return objective.unit * costs


def _gain(slope: np.ndarray, curvature: np.ndarray, room: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(m,) what a step along each direction gains, of a parabola, within the room there is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(curvature > 0, -slope / curvature, -np.sign(slope))
    step = np.clip(np.nan_to_num(step), *room)
    return np.maximum(-(slope * step + curvature * step**2 / 2), 0.0)
