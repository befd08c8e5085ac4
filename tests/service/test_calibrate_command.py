"""``mixwright calibrate``, with the real measuring process."""

from pathlib import Path

from click.testing import CliRunner

from proxy_models.planning.calibration import read_calibrations
from service.cli.main import main

SMALL = ["--vocabulary-size", "64", "--sequence-length", "16", "--batch-rows", "2", "--no-compiled"]


def test_it_measures_prints_saves_and_says_what_it_would_choose(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["calibrate", "--size", "nano-0.1M", "--data", str(tmp_path), *SMALL])
    assert done.exit_code == 0, done.output
    (table,) = read_calibrations(tmp_path / "calibrations").tables
    assert {rate.backend for rate in table.rates} == {"one-by-one", "stacked"}
    for rate in table.rates:
        assert f"{rate.tokens_per_second:,.0f}" in done.output
    assert "For 64 runs" in done.output
    (file,) = (tmp_path / "calibrations").glob("*.json")
    assert str(file) in done.output


def test_what_cannot_be_measured_is_said_in_a_sentence(tmp_path: Path) -> None:
    unknown = CliRunner().invoke(main, ["calibrate", "--size", "huge", "--data", str(tmp_path)])
    assert unknown.exit_code == 1
    assert "nano-0.1M" in unknown.output
    no_gpu = CliRunner().invoke(main, ["calibrate", "--device", "cuda:99", "--data", str(tmp_path), *SMALL])
    assert no_gpu.exit_code == 1
    assert "Error: " in no_gpu.output
    assert "Traceback" not in no_gpu.output
    assert read_calibrations(tmp_path / "calibrations").tables == ()
