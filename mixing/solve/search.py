"""A refined search for regressions that are not convex: trees, Gaussian processes, ensembles.

One draw of 100,000 mixtures, as published, spends almost all of its predictions where nothing is to be gained. Here a
part of the evaluations goes to such a draw, and the best of it, far enough from each other, are refined inside caps
and constraints. Moves do that: weight taken from one domain and given to another, noise on the log-weights, steps
towards and past each other, and steps down the gradient of a law that has one. Half of the searches, the worse ones,
end after each quarter of what is left. Where the objective has slopes, descents by successive convex problems
(`mixing.solve.successive`), from the best draws and from the centre, go most of the way, and a tenth of the moves the
rest: over the places where another run becomes the nearest one, at which a descent stays.

A regression that extrapolates has optima where it is wrong, and a better search finds them more surely. So the answer
says how far it lies from the nearest run, and `distance_penalty` lets that distance cost something.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.optimize import lsq_linear

from mixing.capped_simplex import into_capped_simplex, settle
from mixing.errors import Infeasible, InvalidSetting
from mixing.solve.conflicts import inside_of
from mixing.solve.constraints import Box, LinearSystem
from mixing.solve.problem import MixtureProblem
from mixing.solve.solution import Prices, Solution, binding
from mixing.solve.successive import Score, can_descend, descend

STRENGTHS = np.logspace(-1, 2, 13)
"""Of the Dirichlet draws, relative to a centre of mean weight 1: from single domains to near the centre."""


@dataclass(frozen=True)
class Region:
    """{q : G q <= h, A q = b, sum q = 1, q >= 0}, not empty.

    Attributes:
        system: its constraints.
        inside: (n,) the q deepest in it.
    """

    system: LinearSystem
    inside: np.ndarray

    @classmethod
    def of(cls, problem: MixtureProblem) -> Self:
        """The region of a problem's linear constraints.

        Raises:
            Infeasible: it is empty.
        """
        return cls(problem.system, inside_of(problem.system)[0])

    @cached_property
    def box(self) -> Box:
        """The constraints by the number of q they touch."""
        return Box.of(self.system)

    @cached_property
    def equality(self) -> np.ndarray:
        """(e', n) orthonormal rows spanning sum q and the equalities."""
        rows = np.concatenate([np.ones((1, len(self.inside))), self.system.equality])
        _, size, basis = np.linalg.svd(rows, full_matrices=False)
        return basis[size > 1e-10 * size[0]]

    def along(self, directions: np.ndarray) -> np.ndarray:
        """(N, n) directions without what would leave the equalities."""
        return directions - (directions @ self.equality.T) @ self.equality

    def reach(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) the largest step along each (N, n) direction that stays in the region."""
        box = self.box
        with np.errstate(divide="ignore", invalid="ignore"):
            lower = np.where(directions < 0, (box.lower - points) / directions, np.inf)
            upper = np.where(directions > 0, (box.upper - points) / directions, np.inf)
            steepness = directions @ box.coupling.T
            rows = np.where(steepness > 0, (box.bound - points @ box.coupling.T) / steepness, np.inf)
        limits = np.concatenate([lower, upper, rows], axis=1).min(axis=1)
        return np.maximum(np.where(np.isfinite(limits), limits, 0.0), 0.0)

    def towards(self, points: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(N, n) targets, each pulled back to where the way from a point of the region to it leaves the region."""
        directions = self.along(targets - points)
        return points + np.minimum(self.reach(points, directions), 1.0)[:, None] * directions

    def draw(self, centre: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, n) Dirichlet draws of many strengths, half around (n,) `centre` and half around uniform.

        Caps are kept by water-filling, all other constraints by stopping on the way from `inside`.
        """
        width = len(centre)
        # Below this a gamma draw can underflow in every domain at once.
        around = np.maximum(np.stack([centre * width, np.ones(width)]), 1e-2)
        shapes = around[np.arange(count) % 2] * generator.choice(STRENGTHS, size=count)[:, None]
        drawn = generator.gamma(shapes) + 1e-300
        drawn /= drawn.sum(axis=1, keepdims=True)
        if self.box.upper.sum() >= 1:
            drawn = into_capped_simplex(drawn, self.box.upper, self.box.upper)
        return self.towards(np.tile(self.inside, (count, 1)), drawn)


_BINDS = 1e-6  # of a bound
_UNUSED = 1e-5  # a weight that says nothing of what slopes there
_POOL = 0.2  # share of the evaluations drawn at random
_SEARCHES = 32
_APART = 0.05  # L1 distance between the starts of two searches
_HALVINGS = 4
_DESCENTS = 16  # at most
_DRAWN_A_DESCENT = 125
_FIRST_STEPS = 3  # of every descent
_FINISHED = 3  # descents that go on
_MOVED = 4  # ends of descents that moves begin from
_MOVES = 0.1  # share of the evaluations
_STEPS = 20  # at most, of those
_GAIN = 1e-5  # of the objective's unit: what a step must gain
_BATCH = 512  # proposals evaluated in one call
_KEPT = 1e-9  # by how much one may be broken and still count as kept


def search(
    problem: MixtureProblem,
    generator: np.random.Generator,
    *,
    evaluations: int = 100_000,
    evidence_weights: np.ndarray | None = None,
    distance_penalty: float = 0.0,
    starts: np.ndarray | None = None,
) -> Solution:
    """Minimise the predicted objective of any law.

    Args:
        problem: its law needs `predict` alone; `gradient` is used where there is one.
        generator: draws candidates and moves.
        evaluations: predictions to spend, at least 1,000.
        evidence_weights: (K, m) mixtures of the runs the law was fitted to.
        distance_penalty: what a unit of L1 distance to the nearest run costs the objective.
        starts: (s, m) feasible mixtures to begin from besides what is drawn.

    Raises:
        Infeasible: the constraints conflict, or no mixture was found within the guard rails.
        InvalidSetting: too few evaluations, or a penalty without runs or below 0.
    """
    _check(evaluations, evidence_weights, distance_penalty)
    region = Region.of(problem)
    score = Score(problem, evidence_weights, distance_penalty)
    centre = problem.centre / problem.centre.sum()
    sloped = can_descend(problem)
    drawn = int(_POOL * evaluations)
    pool = region.draw(centre, drawn, generator)
    pool[0] = region.towards(region.inside[None], centre[None])[0]
    if starts is not None:
        pool = np.concatenate([pool, problem.space.collapse(starts)])
    values = np.concatenate([score(part) for part in np.array_split(pool, -(-len(pool) // 10_000))])
    if sloped:
        begun = _apart(pool, values, min(_DESCENTS, max(drawn // _DRAWN_A_DESCENT, 1)))
        if starts is None:  # from the centre the law's convex part alone leads far
            begun = [0, *begun]
        begun, values = _descend(problem, score, pool[begun], values[begun])
        moves = int(_MOVES * evaluations)
    else:
        chosen = _apart(pool, values, _SEARCHES)
        begun, values, moves = pool[chosen], values[chosen], evaluations - len(pool)
    free = _refine(region, score, begun, values, moves, generator)
    return _within_guards(problem, free, score.evaluations)


def _within_guards(problem: MixtureProblem, free: np.ndarray, evaluations: int) -> Solution:
    """The solution at q. Raises Infeasible naming the guard rails that it breaks."""
    weights = settle(problem.space.expand(free), problem.caps)
    predictions = problem.objective.law.mean(weights[None])
    if problem.excess(predictions)[0] > _KEPT:
        broken = [
            f"{guard.mean.name!r} by {over * guard.unit:.4g}"
            for guard, over in zip(problem.guard_rails, problem.excesses(predictions)[:, 0], strict=True)
            if over > _KEPT
        ]
        raise Infeasible(
            f"no mixture was found within the guard rails; the nearest breaks {', '.join(broken)}",
            field="guard_rails",
            names=[guard.mean.name for guard in problem.guard_rails],
        )
    value = float(problem.objective.of_predictions(predictions, weights[None])[0])
    return Solution(weights, value, evaluations=evaluations + 1)


def priced(problem: MixtureProblem, solution: Solution) -> Solution:
    """The solution with the linear constraints that bind it and what they cost, where the law has a gradient.

    At a minimum the slope of the objective is a sum of the constraints' own, with multipliers of at least 0 for those
    that bind: least squares over the domains in use finds them. Guard rails and families have no part in
    it, so where there are any nothing is priced.
    """
    weights, objective = solution.weights, problem.objective
    beside = problem.guard_rails or objective.families
    expansion = None if beside else objective.local(np.maximum(weights, _UNUSED))
    if expansion is None:
        return solution
    system, free = problem.system, problem.space.collapse(weights)
    used = free > _UNUSED
    slack = system.bound - system.inequality @ free
    near = np.flatnonzero(slack <= _BINDS * np.maximum(np.abs(system.bound), _BINDS))
    held = np.concatenate([np.ones((1, len(free))), system.equality])
    columns = np.concatenate([system.inequality[near], held]).T[used]
    least = np.repeat([0.0, -np.inf], [len(near), len(held)])  # what holds with equality may push either way
    slopes = (expansion.gradient @ problem.space.matrix)[used]
    multipliers = lsq_linear(columns, -slopes, (least, np.inf)).x
    rows = {
        (system.inequality_names[row], bool(system.is_lower[row])): float(price)
        for row, price in zip(near, multipliers, strict=False)
    }
    pins = dict(zip(system.equality_names, multipliers[len(near) + 1 :].tolist(), strict=True))
    active = binding(problem, free, Prices(rows, pins, (), ()))
    caps = {item.name: item.price for item in active if item.kind == "cap"}
    cap_prices = np.array([caps.get(name, 0.0) for name in problem.space.leaves])
    return replace(solution, active=active, cap_prices=cap_prices)


def _check(evaluations: int, evidence_weights: np.ndarray | None, distance_penalty: float) -> None:
    if evaluations < 1000:
        raise InvalidSetting(f"{evaluations} evaluations are too few to search with", field="evaluations")
    if not (np.isfinite(distance_penalty) and distance_penalty >= 0):
        raise InvalidSetting("the distance penalty must be a number of at least 0", field="distance_penalty")
    if distance_penalty > 0 and evidence_weights is None:
        raise InvalidSetting("a distance penalty needs the runs", field="distance_penalty")


def _descend(
    problem: MixtureProblem, score: Score, points: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Descents from (S, n) points: a few steps of all, then those of the best to their end; the best ends."""
    begun = [
        descend(problem, score, start, _FIRST_STEPS, _GAIN) for start in zip(points, values, strict=True)
    ]
    begun.sort(key=lambda point: point[1])
    ended = [descend(problem, score, point, _STEPS, _GAIN) for point in begun[:_FINISHED]]
    best = sorted([*ended, *begun[_FINISHED:]], key=lambda point: point[1])[:_MOVED]
    return np.stack([point for point, _ in best]), np.array([value for _, value in best])


def _apart(pool: np.ndarray, values: np.ndarray, most: int) -> list[int]:
    """The best points of a pool that lie apart, at most so many."""
    chosen: list[int] = []
    for index in np.argsort(values, kind="stable")[: 50 * most]:
        if all(np.abs(pool[index] - pool[other]).sum() >= _APART for other in chosen):
            chosen.append(int(index))
        if len(chosen) == most:
            break
    return chosen


def _refine(
    region: Region,
    score: Score,
    points: np.ndarray,
    values: np.ndarray,
    evaluations: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Searches from several points at once, half of them dropped after each stage."""
    for stage in range(_HALVINGS):
        spent = score.evaluations
        share = evaluations // _HALVINGS
        while score.evaluations - spent < share - 2 * len(points):
            room = share - (score.evaluations - spent)
            each = max(min(_BATCH, room) // len(points) - 1, 1)
            points, values = _round(region, score, points, values, each, generator)
        kept = np.argsort(values, kind="stable")[: max(len(values) // 2, 1)]
        if stage < _HALVINGS - 1:
            points, values = points[kept], values[kept]
    return points[int(np.argmin(values))]


def _round(
    region: Region,
    score: Score,
    points: np.ndarray,
    values: np.ndarray,
    each: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """One batch: `each` moves from every point, of which the best is made where it gains."""
    origins = np.repeat(points, each, axis=0)
    directions = region.along(_directions(points, each, score.slope(points), generator))
    longest = region.reach(origins, directions)
    # Half of the moves go up to their own length or the border, half any fraction of that, down to 1e-5.
    length = np.where(generator.random(len(origins)) < 0.5, 1.0, 10 ** generator.uniform(-5, 0, len(origins)))
    proposed = np.maximum(origins + (length * np.minimum(longest, 1.0))[:, None] * directions, 0.0)
    scored = score(proposed).reshape(len(points), each)
    best = scored.argmin(axis=1)
    index = np.arange(len(points))
    gained = scored[index, best] < values
    moved = proposed.reshape(len(points), each, -1)[index, best]
    return np.where(gained[:, None], moved, points), np.where(gained, scored[index, best], values)


Moves = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _directions(
    points: np.ndarray, each: int, slopes: np.ndarray | None, generator: np.random.Generator
) -> np.ndarray:
    """(S * each, n) moves of equal numbers of every kind, from (S, n) points."""
    kinds = [_exchange, _noise, _crossing]
    if slopes is not None:
        kinds = [*kinds, _descent(slopes)]
    count, width = points.shape
    directions = np.empty((count, each, width))
    for kind, moves in enumerate(kinds):
        chosen = np.arange(kind, each, len(kinds))
        rows = np.repeat(np.arange(count), len(chosen))
        directions[:, chosen] = moves(points, rows, generator).reshape(count, len(chosen), width)
    return directions.reshape(-1, width)


def _exchange(points: np.ndarray, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """All weight of one domain to another; the giver drawn by its weight or evenly."""
    count, width = len(rows), points.shape[1]
    even = generator.random((count, width)) ** (1 / np.maximum(points[rows], 1e-3))
    giver = np.where(generator.random(count) < 0.5, even.argmax(1), generator.integers(0, width, count))
    taker = (giver + generator.integers(1, max(width, 2), count)) % width
    directions = np.zeros((count, width))
    amount = np.maximum(points[rows, giver], 1e-6)
    directions[np.arange(count), giver] -= amount
    directions[np.arange(count), taker] += amount
    return directions


def _noise(points: np.ndarray, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Log-normal noise on the weights, on all or on a few domains."""
    here = points[rows]
    size = 10 ** generator.uniform(-2, 0.3, (len(rows), 1))
    some = generator.random(here.shape) < np.where(generator.random((len(rows), 1)) < 0.5, 1.0, 0.2)
    scaled = (here + 1e-4 * some) * np.exp(size * some * generator.standard_normal(here.shape))
    return scaled / scaled.sum(axis=1, keepdims=True) - here


def _crossing(points: np.ndarray, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Towards another search's point, or along the difference of two others."""
    first, second = generator.integers(0, len(points), (2, len(rows)))
    between = generator.random(len(rows)) < 0.5
    return points[first] - points[np.where(between, second, rows)]


def _descent(slopes: np.ndarray) -> Moves:
    """Down the gradient in log-weights, the step's size drawn."""

    def moves(points: np.ndarray, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        here, slope = points[rows], slopes[rows]
        centred = slope - (here * slope).sum(axis=1, keepdims=True)
        steepest = np.abs(centred).max(axis=1, keepdims=True) + 1e-300
        size = 10 ** generator.uniform(-2, 1, (len(rows), 1))
        scaled = (here + 1e-6) * np.exp(-size * centred / steepest)
        return scaled / scaled.sum(axis=1, keepdims=True) - here

    return moves
