from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.reuse import SMALL, Outcome, bench_of, outcomes, summary
from benchmarks.reuse_strategies import DEFAULT, RECOMPUTE, STRATEGIES, Bench
from benchmarks.reuse_truth import WORLDS, Fits
from benchmarks.reuse_updates import REMOVED, SPLIT, Updates, updates
from mixing.laws.exponential.log_linear import LogLinearLaw
from mixing.laws.powers.effective_power import EffectivePowerLaw
from mixing.laws.processes.gaussian_process import GaussianProcess

WIDTH, TASKS = 17, 2


@pytest.fixture(scope="module")
def fitted() -> Fits:
    """Laws fitted to runs of a made-up swarm as wide as the published one."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.full(WIDTH, 0.5), 60)
    worth = generator.lognormal(-0.5, 1.0, (WIDTH, TASKS))
    metrics = 2 + (np.sqrt(weights + 1e-4) @ worth) ** -0.5 + 1e-3 * generator.standard_normal((60, TASKS))
    return Fits.of(
        GaussianProcess().fit(weights, metrics),
        EffectivePowerLaw().fit(weights, metrics),
        LogLinearLaw().fit(weights, metrics),
        weights.mean(0),
        np.full(TASKS, 1e-3),
    )


def carried(pool: Updates, revision: str, weights: dict[str, float]) -> np.ndarray:
    """A mixture of a revision over all contents."""
    found = pool.whole.carry(revision, weights)
    return np.array([found[name] for name in pool.whole.contents.names])


def small(world: str, fitted: Fits, seed: int = 1) -> Bench:
    return bench_of(world, seed, fitted, shape=SMALL)


def test_the_five_updates_are_found_and_lead_from_24_domains_to_64() -> None:
    pool = updates(np.random.default_rng(0))
    assert [len(pool.domains(revision)) for revision in pool.ids] == [24, 39, 45, 45, 44, 64]
    changes = [pool.nodes[revision].changes for revision in pool.ids[1:]]
    added, sources, revised, removed, split = (one for one in changes if one is not None)
    assert (len(added.added), len(sources.added)) == (15, 6)
    assert (revised.revised, removed.removed) == ({SPLIT: SPLIT}, (REMOVED,))
    assert [(name, len(parts)) for name, parts in split.split.items()] == [(SPLIT, 21)]
    # The text before it was filtered again and the source that was removed are contents without a domain.
    assert len(pool.whole.contents) == 66


@pytest.mark.parametrize("world", list(WORLDS))
def test_a_split_domain_is_worth_what_its_parts_at_their_natural_ratios_are(world: str, fitted: Fits) -> None:
    bench = small(world, fitted)
    pool = bench.updates
    whole, parts = pool.domains("4"), pool.domains("5")
    before = {name: 1.0 + at for at, name in enumerate(whole.names)}
    before = {name: weight / sum(before.values()) for name, weight in before.items()}
    tokens = {name: count for name, count in zip(parts.names, parts.tokens, strict=True) if SPLIT in name}
    after = {name: weight for name, weight in before.items() if name != SPLIT}
    after |= {name: before[SPLIT] * count / sum(tokens.values()) for name, count in tokens.items()}
    losses = bench.truth.losses(np.stack([carried(pool, "4", before), carried(pool, "5", after)]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


@pytest.mark.parametrize("world", list(WORLDS))
def test_a_revised_domain_is_another_text_and_an_unchanged_one_the_same(world: str, fitted: Fits) -> None:
    bench = small(world, fitted)
    pool, names = bench.updates, bench.updates.domains("2").names
    assert names == pool.domains("3").names
    even = dict.fromkeys(names, 1 / len(names))
    without = {name: 0.0 if name == SPLIT else 1 / (len(names) - 1) for name in names}
    points = [carried(pool, revision, weights) for weights in (even, without) for revision in ("2", "3")]
    losses = bench.truth.losses(np.stack(points))
    assert (losses[0] != losses[1]).all()
    np.testing.assert_allclose(losses[2], losses[3], rtol=1e-12)


def test_reuse_trains_fewer_runs_than_recomputing_and_both_gain(fitted: Fits) -> None:
    found = outcomes(small("effective power", fitted), [RECOMPUTE, DEFAULT])
    ours, theirs = found[DEFAULT], found[RECOMPUTE]
    assert ours.first == theirs.first == 21
    assert theirs.runs.tolist() == [33, 42, 42, 39, 51]
    assert ours.runs.sum() < 0.3 * theirs.runs.sum()
    assert ours.runs[3] == 0
    assert (ours.gains > 0).all()
    assert (theirs.gains > 0).all()


def test_a_strategy_answers_every_update_in_the_same_way_again(fitted: Fits) -> None:
    bench = bench_of("effective power", 1, fitted, tasks=1, shape=SMALL)
    one, again = outcomes(bench, [DEFAULT, "partial, ratios alone"]), outcomes(bench, [DEFAULT])
    assert all(len(outcome.runs) == len(outcome.gains) == 5 for outcome in one.values())
    np.testing.assert_array_equal(again[DEFAULT].gains, one[DEFAULT].gains)  # whatever is measured beside it
    np.testing.assert_array_equal(again[DEFAULT].runs, one[DEFAULT].runs)


@pytest.mark.long
def test_every_strategy_answers_every_update_in_the_same_way_again(fitted: Fits) -> None:
    bench = bench_of("effective power", 1, fitted, tasks=1, shape=SMALL)
    one = outcomes(bench, STRATEGIES)
    again = outcomes(
        bench, [DEFAULT, "partial, ratios alone", "olmix, auto"]
    )  # whatever is measured beside them
    for name, outcome in one.items():
        assert len(outcome.runs) == len(outcome.gains) == 5, name
    for name, outcome in again.items():
        np.testing.assert_array_equal(outcome.gains, one[name].gains)
        np.testing.assert_array_equal(outcome.runs, one[name].runs)
    for name, strategy in STRATEGIES.items():
        if strategy.runs_of is not None:
            np.testing.assert_array_equal(one[name].runs, one[strategy.runs_of].runs)


def test_no_two_strategies_draw_alike() -> None:
    streams = [strategy.stream for strategy in STRATEGIES.values()]
    assert len(set(streams)) == len(streams)


def test_shares_are_of_sums_over_updates_and_means_over_worlds_and_seeds() -> None:
    def outcome(runs: list[int], gains: list[float]) -> Outcome:
        return Outcome(10, np.array(runs), np.array(gains), {}, 1.0)

    whole = outcome([10, 10, 10, 10, 10], [1, 1, 1, 1, 1])
    part = outcome([4, 2, 2, 0, 2], [1, 1, 1, 1, 0.5])
    better = replace(part, gains=np.full(5, 1.1))
    found = summary(
        {
            ("a", 1): {RECOMPUTE: whole, DEFAULT: part},
            ("b", 1): {RECOMPUTE: whole, DEFAULT: better},
            ("a", 2): {RECOMPUTE: whole, DEFAULT: part},
            ("b", 2): {RECOMPUTE: whole, DEFAULT: part},
        }
    )
    row = found[DEFAULT]
    assert row["share_of_runs"] == 0.2
    assert row["without_removal"] == 0.25
    assert row["with_first"] == round(20 / 60, 4)
    assert row["share_of_gain"] == pytest.approx((0.9 + 1.1 + 0.9 + 0.9) / 4)
    assert row["last"] == pytest.approx((0.5 + 1.1 + 0.5 + 0.5) / 4)
    assert row["worst_seed"] == 0.9
    assert row["standard_error"] == pytest.approx(0.05)
    assert row["by_world"]["b"] == {"share_of_gain": 1.0, "worst_seed": 0.9}
    assert found[RECOMPUTE]["runs"] == [10] * 5


def test_stored_laws_draw_the_same_truths_but_for_those_that_need_the_runs(
    fitted: Fits, tmp_path: Path
) -> None:
    fitted.store(tmp_path / "laws.json")
    stored = Fits.stored(tmp_path / "laws.json")
    assert stored.worlds == ("effective power", "log-linear")
    pool = updates(np.random.default_rng(0), SMALL)
    mixture = np.full(len(pool.whole.contents), 1 / len(pool.whole.contents))
    for world in stored.worlds:
        truths = [WORLDS[world](one, pool, np.random.default_rng(1)) for one in (fitted, stored)]
        first, again = (truth.losses(mixture[None]) for truth in truths)
        np.testing.assert_allclose(again, first, rtol=1e-5)
    assert Fits.stored().worlds == stored.worlds
