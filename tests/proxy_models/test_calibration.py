import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec, NotCalibrated, NotEnoughMemory
from proxy_models.planning.calibration import (
    Calibration,
    Device,
    Rate,
    SwarmSize,
    choose,
    file_of,
    read_calibrations,
    save,
    table_of,
)
from proxy_models.planning.memory import bytes_per_model

MODEL = ModelConfig("small", 1, 32, 2, 48, 1e-2, vocabulary_size=64)
TRAINING = TrainingConfig(tokens=100 * 4 * 16, sequence_length=16, batch_rows=4)
SHAPE = "1x32x2x48 64 tied"
ONE_BY_ONE, STACKED, STACKED_COMPILED = "one-by-one", "stacked", "stacked-compiled"
HERE = Device("EPYC (R) 7763 / 64-Core", "cpu", "2.9.1+cpu", 1)


def table(*rates: Rate) -> Calibration:
    return Calibration(HERE, 2**40, rates)


SLOW_START = table(
    Rate(SHAPE, 64, ONE_BY_ONE, 1, 1_000.0, 0.0),
    Rate(SHAPE, 64, STACKED, 4, 1_250.0, 0.0),
    Rate(SHAPE, 64, STACKED_COMPILED, 8, 2_000.0, 20.0),
)


def test_the_choice_trains_the_whole_swarm_soonest() -> None:
    """By hand: n * 6400 tokens; 4 runs take 25.6 s, 20.48 s or, too few for it, not 8 at a time; 16: 102, 82, 71."""
    few = choose(SwarmSize(MODEL, TRAINING, 4), SLOW_START)
    assert (few.rate.backend, few.waves, few.seconds) == (STACKED, (4,), pytest.approx(20.48))
    many = choose(SwarmSize(MODEL, TRAINING, 18), SLOW_START)
    assert (many.rate.backend, many.waves, many.seconds) == (STACKED_COMPILED, (8, 8, 2), pytest.approx(77.6))
    alone = choose(SwarmSize(MODEL, TRAINING, 3), SLOW_START)
    assert (alone.rate.backend, alone.waves) == (ONE_BY_ONE, (1, 1, 1))


def test_what_does_not_fit_is_not_chosen() -> None:
    free = 5 * bytes_per_model(MODEL, TRAINING) + 4 * 2**20
    choice = choose(SwarmSize(MODEL, TRAINING, 100), SLOW_START, free)
    assert choice.rate.backend == STACKED
    assert choice.needed_bytes <= free
    assert choose(SwarmSize(MODEL, TRAINING, 100), replace(SLOW_START, memory_bytes=free)) == choice
    with pytest.raises(NotEnoughMemory, match="not even one"):
        choose(SwarmSize(MODEL, TRAINING, 2), SLOW_START, 1000)


def test_questions_the_table_does_not_answer_are_refused() -> None:
    swarm = SwarmSize(MODEL, TRAINING, 4)
    for other in (
        replace(HERE, name="another machine"),
        replace(HERE, torch_version="1.0"),
        replace(HERE, threads=2),
    ):
        with pytest.raises(NotCalibrated, match="calibrate here"):
            choose(swarm, SLOW_START, here=other)
    with pytest.raises(NotCalibrated, match=r"small .*128 tokens per step") as caught:
        choose(
            SwarmSize(MODEL, replace(TRAINING, batch_rows=8), 4),
            table(Rate(SHAPE, 32, ONE_BY_ONE, 1, 1.0, 0.0)),
        )
    assert not caught.value.retryable
    with pytest.raises(NotCalibrated):
        choose(SwarmSize(replace(MODEL, ffn=64), TRAINING, 4), SLOW_START)
    with pytest.raises(InvalidSpec, match="0 models"):
        choose(SwarmSize(MODEL, TRAINING, 0), SLOW_START)


def test_calibrations_of_one_device_add_up() -> None:
    newer = table(Rate(SHAPE, 64, STACKED, 4, 9_000.0, 0.0), Rate(SHAPE, 128, STACKED, 4, 1.0, 0.0))
    both = SLOW_START + newer
    assert len(both.rates) == 4
    assert choose(SwarmSize(MODEL, TRAINING, 4), both).seconds == pytest.approx(25_600 / 9_000)
    with pytest.raises(InvalidSpec, match="do not add up"):
        _ = SLOW_START + replace(newer, device=replace(HERE, threads=2))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("device"),
        lambda content: content["device"].pop("threads"),
        lambda content: content["rates"].append({"speed": 1}),
        lambda content: content["rates"][0].update(tokens_per_second=0.0),
        lambda content: content["rates"][0].update(tokens_per_second=math.nan),
        lambda content: content["rates"][0].update(members="four"),
        lambda content: content.update(rates=None),
    ],
)
def test_what_is_no_calibration_is_not_read_as_one(damage) -> None:
    content = json.loads(json.dumps(asdict(SLOW_START)))
    assert Calibration.from_dict(content) == SLOW_START
    damage(content)
    with pytest.raises(InvalidSpec, match="not a calibration"):
        Calibration.from_dict(content)
    with pytest.raises(InvalidSpec, match="not a calibration"):
        Calibration.from_dict(None)


def test_what_is_saved_adds_to_what_is_there_and_devices_lie_apart(tmp_path: Path) -> None:
    assert read_calibrations(tmp_path / "none").tables == ()
    assert table_of(tmp_path, HERE) is None
    save(tmp_path, SLOW_START)
    newer = table(Rate(SHAPE, 64, STACKED, 4, 9_000.0, 0.0))
    assert save(tmp_path, newer) == table_of(tmp_path, HERE) == SLOW_START + newer
    others = [replace(HERE, threads=2), replace(HERE, torch_version="2.10"), replace(HERE, name="Xeon")]
    for other in others:
        save(tmp_path, replace(SLOW_START, device=other))
    assert len({file_of(tmp_path, device) for device in (HERE, *others)}) == 4
    assert {one.device for one in read_calibrations(tmp_path).tables} == {HERE, *others}
    assert file_of(tmp_path, HERE).name == "epyc-r-7763-64-core-torch-2.9.1-cpu-1-threads.json"


def test_a_file_that_cannot_be_read_is_named_hides_no_other_and_is_kept(tmp_path: Path) -> None:
    save(tmp_path, SLOW_START)
    other = replace(SLOW_START, device=replace(HERE, name="Xeon"))
    save(tmp_path, other)
    file = file_of(tmp_path, HERE)
    file.write_text(file.read_text()[:100])
    found = read_calibrations(tmp_path)
    assert found.tables == (other,)
    (problem,) = found.unreadable
    assert str(file) in str(problem)
    assert table_of(tmp_path, HERE) is None
    half = file.read_text()
    assert save(tmp_path, SLOW_START) == SLOW_START
    assert read_calibrations(tmp_path).unreadable == ()
    assert file.with_name(f"{file.name}.unreadable").read_text() == half
