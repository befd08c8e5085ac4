"""The effective power law of fewer runs than parameters: its noise, its steps, and that it does not take up noise."""

import numpy as np
import pytest

from mixing.laws.diagnostics import rank_correlation
from mixing.laws.powers import few_runs
from mixing.laws.powers.descent import (
    SHARED,
    PowerPrior,
    PowerProblems,
    evaluate,
    gap_bend,
    information,
    state_of,
)
from mixing.laws.powers.effective_power import EffectivePowerLaw

DOMAINS, RUNS = 20, 30


def swarm(runs: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(runs, DOMAINS) mixtures and (runs, 2) metrics of a power of the useful data, written out here."""
    generator = np.random.default_rng(seed)
    worth = np.random.default_rng(99).lognormal(-0.5, 1, (DOMAINS, 2))
    weights = generator.dirichlet(np.full(DOMAINS, 0.3), runs)
    metrics = 0.8 + (np.sqrt(weights + 5e-5) @ worth) ** -0.5
    return weights, metrics + noise * generator.standard_normal(metrics.shape)


def problems() -> tuple[PowerProblems, np.ndarray]:
    weights, metrics = swarm(RUNS, 0.01)
    generator = np.random.default_rng(1)
    centre, width = PowerPrior().stacked(DOMAINS)
    values = ((metrics - metrics.min(0)) / metrics.std(0)).T
    importance = generator.uniform(0.5, 1, values.shape)
    importance[:, :3] = 0
    theta = centre + 0.3 * generator.standard_normal((2, len(centre)))
    return PowerProblems(np.log(weights + 5e-5), values, importance, centre, width), theta


def test_runs_not_seen_are_predicted_better_than_by_a_law_that_took_up_the_noise() -> None:
    weights, metrics = swarm(RUNS, 0.02)
    unseen, truth = swarm(300, 0.0, seed=1)
    fitted = EffectivePowerLaw().fit(weights, metrics)
    assert not fitted.unfinished().size
    assert (fitted.relative_noise > 0.02).all()
    assert (rank_correlation(fitted.mean(unseen), truth) > 0.8).all()


def test_a_steady_step_solves_the_equations_of_the_parameters_where_no_domain_bends_upwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same matrix as Gauss-Newton's of all parameters, solved there instead of among the runs."""
    fits, theta = problems()
    state = state_of(fits, theta)
    monkeypatch.setattr(few_runs, "bends_of", lambda *_: np.zeros((3, 2, DOMAINS)))
    step, gradient = few_runs._step(fits, theta, state, np.zeros(2), np.zeros(2, bool))
    matrix = information(fits, theta)[:, :-1, :-1]
    expected = np.linalg.solve(matrix, -evaluate(fits, theta)[1][:, :-1, None])[:, :, 0]
    np.testing.assert_allclose(step[:, :-1], expected, rtol=1e-7, atol=1e-9)
    assert (step[:, -1] == 0).all()
    assert (gradient[:, -1] == 0).all()


def test_the_noise_uses_up_a_run_for_what_the_parameters_take() -> None:
    """The slope is the loss's own less the trace of (data + prior)^-1 data, by the matrix of the parameters."""
    fits, theta = problems()
    down, bend = few_runs.slope(fits, theta)
    prior = np.diag(fits.width[:-1] ** -2.0)
    known = information(fits, theta)[:, :-1, :-1] - prior
    gap = 2 * DOMAINS + SHARED.index("gap")
    known[:, gap, gap] -= gap_bend(fits, theta, state_of(fits, theta))  # says nothing of how residuals move
    used = [np.trace(np.linalg.solve(own + prior, own)) for own in known]
    np.testing.assert_allclose(down, evaluate(fits, theta)[1][:, -1] - used, rtol=1e-8)
    assert (bend > 0).all()


def test_a_fit_does_not_hang_on_a_metrics_unit_or_on_the_order_of_domains() -> None:
    weights, metrics = swarm(RUNS, 0.01)
    order = np.random.default_rng(4).permutation(DOMAINS)
    plain = EffectivePowerLaw().fit(weights, metrics).mean(weights)
    scaled = EffectivePowerLaw().fit(weights, 1e-6 * metrics + 3).mean(weights)
    turned = EffectivePowerLaw().fit(weights[:, order], metrics).mean(weights[:, order])
    np.testing.assert_allclose((scaled - 3) * 1e6, plain, atol=1e-4 * metrics.std())
    np.testing.assert_allclose(turned, plain, atol=1e-4 * metrics.std())


@pytest.mark.parametrize("bend", [1.0, 1e8, 1e18])
def test_a_domain_whose_two_parameters_do_the_same_is_stepped_along_as_the_prior_has_it(bend: float) -> None:
    """A = bend (1, 1; 1, 1) + diag(1/4, 4): singular to the last bit from 1e17 on; by hand its inverse there is
    (1, -1; -1, 1) / (1/4 + 4)."""
    whole = np.full((1, 1), bend)
    root = few_runs._Root.of((whole, whole, whole), np.array([[0.25, 4.0, 9.0]]))
    inverse = np.stack([root.before(root.after(row[None, None])[:, 0])[0] for row in np.eye(3)])
    determinant = 1 + bend * 4.25
    exact = np.array([[bend + 4, -bend, 0], [-bend, bend + 0.25, 0], [0, 0, determinant / 9]]) / determinant
    np.testing.assert_allclose(inverse, exact, rtol=1e-6, atol=1e-12)
