"""What gains at the proxies are worth elsewhere: against published pairs, a second method and truths of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from mixing.laws.transfer import Anchors, doublings, halfway, prior, transfer, unknown_after

# Root mean squares of the log slopes of RegMix's published losses on those of its 1M models: 13 of them at 60M on as
# many tokens, 7 at 1B on 25 times the tokens.
PUBLISHED = (((60.0, 1.0), 0.318), ((1000.0, 25.0), 0.837))


def anchors_at(
    scale: tuple[float, float], slope: float, runs: int, noise: float = 0.0
) -> tuple[Anchors, np.ndarray]:
    """Anchors of one task of spread 1, and what the proxies' law says of their mixtures."""
    generator = np.random.default_rng(runs)
    guess = generator.standard_normal((runs, 1))
    measured = 3.0 + slope * guess + noise * generator.standard_normal((runs, 1))
    return Anchors(scale, generator.dirichlet(np.ones(3), runs), measured), guess


@pytest.mark.parametrize(("scale", "measured"), PUBLISHED)
def test_without_anchors_a_gain_may_become_what_published_ones_became(
    scale: tuple[float, float], measured: float
) -> None:
    assert 0.98 * measured <= unknown_after(scale) <= 1.6 * measured


def test_nothing_is_unknown_of_the_proxies_own_scale_and_more_of_what_lies_farther() -> None:
    assert unknown_after((1.0, 1.0)) == 0
    near, far = unknown_after((4.0, 4.0)), unknown_after((64.0, 64.0))
    assert 0 < near < far
    assert unknown_after((64.0, 64.0), [(8.0, 8.0)]) < unknown_after((64.0, 64.0), [(2.0, 2.0)]) < far


def test_anchors_of_more_parameters_leave_open_what_more_tokens_do() -> None:
    of_tokens = unknown_after((1.0, 64.0))
    assert unknown_after((64.0, 64.0), [(64.0, 1.0)]) == pytest.approx(of_tokens, rel=0.01)
    # Of fewer parameters than the proxies' a drift is seen, and nothing of the walk to more of them.
    assert unknown_after((64.0, 1.0), [(1 / 64, 1.0)]) < unknown_after((64.0, 1.0))


@pytest.mark.parametrize("slope", [0.4, 1.0, 2.2])
def test_anchors_at_the_target_itself_tell_the_factor(slope: float) -> None:
    one, guess = anchors_at((9.0, 12.5), slope, 12)
    found = transfer((9.0, 12.5), [one], [guess], np.ones(1))
    assert found.unknown == pytest.approx(0, abs=1e-7)
    assert np.log(found.factors[0] / slope) == pytest.approx(0, abs=2 * found.measured[0] + 1e-9)
    assert found.agreement[0] == pytest.approx(1)
    assert found.anchors == 12


def test_the_slope_is_the_mean_of_its_posterior_by_quadrature() -> None:
    scale = (8.0, 4.0)
    one, guess = anchors_at(scale, 0.7, 9, noise=0.05)
    found = transfer(scale, [one], [guess], np.ones(1))
    x, y = guess[:, 0] - guess.mean(), one.metrics[:, 0] - one.metrics.mean()
    variance = prior(doublings(scale)[None], doublings(scale)[None])[0, 0]

    def density(log: float) -> float:
        squares = 4 * 0.15**2 + ((y - np.exp(log) * x) ** 2).sum()
        return float(np.exp(-(log**2) / (2 * variance)) * squares ** (-(4 + 8) / 2)) / 0.2**-12

    whole = quad(density, -2, 2, points=[-0.4])[0]
    mean = quad(lambda log: log * density(log), -2, 2, points=[-0.4])[0] / whole
    square = quad(lambda log: log**2 * density(log), -2, 2, points=[-0.4])[0] / whole
    assert np.log(found.factors[0]) == pytest.approx(mean, abs=0.25 * found.measured[0])
    assert found.measured[0] == pytest.approx(np.sqrt(square - mean**2), rel=0.25)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=4, max_size=9),
    st.lists(st.floats(-5, 5), min_size=9, max_size=9),
    st.floats(1.2, 1e3),
    st.floats(0.1, 1e3),
)
def test_a_factor_is_above_zero_whatever_the_anchors_say(
    guesses: list[float], values: list[float], size: float, tokens: float
) -> None:
    runs = len(guesses)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), runs)
    one = Anchors((size, tokens), weights, np.array(values[:runs])[:, None])
    found = transfer((2e3, 2e3), [one], [np.array(guesses)[:, None]], np.ones(1))
    assert found.factors[0] > 0
    assert np.isfinite([found.factors[0], found.unknown, found.measured[0], found.residual[0]]).all()


def test_the_true_factor_lies_within_the_interval_nine_times_in_ten() -> None:
    generator = np.random.default_rng(5)
    target, at = (32.0, 32.0), (6.0, 6.0)
    both = np.array([doublings(at), doublings(target)])
    root = np.linalg.cholesky(prior(both, both))
    inside = 0
    for trial in range(300):
        there, goal = root @ generator.standard_normal(2)
        one, guess = anchors_at(at, float(np.exp(there)), 4 + trial % 5, noise=0.1)
        found = transfer(target, [one], [guess], np.ones(1))
        deviation = np.hypot(found.unknown, found.measured[0])
        inside += abs(goal - np.log(found.factors[0])) <= 1.6449 * deviation
    assert 0.86 <= inside / 300 <= 0.95


def test_a_scale_of_too_few_mixtures_counts_for_nothing_and_is_named() -> None:
    one, guess = anchors_at((4.0, 4.0), 0.5, 2)
    found = transfer((8.0, 8.0), [one], [guess], np.ones(1))
    assert (found.anchors, found.factors[0]) == (0, 1.0)
    assert found.unknown == unknown_after((8.0, 8.0))
    assert found.left_out == (one,)


def test_the_anchors_half_way_cost_a_root_of_the_target_and_leave_less_open() -> None:
    known = halfway((9e5, 1.6e6), (1e5, 1e5))
    assert known.parameters == pytest.approx(3e5)
    assert known.tokens == pytest.approx(4e5)
    assert known.unknown[0] < known.known[0] < 1 < known.known[1] < known.unknown[1]


def test_a_scale_known_twice_is_known_once_and_the_proxies_own_tells_nothing() -> None:
    """The prior's covariance of the anchors is singular in each of these."""
    far, at = (64.0, 64.0), (8.0, 8.0)
    assert unknown_after(far, [at, at]) == pytest.approx(unknown_after(far, [at]), rel=1e-6)
    assert unknown_after(far, [(1.0, 1.0), at]) == pytest.approx(unknown_after(far, [at]), rel=1e-6)
    assert unknown_after(far, [(1.0, 1.0)]) == pytest.approx(unknown_after(far))
    assert unknown_after((1.0, 1.0), [(1.0, 1.0)]) == 0


def test_two_lots_of_anchors_of_one_scale_have_one_slope() -> None:
    at = (8.0, 4.0)
    lots = [anchors_at(at, 0.7, runs, noise=0.2) for runs in (6, 9)]
    found = transfer(at, [one for one, _ in lots], [guess for _, guess in lots], np.ones(1))
    variance = prior(doublings(at)[None], doublings(at)[None])[0, 0]

    def loss(log: float) -> float:
        """Of the one l that both lots have, each about its own mean."""
        squares = 4 * 0.15**2
        for one, guess in lots:
            x, y = guess[:, 0] - guess.mean(), one.metrics[:, 0] - one.metrics.mean()
            squares += ((y - np.exp(log) * x) ** 2).sum()
        return log**2 / (2 * variance) + (4 + 5 + 8) / 2 * np.log(squares)

    grid = np.linspace(-2, 2, 40_001)
    best = grid[np.argmin([loss(log) for log in grid])]
    assert np.log(found.factors[0]) == pytest.approx(best, abs=2e-4)
    assert found.unknown == pytest.approx(0, abs=1e-5)


def test_anchors_of_the_proxies_own_scale_leave_gains_as_they_are() -> None:
    one, guess = anchors_at((1.0, 1.0), 0.5, 8)
    found = transfer((8.0, 8.0), [one], [guess], np.ones(1))
    assert found.factors[0] == pytest.approx(1)
    assert found.unknown == pytest.approx(unknown_after((8.0, 8.0)))
    assert found.measured[0] == pytest.approx(0, abs=1e-6)
