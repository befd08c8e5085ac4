"""Measuring, on this machine's processor."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from proxy_models.backends import NAMES, ONE_BY_ONE, STACKED, available, build
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.planning.calibrate import calibrate, table_for
from proxy_models.planning.calibration import (
    Calibration,
    CalibrationOrder,
    SwarmSize,
    choose,
    read_calibrations,
    save,
)
from proxy_models.torch_device import free_memory, this_device

MODEL = ModelConfig("small", 1, 32, 2, 48, 1e-2, vocabulary_size=64)
TRAINING = TrainingConfig(tokens=100 * 4 * 16, sequence_length=16, batch_rows=4)
BOTH = (ONE_BY_ONE, STACKED)


def test_a_calibration_is_measured_survives_json_and_answers() -> None:
    told = []
    measured = calibrate(MODEL, TRAINING, members=(2, 3), backends=BOTH, measured=told.append)
    assert [(rate.backend, rate.members) for rate in measured.rates] == [
        (ONE_BY_ONE, 1),
        (STACKED, 2),
        (STACKED, 3),
    ]
    assert told == list(measured.rates)
    assert all(rate.tokens_per_second > 0 for rate in measured.rates)
    assert measured.memory_bytes >= free_memory("cpu")
    again = Calibration.from_dict(json.loads(json.dumps(asdict(measured))))
    assert again == measured
    swarm = SwarmSize(replace(MODEL, name="renamed"), TRAINING, 6)
    choice = choose(swarm, again, free_memory("cpu"), this_device("cpu"))
    assert sum(choice.waves) == 6
    build(choice.rate.backend, MODEL, [TRAINING] * choice.waves[0])


def test_every_backend_on_offer_has_a_name() -> None:
    assert set(available("cpu")) <= set(NAMES)
    assert {ONE_BY_ONE, STACKED} <= set(available("cpu"))


def test_what_was_measured_is_not_measured_again_and_what_is_missing_is(tmp_path: Path) -> None:
    first = table_for(MODEL, TRAINING, "cpu", tmp_path, [ONE_BY_ONE])
    assert [rate.backend for rate in first.rates] == [ONE_BY_ONE]
    assert table_for(MODEL, TRAINING, "cpu", tmp_path, [ONE_BY_ONE]) == first
    both = table_for(MODEL, TRAINING, "cpu", tmp_path, BOTH)
    assert both.rates[0] == first.rates[0]
    assert {rate.backend for rate in both.rates} == set(BOTH)
    assert read_calibrations(tmp_path).tables == (both,)
    other = table_for(replace(MODEL, ffn=64), TRAINING, "cpu", tmp_path, BOTH)
    assert set(both.rates) < set(other.rates)


def test_a_backend_missing_beside_rates_of_another_step_does_not_hide_them(tmp_path: Path) -> None:
    longer = replace(TRAINING, batch_rows=6)
    table_for(MODEL, longer, "cpu", tmp_path, [ONE_BY_ONE])
    found = table_for(MODEL, TRAINING, "cpu", tmp_path, BOTH)
    assert {rate.backend for rate in found.near(MODEL, TRAINING)} == set(BOTH)


def test_processes_that_ask_at_once_measure_once(tmp_path: Path) -> None:
    """Each asks under its own lock, as processes do: the kernel locks what was opened, not who opened it."""
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(table_for, MODEL, TRAINING, "cpu", tmp_path, BOTH) for _ in range(4)]
        found = [one.result() for one in asked]
    assert all(one == found[0] for one in found)


def test_a_damaged_table_is_measured_anew(tmp_path: Path) -> None:
    found = table_for(MODEL, TRAINING, "cpu", tmp_path, [ONE_BY_ONE])
    (file,) = tmp_path.glob("*.json")
    file.write_text("{")
    again = table_for(MODEL, TRAINING, "cpu", tmp_path, [ONE_BY_ONE])
    assert again.device == found.device
    assert read_calibrations(tmp_path).tables == (again,)


def order(tmp_path: Path, **given: object) -> subprocess.CompletedProcess[str]:
    asked = CalibrationOrder(str(tmp_path), ["nano-0.1M"], 16, 4, 64, compiled=False)
    command = [
        sys.executable,
        "-m",
        "proxy_models.planning.calibrate",
        json.dumps({**asdict(asked), **given}),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_process_measures_as_a_worker_trains_and_saves(tmp_path: Path) -> None:
    done = order(tmp_path)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    (table,) = read_calibrations(tmp_path).tables
    assert said[0] == {"device": asdict(table.device)}
    assert table.device.threads == 1
    assert [one["rate"] for one in said[1:]] == [asdict(rate) for rate in table.rates]
    assert {rate.backend for rate in table.rates} == set(BOTH)
    save(tmp_path, table)
    refused = order(tmp_path, device="cuda:99")
    assert refused.returncode == 1
    assert json.loads(refused.stdout.splitlines()[-1])["problem"]
