from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.capped_simplex import water_fill
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting, TooFewRuns, UnknownMethod
from mixing.laws.diagnostics import weight_spread
from mixing.methods import method_named
from mixing.question import Question
from mixing.solve.constraints import share_of
from mixing.swarm.dirichlet import two_level_draws
from mixing.swarm.sample import sample_round

POOL = {"web:news": 5e6, "web:forums": 2e6, "web:shops": 1e6, "code": 1e6, "books": 3e5, "wiki": 1e5}


def weights_of(question: Question) -> np.ndarray:
    return np.array([run.mixture.align(question.domains.names) for run in sample_round(question)])


def question_of(pool: dict[str, float], runs: int = 21, **changes: object) -> Question:
    question = Question(method="olmix", domains=Domains.of(pool), target_tokens=3e6, seed=3, rounds=(runs,))
    return replace(question, **changes)  # pyright: ignore[reportArgumentType]


def test_the_same_request_gives_the_same_swarm_and_another_seed_another() -> None:
    first, again = weights_of(question_of(POOL)), weights_of(question_of(dict(reversed(POOL.items()))))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, weights_of(question_of(POOL, seed=4)))


@given(
    st.lists(st.floats(1e4, 1e8), min_size=2, max_size=9),
    st.floats(0.05, 0.98),
    st.integers(0, 10**6),
)
@hypothesis_settings(max_examples=25)
def test_every_mixture_is_on_the_simplex_and_under_its_caps_however_tight(
    tokens: list[float], fullness: float, seed: int
) -> None:
    """``fullness`` is R / (k sum N): at 1 a single mixture is left, and rejection would never end."""
    pool = {f"d{index}": count for index, count in enumerate(tokens)}
    question = question_of(
        pool, runs=3 * (len(pool) + 1), seed=seed, target_tokens=fullness * 4 * sum(tokens)
    )
    weights = weights_of(question)
    caps = question.limits.caps
    assert (weights >= 0).all()
    assert (weights <= caps).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-9)
    assert (weight_spread(weights) > 0).all(), "a domain the swarm never varies cannot be identified"
    assert len({row.tobytes() for row in weights}) == len(weights)


def test_without_caps_the_mean_is_the_natural_distribution() -> None:
    """A Dirichlet(s * prior) has mean prior at any strength; zeroing what is below 0.002 moves it a little."""
    domains = Domains.of({"a": 6e6, "b": 3e6, "c": 1e6})
    generator = np.random.default_rng(0)
    weights = two_level_draws(domains.names, domains.natural_weights, 4000, generator)
    # The strengths reach from 0.1 to 5, so one weight's standard deviation is at most 0.48: 4 standard errors.
    np.testing.assert_allclose(weights.mean(0), [0.6, 0.3, 0.1], atol=4 * 0.48 / np.sqrt(4000))


def test_weights_too_small_to_matter_are_zero() -> None:
    weights = weights_of(question_of(POOL, runs=200, target_tokens=1e3))
    sources = {"code": [1], "books": [0], "wiki": [5], "web": [2, 3, 4]}
    for columns in sources.values():
        share = weights[:, columns].sum(1)
        assert ((share == 0) | (share > 0.0019)).all()


def test_bad_requests_are_named() -> None:
    with pytest.raises(TooFewRuns) as caught:
        weights_of(question_of(POOL, runs=7))
    assert (caught.value.needed, caught.value.given) == (8, 7)
    with pytest.raises(Infeasible, match="missing"):
        weights_of(question_of(POOL, target_tokens=1e9))
    with pytest.raises(UnknownMethod, match="olmix"):
        method_named("alchemy")
    with pytest.raises(InvalidSetting, match="rise"):
        weights_of(question_of(POOL, strengths=(2.0, 1.0)))


def test_a_share_of_one_domain_holds_in_every_run() -> None:
    names = sorted(POOL)
    constraints = (
        share_of(["books"], names, 0.05, 0.05),
        share_of(["code"], names, 0.1, 0.3),
        share_of(["web"], names, 0.2, 0.9),
    )
    weights = weights_of(question_of(POOL, constraints=constraints, target_tokens=1e5))
    assert (weights[:, names.index("books")] == 0.05).all(), "a pin is exact"
    code = weights[:, names.index("code")]
    assert (code >= 0.1 - 1e-12).all()
    assert (code <= 0.3 + 1e-12).all()
    assert code.std() > 0.01


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.05, 1)), min_size=2, max_size=8))
def test_water_filling_keeps_the_ratios_of_what_is_not_capped(pairs: list[tuple[float, float]]) -> None:
    weights, caps = (np.array(column) for column in zip(*pairs, strict=True))
    if caps.sum() < 1:
        caps = caps / caps.sum() * 1.01
    filled = water_fill(weights / weights.sum(), caps)
    assert filled.sum() == pytest.approx(1)
    assert (filled <= caps * (1 + 1e-12)).all()
    below = filled < caps * (1 - 1e-9)
    if below.sum() > 1:
        scale = filled[below] / weights[below]
        np.testing.assert_allclose(scale, scale[0], rtol=1e-6)


def test_a_domain_that_caps_leave_no_room_to_perturb_is_named_before_anything_is_trained() -> None:
    domains = Domains.of({"books": 1000.0, "code": 500.0, "web": 3000.0})
    question = Question(
        method="autoscale", domains=domains, target_tokens=4500.0, repetition_cap=1.0, rounds=(7, 7)
    )
    with pytest.raises(Infeasible) as cramped:
        sample_round(question)
    assert cramped.value.field == "repetition_cap"
    assert set(cramped.value.names) <= set(domains.names)
