import json
from dataclasses import replace

import pytest
import torch

from proxy_models.backend_choice import Calibration, Rate, Swarm, calibrate, choose, device_name
from proxy_models.backends.backend import ONE_BY_ONE, STACKED, STACKED_COMPILED
from proxy_models.backends.registry import NAMES, available, build
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec, NotCalibrated, NotEnoughMemory
from proxy_models.memory import bytes_per_model

MODEL = ModelConfig("small", 1, 32, 2, 48, 1e-2, vocabulary_size=64)
TRAINING = TrainingConfig(tokens=100 * 4 * 16, sequence_length=16, batch_rows=4)
SHAPE = "1x32x2x48 64 tied"
PLENTY = 2**40


def table(*rates: Rate) -> Calibration:
    return Calibration(device_name("cpu"), torch.__version__, 1, rates)


SLOW_START = table(
    Rate(SHAPE, 64, ONE_BY_ONE, 1, 1_000.0, 0.0),
    Rate(SHAPE, 64, STACKED, 4, 1_250.0, 0.0),
    Rate(SHAPE, 64, STACKED_COMPILED, 8, 2_000.0, 20.0),
)


def test_the_choice_trains_the_whole_swarm_soonest() -> None:
    """By hand: n * 6400 tokens; 4 runs take 25.6 s, 20.48 s or, too few for it, not 8 at a time; 16: 102, 82, 71."""
    few = choose(Swarm(MODEL, TRAINING, 4), SLOW_START, free_bytes=PLENTY)
    assert (few.backend, few.waves, few.seconds) == (STACKED, (4,), pytest.approx(20.48))
    many = choose(Swarm(MODEL, TRAINING, 18), SLOW_START, free_bytes=PLENTY)
    assert (many.backend, many.waves, many.seconds) == (STACKED_COMPILED, (8, 8, 2), pytest.approx(77.6))
    alone = choose(Swarm(MODEL, TRAINING, 3), SLOW_START, free_bytes=PLENTY)
    assert (alone.backend, alone.waves) == (ONE_BY_ONE, (1, 1, 1))


def test_what_does_not_fit_is_not_chosen() -> None:
    free = 5 * bytes_per_model(MODEL, TRAINING) + 4 * 2**20
    choice = choose(Swarm(MODEL, TRAINING, 100), SLOW_START, free_bytes=free)
    assert choice.backend == STACKED
    assert choice.needed_bytes <= free
    with pytest.raises(NotEnoughMemory, match="not even one"):
        choose(Swarm(MODEL, TRAINING, 2), SLOW_START, free_bytes=1000)


def test_questions_the_table_does_not_answer_are_refused() -> None:
    swarm = Swarm(MODEL, TRAINING, 4)
    for other in (
        replace(SLOW_START, device="another machine"),
        replace(SLOW_START, torch_version="1.0"),
    ):
        with pytest.raises(NotCalibrated, match="calibrate here"):
            choose(swarm, other)
    with pytest.raises(NotCalibrated, match=r"small .*128 tokens per step") as caught:
        choose(
            Swarm(MODEL, replace(TRAINING, batch_rows=8), 4), table(Rate(SHAPE, 32, ONE_BY_ONE, 1, 1.0, 0.0))
        )
    assert not caught.value.retryable
    with pytest.raises(NotCalibrated):
        choose(Swarm(replace(MODEL, ffn=64), TRAINING, 4), SLOW_START)
    with pytest.raises(InvalidSpec, match="0 models"):
        choose(Swarm(MODEL, TRAINING, 0), SLOW_START)


def test_a_calibration_is_measured_survives_json_and_answers() -> None:
    measured = calibrate(MODEL, TRAINING, members=(2, 3), backends=(ONE_BY_ONE, STACKED))
    assert [(rate.backend, rate.members) for rate in measured.rates] == [
        (ONE_BY_ONE, 1),
        (STACKED, 2),
        (STACKED, 3),
    ]
    assert all(rate.tokens_per_second > 0 for rate in measured.rates)
    again = Calibration.from_dict(json.loads(json.dumps(measured.to_dict())))
    assert again == measured
    choice = choose(Swarm(replace(MODEL, name="renamed"), TRAINING, 6), again, free_bytes=PLENTY)
    assert sum(choice.waves) == 6
    build(choice.backend, MODEL, [TRAINING] * choice.waves[0])
    with pytest.raises(InvalidSpec, match="not a calibration"):
        Calibration.from_dict({"rates": [{"speed": 1}]})


def test_calibrations_of_one_device_add_up() -> None:
    newer = table(Rate(SHAPE, 64, STACKED, 4, 9_000.0, 0.0), Rate(SHAPE, 128, STACKED, 4, 1.0, 0.0))
    both = SLOW_START + newer
    assert len(both.rates) == 4
    assert choose(Swarm(MODEL, TRAINING, 4), both, free_bytes=PLENTY).seconds == pytest.approx(25_600 / 9_000)
    with pytest.raises(InvalidSpec, match="do not add up"):
        _ = SLOW_START + replace(newer, device="another machine")


def test_every_backend_on_offer_has_a_name() -> None:
    assert set(available("cpu")) <= set(NAMES)
    assert {ONE_BY_ONE, STACKED} <= set(available("cpu"))
