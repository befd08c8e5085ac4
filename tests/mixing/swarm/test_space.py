import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmarks.sample import contains, unvaried
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting, InvalidWeights, UnknownDomain
from mixing.swarm import dirichlet
from mixing.swarm.space import SwarmSpace, into_space

POOL = Domains.of({"books": 3e5, "code": 1e6, "web:forums": 2e6, "web:news": 5e6, "wiki": 1e5})


def with_caps(**caps: float) -> np.ndarray:
    return np.array([caps.get(name.replace(":", "_"), 1.0) for name in POOL.names])


@st.composite
def constraints(draw: st.DrawFn) -> dict:
    """Constraints on 2 to 6 domains, often tight and often impossible."""
    size = draw(st.integers(2, 6))
    names = [f"s{index % 2}:t{index}" for index in range(size)]
    tokens = {name: 10 ** draw(st.floats(3, 9)) for name in names}
    ratio = st.floats(0.01, 1)
    caps = np.array([draw(ratio) for _ in names])
    caps *= draw(st.sampled_from([1.0, 1.0001, 1.05, 3.0])) / caps.sum()
    minimum = np.array([draw(st.sampled_from([0.0, 0.0, 0.01, 0.2, 0.45])) for _ in names])
    pins = {name: draw(st.sampled_from([0.0, 0.05, 0.1, 1 / 3])) for name in names if draw(st.booleans())}
    pins = {name: pins[name] for name in list(pins)[: draw(st.integers(0, size - 1))]}
    nonzero = [name for name in names if draw(st.integers(0, 3)) == 0]
    return {
        "domains": Domains.of(tokens),
        "caps": caps,
        "minimum_weights": minimum,
        "pins": pins,
        "nonzero": nonzero,
    }


def is_feasible(
    domains: Domains, caps: np.ndarray, minimum_weights: np.ndarray, pins: dict, nonzero: list
) -> bool:
    """By trying every set of present domains."""
    if any(pins[name] > cap for name, cap in zip(domains.names, caps, strict=True) if name in pins):
        return False
    if any(pins.get(name) == 0 for name in nonzero):
        return False
    mass = 1 - sum(pins.values())
    free = [column for column, name in enumerate(domains.names) if name not in pins]
    if mass < 1e-9 and any(domains.names[column] in nonzero for column in free):
        return False
    for chosen in itertools.product([False, True], repeat=len(free)):
        present = [column for column, taken in zip(free, chosen, strict=True) if taken]
        if any(domains.names[column] in nonzero for column in set(free) - set(present)):
            continue
        if (caps[present] < minimum_weights[present]).any():
            continue
        if minimum_weights[present].sum() <= mass and caps[present].sum() >= mass - 1e-9:
            return True
    return False


@given(constraints(), st.integers(0, 2**32))
@hypothesis_settings(max_examples=100, deadline=None)
def test_any_weights_come_into_the_space_and_only_impossible_constraints_are_refused(
    request: dict, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    if not is_feasible(**request):
        with pytest.raises(Infeasible) as caught:
            SwarmSpace.of(**request)
        assert caught.value.names
        return
    space = SwarmSpace.of(**request)
    raw = generator.dirichlet(np.full(len(space), 0.2), size=20)
    weights = into_space(space, raw, generator)
    assert contains(space, weights).all()
    for name, pin in request["pins"].items():
        assert (weights[:, space.domains.names.index(name)] == pin).all(), "a pin is exact to the last bit"
    np.testing.assert_allclose(into_space(space, weights, generator), weights, atol=1e-12)


@given(constraints(), st.integers(0, 2**32))
@hypothesis_settings(max_examples=50, deadline=None)
def test_a_swarm_lies_in_its_space_whatever_the_constraints(request: dict, seed: int) -> None:
    try:
        space = SwarmSpace.of(**request)
        weights = dirichlet.sample(space, 12, np.random.default_rng(seed))
    except Infeasible:
        return
    assert contains(space, weights).all()
    assert len({row.tobytes() for row in weights}) == 12
    again = dirichlet.sample(space, 12, np.random.default_rng(seed))
    assert np.array_equal(weights, again), "one seed, one swarm"


def test_a_pin_on_any_topic_is_kept_and_the_rest_is_still_drawn() -> None:
    for name in POOL.names:
        space = SwarmSpace.of(POOL, pins={name: 0.1}, minimum_weights=np.full(5, 0.15))
        weights = dirichlet.sample(space, 40, np.random.default_rng(0))
        assert (weights[:, POOL.names.index(name)] == 0.1).all(), "below the minimum weight, and kept"
        assert unvaried(weights, POOL.names) == (name,)
        others = np.delete(weights, POOL.names.index(name), axis=1)
        assert ((others == 0) | (others >= 0.15 - 1e-9)).all()


def test_required_domains_are_in_every_mixture() -> None:
    space = SwarmSpace.of(POOL, nonzero=["wiki", "web:news"], minimum_weights=with_caps(wiki=0.03) * 0.03)
    weights = dirichlet.sample(space, 60, np.random.default_rng(1))
    assert (weights[:, POOL.names.index("wiki")] >= 0.0009).all()
    assert (weights[:, POOL.names.index("web:news")] >= 0.03 - 1e-12).all()


def tight_swarm(seed: int) -> np.ndarray:
    """(93, 30) under caps of 1.001 times the natural distribution."""
    domains = Domains.of({f"s{index % 3}:t{index}": float(1 + index) for index in range(30)})
    space = SwarmSpace.of(domains, domains.natural_weights * 1.001)
    return dirichlet.sample(space, 93, np.random.default_rng(seed))


@pytest.mark.parametrize("kernel", ["Prescott", "Sandybridge"])
def test_another_processors_rounding_draws_the_same_swarm(kernel: str) -> None:
    code = "from tests.mixing.swarm.test_space import tight_swarm; print(tight_swarm(0).tolist())"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_L2_SIZE"}
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "OPENBLAS_CORETYPE": kernel},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_allclose(json.loads(there.stdout), tight_swarm(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_caps_that_leave_no_room_for_rejection_are_still_met(seed: int) -> None:
    """A draw under all of the caps would take longer than a life."""
    domains = Domains.of({f"s{index % 3}:t{index}": float(1 + index) for index in range(30)})
    space = SwarmSpace.of(domains, domains.natural_weights * 1.001)
    weights = tight_swarm(seed)
    assert contains(space, weights, 1e-12).all()
    assert unvaried(weights, domains.names) == ()


@pytest.mark.parametrize(
    ("changes", "error", "names"),
    [
        ({"pins": {"moon": 0.1}}, UnknownDomain, ("moon",)),
        ({"nonzero": ["moon"]}, UnknownDomain, ("moon",)),
        ({"pins": {"wiki": -0.1}}, InvalidWeights, ("wiki",)),
        ({"pins": {"wiki": math.nan}}, InvalidWeights, ("wiki",)),
        ({"caps": with_caps(code=-1)}, InvalidSetting, ("code",)),
        ({"caps": np.ones(4)}, InvalidSetting, ()),
        ({"pins": {"wiki": 0.3}, "caps": with_caps(wiki=0.2)}, Infeasible, ("wiki",)),
        ({"pins": {"wiki": 0.6, "code": 0.5}}, Infeasible, ("code", "wiki")),
        ({"pins": {"wiki": 0.0}, "nonzero": ["wiki"]}, Infeasible, ("wiki",)),
        ({"pins": {"wiki": 1.0}, "nonzero": ["code"]}, Infeasible, ("code",)),
        ({"caps": with_caps(code=0.0), "nonzero": ["code"]}, Infeasible, ("code",)),
        ({"caps": np.full(5, 0.1)}, Infeasible, POOL.names),
        ({"pins": dict.fromkeys(POOL.names, 0.1)}, Infeasible, POOL.names),
        ({"minimum_weights": np.full(5, 0.4), "caps": np.full(5, 0.45)}, Infeasible, POOL.names),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict, error: type, names: tuple[str, ...]) -> None:
    with pytest.raises(error) as caught:
        SwarmSpace.of(POOL, **changes)
    assert caught.value.names == names


def test_a_space_of_one_mixture_says_so() -> None:
    space = SwarmSpace.of(POOL, POOL.natural_weights)
    with pytest.raises(Infeasible, match="single mixture"):
        dirichlet.sample(space, 2, np.random.default_rng(0))
    everything_pinned = SwarmSpace.of(POOL, pins=dict.fromkeys(POOL.names, 0.2))
    assert np.array_equal(dirichlet.sample(everything_pinned, 1, np.random.default_rng(0)), [[0.2] * 5])
