"""Writes `samples/` with TensorBoard and MLflow themselves, and what their own readers say of the files.

Run in an environment of its own: ``pip install tensorboard mlflow-skinny sqlalchemy alembic``, then
``python tests/exchange/results/write_samples.py``.
"""

import gzip
import json
import os
import shutil
import sqlite3
import struct
import tempfile
from contextlib import closing
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
STEPS = (0, 100, 200)


def write_tensorboard() -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util import tensor_util

    folder = SAMPLES / "run-tb"
    shutil.rmtree(folder, ignore_errors=True)
    writer = EventFileWriter(str(folder), filename_suffix=".sample")

    def add(step: int, **value: object) -> None:
        made = summary_pb2.Summary(value=[summary_pb2.Summary.Value(**value)])
        writer.add_event(event_pb2.Event(wall_time=1.7e9 + step, step=step, summary=made))

    scalars = summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars"),
        data_class=summary_pb2.DATA_CLASS_SCALAR,
    )
    for step in STEPS:
        add(step, tag="eval/loss", simple_value=3.5 - step / 100)
        floats = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.25 - step / 1000])
        add(step, tag="eval/bpb", tensor=floats, metadata=scalars)
        content = struct.pack("<d", 0.25 + step / 1000)
        doubles = tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, tensor_content=content)
        add(step, tag="eval/acc", tensor=doubles, metadata=scalars)
    histogram = summary_pb2.HistogramProto(
        min=0, max=1, num=2, sum=1, sum_squares=1, bucket_limit=[1], bucket=[2]
    )
    add(200, tag="weights", histo=histogram)
    writer.close()
    (file,) = folder.iterdir()
    file.rename(folder / "events.out.tfevents.1700000000.sample")
    read = EventAccumulator(str(folder)).Reload()
    told = {tag: read.Scalars(tag)[-1].value for tag in read.Tags()["scalars"]}
    for tag in read.Tags()["tensors"]:
        told[tag] = float(tensor_util.make_ndarray(read.Tensors(tag)[-1].tensor_proto).ravel()[0])
    (SAMPLES / "tensorboard.json").write_text(json.dumps(told, indent=1) + "\n")


def write_mlflow() -> None:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # since 3.17 it has to be asked for
    import mlflow

    told: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as made:
        for name, uri in (
            ("mlruns", f"file://{made}/mlruns"),
            ("mlflow-database", f"sqlite:///{made}/mlflow.db"),
        ):
            client = mlflow.MlflowClient(uri)
            experiment = client.create_experiment("swarm", artifact_location=f"file://{made}/artifacts")
            for number in range(2):
                run = client.create_run(experiment, run_name=f"mixture-{number}")
                for step in STEPS:
                    client.log_metric(run.info.run_id, "eval/loss", 3 - number / 4 - step / 1000, step=step)
                client.log_param(run.info.run_id, "lr", "0.1")
                client.set_terminated(run.info.run_id)
                told[f"mixture-{number}"] = dict(client.get_run(run.info.run_id).data.metrics)
            target = SAMPLES / name
            shutil.rmtree(target, ignore_errors=True)
            if name == "mlruns":
                shutil.copytree(Path(made, "mlruns"), target)
                for file in target.rglob("meta.yaml"):
                    file.write_text(file.read_text().replace(made, "/made"))
            else:
                target.mkdir(parents=True)
                with closing(sqlite3.connect(Path(made, "mlflow.db"))) as database:
                    database.execute("PRAGMA page_size = 512")
                    database.execute("VACUUM")
                packed = gzip.compress(Path(made, "mlflow.db").read_bytes(), mtime=0)
                (target / "mlflow.db.gz").write_bytes(packed)
    (SAMPLES / "mlflow.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    write_tensorboard()
    write_mlflow()
