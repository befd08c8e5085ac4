"""What runs measured, read from the files of the programs that measure.

`samples/` has files those programs wrote (`write_samples.py`), and what their own readers say of them.
"""

import gzip
import json
import struct
from pathlib import Path

import pytest

from exchange.results import READERS, InvalidResults, may_be_results, of_a_kind, read_results
from exchange.results.tensorboard import masked_crc

SAMPLES = Path(__file__).parent / "samples"


def files_below(folder: Path) -> dict[str, bytes]:
    found = {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        path.removesuffix(".gz"): gzip.decompress(data) if path.endswith(".gz") else data
        for path, data in found.items()
    }


def test_events_are_what_tensorboard_itself_reads() -> None:
    """Simple values, tensors of floats and of doubles; the histogram beside them is no metric."""
    told = json.loads((SAMPLES / "tensorboard.json").read_text())
    found = read_results(files_below(SAMPLES / "run-tb"), ["run-tb"]).metrics
    assert found == {"run-tb": told}


def test_the_checksum_is_the_published_one() -> None:
    """CRC-32C of "123456789" is E3069283 (RFC 3720, B.4 has its relatives); TFRecord masks it."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_an_event_file_that_is_still_written_counts_up_to_there() -> None:
    ((path, data),) = files_below(SAMPLES / "run-tb").items()
    whole = read_results({path: data}, ["run-tb"]).metrics["run-tb"]
    assert read_results({path: data[:-7]}, ["run-tb"]).metrics["run-tb"].keys() <= whole.keys()
    with pytest.raises(InvalidResults, match="damaged"):
        read_results({path: data[:60] + b"\xff" + data[61:]}, ["run-tb"])
    with pytest.raises(InvalidResults, match="no event file"):
        read_results({path: struct.pack("<QI", 3, 0) + b"abc1234"}, ["run-tb"])


def test_folders_and_database_of_mlflow_are_what_mlflow_itself_reads() -> None:
    told = json.loads((SAMPLES / "mlflow.json").read_text())
    for folder in ("mlruns", "mlflow-database"):
        found = read_results(files_below(SAMPLES / folder), list(told))
        assert found.metrics == told, folder


def test_results_of_lm_eval_go_by_task_and_metric() -> None:
    document = {
        "results": {
            "arc_easy": {"alias": "arc_easy", "acc,none": 0.41, "acc_stderr,none": 0.01, "sample_len": 2376},
            "gsm8k": {"exact_match,strict-match": 0.02, "exact_match,flexible-extract": 0.05},
            "wikitext": {"bits_per_byte,none": 0.81, "bits_per_byte_stderr,none": "N/A"},
        },
        "higher_is_better": {"arc_easy": {"acc": True}},
    }
    data = json.dumps(document).encode()
    found = read_results({"out/r7/model/results_2025-01-01T00.json": data}, ["r7", "r8"]).metrics
    assert found == {
        "r7": {
            "arc_easy/acc": 0.41,
            "gsm8k/exact_match,strict-match": 0.02,
            "gsm8k/exact_match,flexible-extract": 0.05,
            "wikitext/bits_per_byte": 0.81,
        }
    }


def test_of_a_trainers_state_the_latest_step_counts() -> None:
    history = [
        {"loss": 3.1, "grad_norm": 1.0, "learning_rate": 1e-3, "step": 100, "epoch": 0.5},
        {"eval_loss": 2.9, "eval_runtime": 3.2, "eval_samples_per_second": 9.9, "step": 100},
        {"loss": 2.6, "step": 200},
        {"eval_loss": 2.5, "step": 200},
        {"train_runtime": 100.0, "total_flos": 1e15, "step": 200},
    ]
    data = json.dumps({"global_step": 200, "log_history": history}).encode()
    found = read_results({"r1/checkpoint-200/trainer_state.json": data}, ["r1"]).metrics
    assert found == {"r1": {"loss": 2.6, "eval_loss": 2.5}}
    earlier = json.dumps({"log_history": history[:2]}).encode()
    both = {"r1/checkpoint-200/trainer_state.json": data, "r1/checkpoint-900/trainer_state.json": earlier}
    assert read_results(both, ["r1"]).metrics == found, "by step, not by the files' order"


def test_olmes_and_plain_objects_are_read() -> None:
    lines = [
        {
            "task_name": "arc_easy::olmes",
            "metrics": {"primary_score": 0.5, "acc_raw": 0.4},
            "num_instances": 9,
        },
        {"task_name": "hellaswag::olmes", "metrics": {"primary_score": 0.3}},
    ]
    olmes = "\n".join(map(json.dumps, lines)).encode()
    plain = json.dumps({"eval": {"loss": 2.0}, "_step": 9, "note": "x"}).encode()
    found = read_results({"a/metrics-all.jsonl": olmes, "b/wandb-summary.json": plain}, ["a", "b"]).metrics
    assert found["a"]["arc_easy::olmes/primary_score"] == 0.5
    assert found["b"] == {"eval/loss": 2.0}


def test_a_trackers_table_names_its_runs() -> None:
    table = b'"Name","State","eval/loss","note"\n"r1","finished","2.5","x"\n"r2","finished","2.7","y"\n'
    found = read_results({"wandb_export.csv": table}, ["r1", "r2", "r3"])
    assert found.metrics == {"r1": {"eval/loss": 2.5}, "r2": {"eval/loss": 2.7}}
    strangers = read_results({"wandb_export.csv": table}, ["r1"])
    assert (strangers.metrics, strangers.left_out) == ({"r1": {"eval/loss": 2.5}}, ("run r2",))


def test_what_a_swarm_was_exported_with_is_no_result() -> None:
    files = {
        "out/ratios.csv": b"run,web\nr1,1.0\n",
        "out/realised.json": b"{}",
        "out/r1/mixture.json": b'{"web": 1.0}',
        "out/r1/results_1.json": b'{"results": {"a": {"acc,none": 0.5}}}',
    }
    found = of_a_kind({path: data for path, data in files.items() if may_be_results(Path(path))}, ["r1"])
    assert list(found) == ["out/r1/results_1.json"]


FAULTS = {
    "an offline log of W&B": ({"r1/run-1.wandb": b":W&B"}, "wandb sync"),
    "a folder of no run": (
        {"elsewhere/results_1.json": b'{"results": {"a": {"acc,none": 1.0}}}'},
        "called like",
    ),
    "no kind": ({"r1/notes.txt": b"hello"}, "no file of results"),
    "two values": (
        {
            "r1/results_1.json": b'{"results": {"a": {"acc,none": 0.5}}}',
            "r1/results_2.json": b'{"results": {"a": {"acc,none": 0.6}}}',
        },
        "0.5 already",
    ),
    "a loss that is no number": ({"r1/metrics.json": b'{"loss": NaN}'}, "say that it failed"),
    "a table of others": ({"x.csv": b"Name,loss\nr9,2.0\n"}, "no column names a run"),
    "no database": ({"mlflow.db": b"SQLite format 3\0" + bytes(100)}, "no database of MLflow"),
}


@pytest.mark.parametrize(("files", "said"), FAULTS.values(), ids=FAULTS)
def test_files_that_cannot_be_read_are_named(files: dict[str, bytes], said: str) -> None:
    with pytest.raises(InvalidResults, match=said):
        read_results(files, ["r1"])


def test_every_reader_says_what_it_reads() -> None:
    assert len({reader.name for reader in READERS}) == len(READERS)
    assert all(reader.title for reader in READERS)
