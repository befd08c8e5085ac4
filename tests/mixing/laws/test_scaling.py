"""Laws over mixture, parameters and tokens: derivatives, convexity, the exact solve, and what they extrapolate to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.extrapolation import chosen
from mixing.laws.scaling import FORMS, FittedScaling, PowerTerms, ScalingLaw, fit_scaling_law
from mixing.laws.transfer import Anchors
from mixing.runs.table import RunTable
from mixing.simplex_map import SimplexMap
from mixing.solve.exact import solve
from mixing.solve.problem import MixtureProblem, Objective

SCALES = ((1.0, 1.0), (4.0, 1.0), (1.0, 4.0), (4.0, 4.0), (16.0, 16.0))


def truth(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Two tasks as of the published joint law."""
    size, tokens = scale[:, :1], scale[:, 1:]
    shares = np.stack([weights @ [0.2, 1.0, 0.5], weights @ [1.0, 0.1, 0.4]], axis=1)
    base = 1 / np.stack(
        [(weights + 1e-4) ** 0.4 @ [0.3, 1.2, 0.6], (weights + 1e-4) ** 0.5 @ [1.4, 0.2, 0.5]], axis=1
    )
    return 1.5 + base + 0.8 * (shares + 0.2) ** -0.4 * size**-0.2 + 0.5 * tokens**-0.3


def runs(each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    scales = np.repeat(np.array(SCALES), each, axis=0)
    weights = generator.dirichlet([1.5, 2.0, 3.0], len(scales))
    return weights, truth(weights, scales) + 0.002 * generator.standard_normal((len(scales), 2)), scales


@pytest.fixture(scope="module")
def laws() -> dict[str, ScalingLaw]:
    weights, metrics, scales = runs(8)
    return {form: fit_scaling_law(form, weights, metrics, scales) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_gradients_and_expansions_are_those_of_finite_differences(
    form: str, laws: dict[str, ScalingLaw]
) -> None:
    law = laws[form].at(30.0, 60.0)
    point, step, share = np.array([0.2, 0.5, 0.3]), 1e-5, np.array([0.7, 0.3])
    moves = np.concatenate([np.eye(3), -np.eye(3)]) * step
    values = law.mean(point + moves)
    slopes = (values[:3] - values[3:]).T / (2 * step)
    np.testing.assert_allclose(law.gradient(point[None])[0], slopes, rtol=1e-5, atol=1e-7)
    found = law.expand(point, share)
    assert found.value == pytest.approx(float(law.mean(point[None])[0] @ share))
    np.testing.assert_allclose(found.gradient, share @ slopes, rtol=1e-5, atol=1e-7)
    curved = law.gradient(point + moves)
    hessian = np.einsum("ntm,t->nm", curved[:3] - curved[3:], share) / (2 * step)
    np.testing.assert_allclose(
        np.diag(found.diagonal) + found.factors.T @ found.factors, hessian, rtol=1e-4, atol=1e-6
    )


positive = st.floats(1e-3, 1e2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(positive, min_size=3, max_size=3),
    st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3),
    positive,
    st.floats(0.01, 3),
    st.integers(0, 2**31),
)
def test_whatever_its_parameters_it_is_convex_in_the_mixture(
    usefulness: list[float], exponents: list[float], rest: float, decay: float, seed: int
) -> None:
    one = [np.array(part)[None] for part in (usefulness, exponents, rest, decay, 1.0)]
    law = FittedScaling(np.zeros(1), (PowerTerms(*one),))
    first, second = np.random.default_rng(seed).dirichlet(np.full(3, 0.4), 2)
    middle = law.mean(((first + second) / 2)[None])[0, 0]
    ends = law.mean(np.stack([first, second]))[:, 0]
    assert middle <= ends.mean() * (1 + 1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_the_exact_solve_at_the_target_is_brute_forces(form: str, laws: dict[str, ScalingLaw]) -> None:
    law = laws[form].at(100.0, 100.0)
    caps = np.array([0.5, 0.6, 0.7])
    objective = Objective(law, np.array([0.5, 0.5]), np.full(3, 1 / 3), 0.0)
    problem = MixtureProblem(objective, SimplexMap.identity(("a", "b", "c")), caps, (), ())
    solution = solve(problem)
    steps = np.linspace(0, 1, 251)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1])
    grid = grid[(grid <= caps + 1e-12).all(axis=1)]
    lowest = law.mean(grid).mean(axis=1).min()
    reached = float(law.mean(solution.weights[None]).mean())
    assert lowest - 1e-4 * abs(lowest) <= reached <= lowest + 1e-9


def test_the_law_is_the_one_that_extrapolates_best_and_its_factor_is_the_truths() -> None:
    weights, metrics, scales = runs(10)
    at = [(scales == scale).all(axis=1) for scale in SCALES]
    table = RunTable.of(("a", "b", "c"), ("first", "second"), weights[at[0]], metrics[at[0]])
    anchors = [
        Anchors(scale, weights[rows], metrics[rows]) for scale, rows in zip(SCALES[1:], at[1:], strict=True)
    ]
    here = [truth(one.weights, np.ones((1, 2))) for one in anchors]
    target = np.array([[64.0, 64.0]])
    found = chosen((64.0, 64.0), anchors, here, table, truth(table.weights, np.ones((1, 2))))
    assert set(found.errors) == {"carried", *FORMS}
    best = min(found.errors.values())
    assert found.errors[found.law] <= best / 0.9
    assert found.errors["joint"] < found.errors["additive"]  # in whose shape size moves no mixture
    for column in range(2):
        there, now = (truth(table.weights, scale)[:, column] for scale in (target, np.ones((1, 2))))
        assert found.factors[column] == pytest.approx(np.polyfit(now, there, 1)[0], rel=0.2)


def test_sizes_that_no_run_tells_apart_are_refused() -> None:
    weights, metrics, scales = runs(8)
    with pytest.raises(InvalidSetting, match="one size and one length"):
        fit_scaling_law("joint", weights, metrics, np.ones_like(scales))
    with pytest.raises(InvalidSetting, match="no form"):
        fit_scaling_law("other", weights, metrics, scales)
    with pytest.raises(TooFewRuns):
        fit_scaling_law("joint", weights[:5], metrics[:5], scales[:5])
    with pytest.raises(InvalidMetrics):
        fit_scaling_law("joint", weights, np.where(metrics > 2, np.nan, metrics), scales)
