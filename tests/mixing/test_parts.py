"""The parts keep what their records promise."""

import subprocess
import sys

import numpy as np
import pytest

from mixing.domains import HELD_OUT_PREFIX, Domains
from mixing.errors import InvalidSetting
from mixing.laws.regression import Fitted
from mixing.parts import GRANULARITIES, REGRESSIONS, SAMPLERS, SOLVERS, RegressionPart
from mixing.runs.table import RunTable
from mixing.swarm.samplers import perturbed_runs
from mixing.swarm.space import SwarmSpace

DOMAINS, RUNS = 4, 24
NAMES = tuple(f"d{index}" for index in range(DOMAINS))
ANY_SWARM = sorted(name for name, part in REGRESSIONS.items() if part.sampler is None)


def context_of(part: RegressionPart, runs: int, names: tuple[str, ...] = NAMES, tasks: int = 2) -> RunTable:
    columns = tuple(f"{HELD_OUT_PREFIX}{name}" for name in names[:tasks])
    return RunTable.of(names, columns, np.zeros((runs, len(names))), np.zeros((runs, tasks)))


def swarm() -> tuple[np.ndarray, np.ndarray]:
    """Mixtures, and two metrics that fall with the first and with the second domain."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.full(DOMAINS, 0.8), RUNS)
    metrics = 1 + (weights[:, :2] + 0.1) ** -0.3 + 0.2 * weights[:, 2:3]
    return weights, metrics + 0.002 * generator.standard_normal(metrics.shape)


def fitted(name: str) -> Fitted:
    part = REGRESSIONS[name]
    weights, metrics = swarm()
    return part.make(context_of(part, RUNS)).fit(weights, metrics, np.zeros_like(metrics))


@pytest.mark.parametrize("name", sorted(REGRESSIONS))
def test_the_fewest_runs_are_at_least_the_regressions_own(name: str) -> None:
    part = REGRESSIONS[name]
    for domains in range(2, 101):
        names = tuple(f"d{index}" for index in range(domains))
        assert part.minimum_runs(domains) >= part.make(context_of(part, 4, names)).runs_to_fit(domains)


@pytest.mark.parametrize("name", ANY_SWARM)
def test_every_regression_can_be_made_and_fitted_and_predicts_numbers(name: str) -> None:
    law = fitted(name)
    corners = np.concatenate([np.eye(DOMAINS), np.full((1, DOMAINS), 1 / DOMAINS)])
    mean, deviation = law.predict(corners)
    assert mean.shape == deviation.shape == (DOMAINS + 1, 2)
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()
    assert (deviation >= 0).all()


@pytest.mark.parametrize("name", ANY_SWARM)
def test_every_regression_can_be_fitted_to_the_fewest_runs_it_asks_for(name: str) -> None:
    part = REGRESSIONS[name]
    weights, metrics = (values[: part.minimum_runs(DOMAINS)] for values in swarm())
    law = part.make(context_of(part, len(weights))).fit(weights, metrics, np.zeros_like(metrics))
    assert np.isfinite(law.predict(np.eye(DOMAINS))[0]).all()


@pytest.mark.parametrize("name", sorted(name for name in ANY_SWARM if REGRESSIONS[name].convex))
def test_what_is_called_convex_is_convex(name: str) -> None:
    law = fitted(name)
    assert law.is_convex
    generator = np.random.default_rng(1)
    first, second = generator.dirichlet(np.full(DOMAINS, 0.3), (2, 300))
    first[:DOMAINS] = np.eye(DOMAINS)
    ends = law.predict(first)[0] + law.predict(second)[0]
    middle = law.predict((first + second) / 2)[0]
    assert (middle <= ends / 2 + 1e-9 * np.abs(ends)).all()


def test_the_exact_solver_is_offered_for_nothing_else() -> None:
    assert [name for name, solver in SOLVERS.items() if solver.needs_convex] == ["exact"]
    trees = fitted("lightgbm")
    assert not trees.is_convex


@pytest.mark.parametrize("parts", [SAMPLERS, REGRESSIONS, GRANULARITIES, SOLVERS])
def test_parts_are_known_by_their_own_names_and_named_in_records(parts: dict[str, RegressionPart]) -> None:
    assert all(part.name == name for name, part in parts.items())
    assert len({part.title for part in parts.values()}) == len(parts)
    for part in REGRESSIONS.values():
        assert part.sampler is None or part.sampler in SAMPLERS
        assert part.solver is None or part.solver in SOLVERS
        assert part.granularity is None or part.granularity in GRANULARITIES


@pytest.mark.parametrize("domains", [2, 5, 17])
def test_the_perturbations_are_as_many_as_their_record_says(domains: int) -> None:
    pool = Domains.of({f"d{index}": 1e6 * (index + 1) for index in range(domains)})
    weights, _, _ = perturbed_runs(SwarmSpace.of(pool), 1.0, np.random.default_rng(0))
    assert len(weights) == SAMPLERS["perturbation"].exact_runs(domains) == 2 * domains + 1


def test_a_column_that_is_no_held_out_slice_is_named() -> None:
    strange, known = (
        RunTable.of(NAMES, (f"{HELD_OUT_PREFIX}d2", name), np.eye(4), np.ones((4, 2)))
        for name in ("code-eval", f"{HELD_OUT_PREFIX}d0")
    )
    with pytest.raises(InvalidSetting, match="code-eval") as caught:
        strange.own_domains()
    assert caught.value.names == ("code-eval",)
    assert known.own_domains() == (2, 0)


def test_checking_a_request_loads_nothing_that_samples_fits_or_solves() -> None:
    program = (
        "import sys, mixing.methods, mixing.question;"
        "slow = {'lightgbm', 'sklearn', 'cvxpy', 'mixing.swarm.samplers', 'mixing.laws.fitting',"
        " 'mixing.solve.solvers'};"
        "print(sorted(slow & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
