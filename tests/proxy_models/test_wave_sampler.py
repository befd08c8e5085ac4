"""A wave's batches are those of its samplers, and an order that is computed is a permutation as a drawn one is."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy_models.errors import InvalidSpec
from proxy_models.training import mixture_sampler
from proxy_models.training.mixture_sampler import MixtureSampler, RowOrder, SamplerSpec, WaveSampler, permuted
from tests.proxy_models.test_mixture_sampler import starts_of

LENGTH = 8


def tokens(lengths: Sequence[int], dtype: str) -> dict[str, np.ndarray]:
    return {
        f"d{index}": np.random.default_rng(index).integers(0, 60_000, length).astype(dtype)
        for index, length in enumerate(lengths)
    }


@st.composite
def waves(draw: st.DrawFn) -> list[MixtureSampler]:
    """Samplers of one shape over one domain set, from 1 to 40 epochs of its domains; seeds may be shared."""
    lengths = draw(st.lists(st.integers(LENGTH + 1, 400), min_size=1, max_size=6))
    shards = tokens(lengths, draw(st.sampled_from(["<u2", "<u4"])))
    steps, rows = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    samplers = []
    for _ in range(draw(st.integers(1, 4))):
        parts = draw(st.lists(st.integers(0, 9), min_size=len(lengths), max_size=len(lengths)).filter(any))
        assume(steps * rows >= np.count_nonzero(parts))  # fewer rows than domains are refused
        mixture = {name: part / sum(parts) for name, part in zip(shards, parts, strict=True)}
        samplers.append(
            MixtureSampler(SamplerSpec(shards, mixture, steps, rows, LENGTH, draw(st.integers(0, 2))))
        )
    return samplers


@given(waves(), st.data(), st.sampled_from([1, 1000, 2**22]))
@settings(max_examples=60, deadline=None)
def test_a_waves_batches_are_those_of_its_samplers_in_any_order(
    samplers: list[MixtureSampler], data: st.DataObject, chunk_bytes: int
) -> None:
    steps = samplers[0].spec.steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture_sampler, "CHUNK_BYTES", chunk_bytes)
        wave = WaveSampler(samplers)
    asked = data.draw(st.lists(st.integers(0, steps - 1), min_size=1, max_size=8))
    for step in [*range(steps), *asked]:  # a resumed run may begin anywhere
        expected = np.stack([sampler.batch(step) for sampler in samplers])
        found = wave.batch(step)
        assert found.dtype == np.int64
        assert np.array_equal(found, expected)


def test_samplers_over_unlike_domains_keep_their_own_text() -> None:
    one, other = tokens((300, 200), "<u2"), tokens((250, 90, 400), "<u4")
    samplers = [
        MixtureSampler(SamplerSpec(shards, dict.fromkeys(shards, 1 / len(shards)), 30, 4, LENGTH, 0))
        for shards in (one, dict(list(other.items())[:2]))
    ]
    wave = WaveSampler(samplers)
    for step in range(30):
        assert np.array_equal(wave.batch(step), np.stack([sampler.batch(step) for sampler in samplers]))


def test_samplers_of_one_seed_keep_one_order_of_a_domain() -> None:
    shards = tokens((3000,), "<u2")
    samplers = [MixtureSampler(SamplerSpec(shards, {"d0": 1.0}, 5, 4, LENGTH, seed)) for seed in (0, 0, 1)]
    drawn: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        draw = RowOrder._key
        patch.setattr(RowOrder, "_key", lambda self, epoch: drawn.append(self.seed) or draw(self, epoch))
        WaveSampler(samplers).batch(0)
    assert sorted(drawn) == [0, 1]


def test_unequal_samplers_and_steps_out_of_range_are_refused() -> None:
    shards = tokens((300,), "<u2")

    def sampler(steps: int = 5, rows: int = 4, length: int = LENGTH) -> MixtureSampler:
        return MixtureSampler(SamplerSpec(shards, {"d0": 1.0}, steps, rows, length, 0))

    for other, field in ((sampler(steps=6), "steps"), (sampler(rows=3), "batch_rows")):
        with pytest.raises(InvalidSpec, match=f"sampler 1 has {field}") as caught:
            WaveSampler([sampler(), other])
        assert caught.value.field == field
    with pytest.raises(InvalidSpec, match="sequence_length 4, the first has 8"):
        WaveSampler([sampler(), sampler(length=4)])
    with pytest.raises(InvalidSpec, match="at least one"):
        WaveSampler([])
    for step in (-1, 5):
        with pytest.raises(InvalidSpec, match=f"step {step} of a run of 5"):
            WaveSampler([sampler()]).batch(step)


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_a_computed_order_is_a_permutation_of_its_key(size: int, key: int) -> None:
    keys = np.array([key, 7], dtype=np.uint64)
    images = permuted(np.arange(size), size, keys)
    assert sorted(images.tolist()) == list(range(size))
    assert np.array_equal(permuted(np.arange(size)[::-1], size, keys), images[::-1])  # each on its own


def test_a_computed_order_is_no_more_regular_than_a_drawn_one() -> None:
    """Chi-square over where 64 blocks of neighbours go, and few neighbours that stay neighbours."""
    size = 2**18 + 12_345
    images = permuted(np.arange(size), size, np.array([1, 2], dtype=np.uint64))
    counts = np.histogram2d(np.arange(size), images, bins=64)[0]
    expected = size / 64**2
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - 63**2) < 5 * np.sqrt(2 * 63**2)
    assert (np.abs(np.diff(images)) == 1).sum() < 20  # 2 on average
    other = permuted(np.arange(size), size, np.array([1, 3], dtype=np.uint64))
    assert (images == other).sum() < 15  # 1 on average


def test_a_trillion_tokens_need_no_memory() -> None:
    """The permutation of one epoch would take 62 GB."""
    order = RowOrder("web", 10**12, 128, seed=3)
    rows = np.arange(5000, dtype=np.int64) + 123_456_789
    starts = order.starts_of(rows)
    assert len(set(starts.tolist())) == len(rows)
    assert ((starts >= 0) & (starts + 128 < 10**12)).all()
    assert len({int(start) % 128 for start in starts}) == 1  # one offset
    assert starts.max() > 0.9e12
    assert starts.min() < 0.1e12
    assert [order.start(int(row)) for row in rows[:20]] == starts[:20].tolist()
    later = order.starts_of(rows + order.rows_per_epoch)
    assert not (later == starts).any()


def test_both_kinds_of_order_cover_every_row_of_every_epoch() -> None:
    order = RowOrder("d", 805, LENGTH, seed=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture_sampler, "DRAWN_ROWS", 99)
        for epoch in range(5):
            starts = starts_of(order, epoch)
            assert sorted(starts) == [starts.min() + LENGTH * i for i in range(100)]
            assert (
                starts.min() == starts_of(RowOrder("d", 805, LENGTH, seed=5), epoch).min()
            )  # the same offset


def test_only_some_epochs_are_kept() -> None:
    order = RowOrder("d", 10 * LENGTH + 1, LENGTH, seed=0)
    first = starts_of(order, 0)
    for epoch in range(mixture_sampler.KEPT_ROWS // 10 + 100):
        order.start(epoch * 10)
    assert sum(len(drawn) for _, drawn in order._epochs.values()) <= mixture_sampler.KEPT_ROWS
    assert np.array_equal(starts_of(order, 0), first)
