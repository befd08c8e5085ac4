from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from proxy_models.config import SIZES, ModelConfig, TrainingConfig
from proxy_models.families.architecture import Counts
from proxy_models.model.model import Decoder
from proxy_models.planning.calibration import Calibration, Device, Rate, shape_of
from proxy_models.planning.cost import Room, SwarmWork, swarm_cost
from proxy_models.planning.memory import (
    available_memory,
    bytes_per_model,
    largest_batch_rows,
    largest_size,
    largest_wave,
    logits_bytes,
    total_memory,
)

MODEL = SIZES["nano-0.1M"]
TRAINING = TrainingConfig(tokens=10_240, sequence_length=128, batch_rows=8)
DEVICE = Device("a processor", "cpu", "2.9.1", 1)


def calibrated(members: int = 1, rate: float = 1_000.0, startup: float = 0.0, **device: str) -> Calibration:
    backend = "one-by-one" if members == 1 else "stacked"
    measured = Rate(shape_of(MODEL), 1024, backend, members, rate, startup)
    return Calibration(replace(DEVICE, **device), 2**34, (measured,))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("length", [32, 128])
def test_the_flops_of_a_token_are_those_torch_counts_in_a_real_step(tied: bool, length: int) -> None:
    """Its counter knows no mask, so it counts attention twice, 6 L T w more a token; and products only, no norms.

    In float64, for it does not see into oneDNN's products, and with attention as two plain products.
    """
    model = ModelConfig("counted", 3, 64, 2, 96, 1e-2, vocabulary_size=512, tied_embeddings=tied)
    decoder = Decoder(model).double()
    tokens = torch.zeros(2, length, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        decoder.loss(tokens, tokens).backward()
    masked = 6 * model.layers * length * model.width
    norms = 6 * sum(one.numel() for one in decoder.parameters() if one.ndim == 1)
    assert counter.get_total_flops() == 2 * length * (model.flops_per_token(length) + masked - norms)


def test_arithmetic_and_time_follow_from_runs_tokens_and_the_measured_rate() -> None:
    """By hand: 4 runs of 10,240 tokens at 1,000 tokens/s take 40.96 s, the first step's preparation 2 s."""
    work = SwarmWork(MODEL, TRAINING, 4, 40_960)
    cost = swarm_cost(work, [calibrated(startup=2.0)], Room())
    assert cost.training_flops == 40_960 * MODEL.flops_per_token(128)
    assert cost.evaluation_flops is None
    assert cost.device_seconds == pytest.approx(42.96)
    assert (cost.backend, cost.waves, cost.unknown) == ("one-by-one", 4, None)
    assert cost.device == "a processor (PyTorch 2.9.1, 1 thread)"
    # a run that reads 3,000 tokens forward only does the arithmetic of training on 1,000
    evaluated = swarm_cost(replace(work, evaluation_tokens=3_000), [calibrated(startup=2.0)], Room())
    assert evaluated.evaluation_flops == 4 * 1_000 * MODEL.flops_per_token(128)
    assert evaluated.device_seconds == pytest.approx(46.96)


def test_a_swarm_is_split_into_waves_that_fit_beside_each_other() -> None:
    each = bytes_per_model(MODEL, TRAINING)
    memory = 2 * (9 * each + logits_bytes("cpu"))
    tables = [calibrated(16), calibrated(8)]
    cost = swarm_cost(SwarmWork(MODEL, TRAINING, 20, 204_800), tables, Room("cpu", memory, 2))
    assert (cost.largest_wave, cost.members, cost.waves) == (9, 8, 3)
    assert cost.memory_bytes == memory


def test_what_nobody_measured_has_no_time_but_the_reason() -> None:
    work = SwarmWork(MODEL, TRAINING, 4, 40_960)
    for tables in ([], [calibrated(type="cuda")]):
        cost = swarm_cost(work, tables, Room())
        assert (cost.device_seconds, cost.backend, cost.waves) == (None, None, None)
        assert cost.unknown == "no cpu was calibrated yet"
    other = replace(work, model=SIZES["nano-1M"])
    cost = swarm_cost(other, [calibrated()], Room())
    assert cost.device_seconds is None
    assert "nothing measured for nano-1M" in (cost.unknown or "")
    assert cost.training_flops == 40_960 * SIZES["nano-1M"].flops_per_token(128)


def test_nothing_to_train_costs_nothing() -> None:
    cost = swarm_cost(SwarmWork(MODEL, TRAINING, 0, 0), [], Room())
    assert (cost.training_flops, cost.device_seconds, cost.unknown) == (0, 0.0, None)


def test_a_model_of_another_kind_has_its_arithmetic_counted() -> None:
    work = SwarmWork(Counts(1_000, 900, 900, 100, 2), TRAINING, 2, 20_480)
    cost = swarm_cost(work, [calibrated()], Room("cpu", 2**30))
    assert cost.training_flops == 20_480 * (6 * 1_000 + 6 * 2 * TRAINING.sequence_length)
    assert (cost.bytes_per_model, cost.largest_wave, cost.device_seconds) == (None, None, None)
    assert cost.unknown


def test_the_advice_for_too_little_memory_fits_and_one_more_does_not() -> None:
    model, free = SIZES["mini-8M"], 2**31
    training = TrainingConfig(10**9, 1024, 4096)
    assert largest_wave(model, training, "cpu", free) == 0
    rows = largest_batch_rows(model, training, "cpu", free)
    assert largest_wave(model, replace(training, batch_rows=rows), "cpu", free) == 1
    assert largest_wave(model, replace(training, batch_rows=rows + 1), "cpu", free) == 0
    assert largest_batch_rows(model, training, "cpu", 2**20) == 0
    assert largest_size(4096, training, "cpu", free) is None
    small = replace(training, batch_rows=4)
    fits = largest_size(4096, small, "cpu", free)
    assert fits is not None
    assert largest_wave(SIZES[fits], small, "cpu", free) >= 1
    names = list(SIZES)
    assert largest_wave(SIZES[names[names.index(fits) + 1]], small, "cpu", free) == 0


def test_a_container_has_the_memory_it_may_use(tmp_path: Path) -> None:
    assert total_memory(tmp_path) >= available_memory(tmp_path) > 0
    (tmp_path / "memory.max").write_text("max\n")
    assert total_memory(tmp_path) > 2**28
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**28 - 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**19}\nactive_file 7\n")
    assert total_memory(tmp_path) == 2**28
    assert available_memory(tmp_path) == 2**20 + 2**19
