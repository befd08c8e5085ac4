import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixing.laws.composed import through
from mixing.laws.powers.effective_power import EffectivePowerLaw

GENERATOR = np.random.default_rng(0)
RUNS = GENERATOR.dirichlet(np.ones(5), 40)
LAW = EffectivePowerLaw().fit(RUNS, 1 + (RUNS @ GENERATOR.uniform(0.1, 1, (5, 2)) + 0.1) ** -0.4)


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_law_read_through_a_map_has_the_slopes_and_the_curvature_of_what_it_predicts(
    seed: int, apart: bool
) -> None:
    generator = np.random.default_rng(seed)
    if apart:  # every content under one domain, as in a split
        matrix = np.zeros((5, 3))
        matrix[[0, 1, 2, 3, 4], [0, 0, 1, 2, 2]] = generator.uniform(0.1, 1, 5)
        matrix /= matrix.sum(axis=0)
    else:
        matrix = generator.dirichlet(np.ones(5), 3).T
    law = through(LAW, matrix)
    assert law.is_convex
    p, share = generator.dirichlet(np.full(3, 5.0)) + 0.02, np.array([0.3, 0.7])
    np.testing.assert_array_equal(law.predict(p[None])[0], LAW.predict((matrix @ p)[None])[0])

    def value(at: np.ndarray) -> float:
        return float(law.predict(at[None])[0][0] @ share)

    step = 1e-4
    numeric = [(value(p + step * e) - value(p - step * e)) / (2 * step) for e in np.eye(3)]
    found = law.expand(p, share)
    assert abs(found.value - value(p)) < 1e-10
    np.testing.assert_allclose(found.gradient, numeric, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(share @ law.gradient(p[None])[0], found.gradient, rtol=1e-9)
    hessian = np.diag(found.diagonal) + found.factors.T @ found.factors
    bent = [
        (law.expand(p + step * e, share).gradient - law.expand(p - step * e, share).gradient) / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(hessian, bent, rtol=2e-2, atol=1e-4 * np.abs(hessian).max())


def test_nothing_stands_between_where_the_map_is_the_identity() -> None:
    assert through(LAW, np.eye(5)) is LAW
