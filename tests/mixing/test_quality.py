import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from mixing.errors import Infeasible, InvalidSetting, InvalidTokens
from mixing.quality import QualityCurves, quality_curves

# Five topics over ten buckets: even, bottom-heavy, top-heavy, with empty buckets, nearly everything in one.
TOKENS = np.array(
    [
        [10, 10, 10, 10, 10, 10, 10, 10, 10, 10],
        [30, 20, 10, 10, 8, 7, 6, 4, 3, 2],
        [2, 3, 4, 6, 7, 8, 10, 10, 20, 30],
        [0, 20, 0, 25, 0, 15, 20, 0, 20, 0],
        [1, 1, 1, 1, 1, 1, 1, 1, 2, 90],
    ],
    dtype=float,
)
TOPICS = ("even", "poor", "rich", "sparse", "lumped")
TARGETS = np.array([250.0, 150.0, 100.0, 60.0, 500.0])


def curve_of(curves: QualityCurves, topic: int) -> tuple[float, float, float, float]:
    return tuple(float(part[topic]) for part in (curves.start, curves.exponent, curves.rate, curves.scale))


def mean_by_quadrature(curves: QualityCurves, topic: int, low: float, high: float) -> float:
    start, exponent, rate, scale = curve_of(curves, topic)
    if high <= start:
        return 0.0
    low = max(low, start)
    area, _ = quad(
        lambda x: scale * (x - start) ** exponent * np.exp(rate * (x - start)), low, high, epsabs=1e-13
    )
    return area / (high - low)


def test_each_bucket_is_read_as_often_as_the_curve_is_on_average_over_it() -> None:
    curves = quality_curves(TOPICS, TOKENS, TARGETS)
    for topic in range(len(TOPICS)):
        for bucket in np.flatnonzero(TOKENS[topic] > 0):
            low, high = curves.edges[topic, bucket], curves.edges[topic, bucket + 1]
            expected = mean_by_quadrature(curves, topic, low, high)
            assert curves.factors[topic, bucket] == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_the_target_is_met_the_worst_is_discarded_and_the_best_is_bounded() -> None:
    curves = quality_curves(TOPICS, TOKENS, TARGETS)
    np.testing.assert_allclose((curves.factors * TOKENS).sum(1), TARGETS, rtol=1e-10)
    assert curves.factors.max() <= 7 + 1e-9
    assert (np.diff(curves.factors, axis=1)[TOKENS[:, 1:] > 0] >= -1e-12).all(), (
        "better text is read as often"
    )
    np.testing.assert_allclose(curves.start, [0.4, 0.3, 0.4, 0.2, 0.1], atol=1e-12)
    assert (curves.factors[curves.edges[:, 1:] <= curves.start[:, None]] == 0).all()


def test_the_curve_is_the_steepest_of_its_path() -> None:
    """Either the best bucket is read exactly M times, or both parameters are at their upper ends."""
    curves = quality_curves(TOPICS, TOKENS, TARGETS)
    top = np.array([row[counts > 0][-1] for row, counts in zip(curves.factors, TOKENS, strict=True)])
    at_end = (curves.exponent == 2) & (curves.rate == 2)
    assert at_end.any()
    assert not at_end.all()
    np.testing.assert_allclose(top[~at_end], 7, rtol=1e-9)
    assert ((curves.rate == 0) | (curves.exponent == 2)).all()


def test_a_case_with_lambda_at_0_is_solved_by_hand() -> None:
    """Even buckets, a = .4: the best tenth's share of (x - a)^p is 1 - (5/6)^(p+1), and 10 times 2.2 of it is 7."""
    expected = brentq(lambda p: 22 * (1 - (5 / 6) ** (p + 1)) - 7, 0.01, 2)
    curves = quality_curves(["even"], TOKENS[:1], np.array([220.0]))
    assert curves.exponent[0] == pytest.approx(expected, rel=1e-10)
    assert curves.rate[0] == 0
    assert curves.scale[0] == pytest.approx(2.2 * (expected + 1) / 0.6 ** (expected + 1), rel=1e-9)


@pytest.mark.parametrize("ratio", [1.5, 1.6])
def test_a_case_with_lambda_above_0_agrees_with_a_root_found_by_quadrature(ratio: float) -> None:
    def best_bucket(rate: float) -> float:
        def curve(y: float) -> float:
            return y**2 * np.exp(rate * y)

        return 10 * ratio * quad(curve, 0.5, 0.6)[0] / quad(curve, 0, 0.6)[0]

    _, exponent, rate, _ = curve_of(quality_curves(["even"], TOKENS[:1], np.array([100 * ratio])), 0)
    assert exponent == 2
    assert rate == pytest.approx(brentq(lambda rate: best_bucket(rate) - 7, 0, 2), rel=1e-8)


def test_topics_do_not_depend_on_their_companions() -> None:
    together = quality_curves(TOPICS, TOKENS, TARGETS)
    for topic, name in enumerate(TOPICS):
        alone = quality_curves([name], TOKENS[topic : topic + 1], TARGETS[topic : topic + 1])
        np.testing.assert_allclose(alone.factors[0], together.factors[topic], rtol=1e-12)


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=20), st.floats(0.0, 0.999))
def test_every_target_within_reach_is_reached(counts: list[int], fullness: float) -> None:
    """What is within reach is what the error says, up to the last whole token."""
    tokens = 1e6 * np.array([counts], float)
    with pytest.raises(Infeasible, match="'t'") as caught:
        quality_curves(["t"], tokens, 1e3 * tokens.sum(axis=1))
    largest = caught.value.largest_target
    assert largest is not None
    with pytest.raises(Infeasible):
        quality_curves(["t"], tokens, np.array([largest + 10.0]))
    for target in (largest, largest * fullness):
        curves = quality_curves(["t"], tokens, np.array([float(target)]))
        assert (curves.factors * tokens).sum() == pytest.approx(target, rel=1e-9)
        assert curves.factors.max() <= 7 + 1e-9


def test_what_cannot_be_done_names_its_topic() -> None:
    with pytest.raises(Infeasible, match=r"'poor' 900 tokens") as caught:
        quality_curves(TOPICS, TOKENS, np.where(np.arange(5) == 1, 900.0, TARGETS))
    assert caught.value.names == ("poor",)
    with pytest.raises(InvalidTokens, match="rich"):
        quality_curves(TOPICS, np.where(np.arange(5)[:, None] == 2, 0, TOKENS), TARGETS)
    with pytest.raises(InvalidSetting, match="sparse"):
        quality_curves(TOPICS, TOKENS, np.where(np.arange(5) == 3, np.nan, TARGETS))
    with pytest.raises(InvalidSetting, match="discarded"):
        quality_curves(TOPICS, TOKENS, TARGETS, discarded=1.0)
    with pytest.raises(InvalidTokens, match="5 topics"):
        quality_curves(TOPICS, TOKENS[:4], TARGETS)
