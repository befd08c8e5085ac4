"""Training models: a run of a swarm or of a launch, alone or as a wave of runs of one shape.

A worker describes the run and stores what was measured; its child trains it, and is asked before how best to.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mixing.document import Document
from proxy_models.errors import DataChanged, ProxyError
from proxy_models.families.start import read_start
from proxy_models.storage import write_json
from proxy_models.stores.current import current_store, using_store
from proxy_models.stores.object_path import file_identity, is_address
from proxy_models.training.run_spec import local_order
from store.documents import LaunchDocument, ModelDocument, SwarmDocument
from store.files import identity_hash
from store.launchers.base import BUILT_IN, Torchrun
from store.launchers.work import require_shards, run_order
from store.settings import Settings
from workers.claims.failures import JobError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from proxy_models.planning.calibration import Calibration, SwarmSize
    from proxy_models.training.distributed import Engine
    from proxy_models.training.run_record import Metric, RunResult
    from proxy_models.training.run_spec import RunSpec
    from store.tables import Job
    from workers.execution.child import Order

ALONE = "one-by-one"
FULL_RUN = "full_run"  # `store.jobs.FULL_RUN`: a child loads no tables

MEASURE_SECONDS = 300.0
"""A slot's share of a swarm that takes longer is worth the seconds it takes to measure how it is trained best."""
COMPILE_SECONDS = 3600.0
"""One that takes longer is worth finding out what the compiler can do, which takes minutes on a busy machine."""
USUAL_FLOPS = {"cpu": 3e10, "cuda": 2e13}
"""FLOPs per second taken for granted to decide that; nano-0.1M reached 5e10 on one core of an EPYC."""


def describe(session: "Session", job: "Job", settings: Settings) -> Document:
    """The specification ``proxy_models.training.run_spec.RunSpec`` reads: of a swarm's run, or of a launch's."""
    from store.jobs import PROXY_RUN
    from store.tables import Launch, Optimization, Run

    run = session.get_one(Run, job.subject)
    if job.kind == PROXY_RUN:
        optimization = session.get_one(Optimization, job.owner)
        revision, swarm = optimization.revision, SwarmDocument.of(optimization)
        training, tasks, shared = swarm.proxy_of(run.round), swarm.tasks, {}
    else:
        launch = session.get_one(Launch, job.owner)
        revision, training = launch.mixture.revision, LaunchDocument.of(launch)
        tasks, shared = training.tasks, _shared(training, settings)
    assert training is not None, "what has runs has a proxy"
    require_shards(revision)
    unchanged_start(training)
    return {**run_order(run, revision, training, tasks, settings), **settings.store_order, **shared}


def _shared(launch: LaunchDocument, settings: Settings) -> Document:
    """Of a launch with an engine that engine, and the device and the launcher of its processes, if it has several."""
    if launch.engine is None:
        return {}
    engine = {"engine": asdict(launch.engine)}
    if launch.launcher == BUILT_IN:
        return engine
    from workers.jobs.external_run import configured

    launcher = configured(launch.launcher, Torchrun, settings)
    return {**engine, "device": launcher.device, "torchrun": launcher.model_dump()}


def unchanged_start(model: ModelDocument) -> str | None:
    """What to start from; raises `DataChanged` where a folder is not what it was when asked for, `JobError` if gone.

    A published model is looked at by `local_order`, which fetches it.
    """
    if model.start is None or is_address(model.start):
        return model.start
    try:
        files = [file_identity(file) for file in read_start(Path(model.start)).files]
    except (ProxyError, OSError) as error:
        raise JobError("data_missing", f"the model to start from is gone: {error}") from error
    if identity_hash(files) != model.start_content:
        raise DataChanged(model.start)
    return model.start


def store(session: "Session", job: "Job", result: Document) -> None:
    """Store a run's measurements: the series as rows, the rest as one document."""
    from store.series import keep_metrics
    from store.tables import Run

    run = session.get_one(Run, job.subject)
    run.result = {name: value for name, value in result.items() if name != "metrics"}
    keep_metrics(session, run.id, result["metrics"])


def choose_wave(question: Document) -> Document:
    """The backend and the number of runs to train at once, for ``{"run", "runs", "sharing", "directory"}``.

    ``run`` is the specification of one of ``runs``, ``sharing`` the processes the device's memory is for. Looks into
    the table of this device in ``directory``, and measures what it lacks where that is worth it.
    """
    import torch

    from proxy_models.config import ModelConfig
    from proxy_models.errors import NotCalibrated, NotEnoughMemory
    from proxy_models.planning.calibration import SwarmSize, choose, table_of
    from proxy_models.torch_device import free_memory, this_device
    from proxy_models.training.run_spec import RunSpec

    alone: Document = {"backend": None, "members": 1}
    run_json = {**question["run"]}
    with using_store(run_json.pop("artifact_store", None)):
        # Its shards play no part in the answer: only what the shape is read from has to be here.
        run = RunSpec.from_dict(local_order({**run_json, "shards": {}, "tokenizer": None, "tasks": []}))
    if not isinstance(run.model, ModelConfig):
        return alone
    torch.set_num_threads(run.threads)
    swarm = SwarmSize(run.model, run.training, question["runs"])
    directory = Path(question["directory"])
    here = this_device(run.device)
    table = table_of(directory, here)
    if table is None or not table.near(swarm.model, swarm.training):
        table = _measured(swarm, run.device, directory)
    if table is None:
        return alone
    try:
        choice = choose(swarm, table, free_memory(run.device) // question["sharing"], here)
    except (NotCalibrated, NotEnoughMemory):
        return alone  # training will say what is missing
    rate = choice.rate
    return alone if rate.backend == ALONE else {"backend": rate.backend, "members": rate.members}


def _measured(swarm: "SwarmSize", device: str, directory: Path) -> "Calibration | None":
    """The device's table with this shape in it; None where the swarm is not worth measuring."""
    from proxy_models.backends import available
    from proxy_models.planning.calibrate import table_for

    kind = device.partition(":")[0]
    flops = swarm.tokens * swarm.model.flops_per_token(swarm.training.sequence_length)
    seconds = flops / USUAL_FLOPS.get(kind, USUAL_FLOPS["cuda"])
    if seconds < MEASURE_SECONDS:
        return None
    names = available(device, compiled=seconds >= COMPILE_SECONDS)
    return table_for(swarm.model, swarm.training, device, directory, names)


def train_runs(specs: list[Document], backend: str | None, order: "Order") -> None:
    """Train and evaluate the runs, each from its last checkpoint; tell ``order`` what became of every one.

    Without a ``backend`` models are trained one at a time. A wave that does not fit into memory is trained as several
    that do. Raises what concerns all runs alike.
    """
    from proxy_models.backends import ONE_BY_ONE
    from proxy_models.errors import NotEnoughMemory
    from proxy_models.training.run_spec import RunSpec

    (kept, *_) = [spec.pop("artifact_store", None) for spec in specs]
    (engine, *_) = [spec.pop("engine", None) for spec in specs]
    (torchrun, *_) = [spec.pop("torchrun", None) for spec in specs]
    with using_store(kept):
        if torchrun is not None:
            _train_by_torchrun(
                local_order(specs[0]), {"engine": engine, "artifact_store": kept}, torchrun, order
            )
            return
        runs = [RunSpec.from_dict(local_order(spec)) for spec in specs]
        members = list(range(len(runs)))
        while members:
            size = len(members)
            try:
                _train(runs, members, backend or ONE_BY_ONE, order, engine)
            except NotEnoughMemory as error:
                # Decided before the first step, so nothing was done yet. One model at a time needs the least.
                size = error.largest
                if size < 1:
                    raise
                _train(runs, members[:size], backend if backend and size > 1 else ONE_BY_ONE, order)
            members = members[size:]


def _train_by_torchrun(run: Document, about: Document, torchrun: Document, order: "Order") -> None:
    """Have ``torchrun`` start `proxy_models.training.full_run`, pass on how far it is, and read what came of it."""
    from proxy_models.text.data_roots import readable
    from proxy_models.training.run_files import FAILURE, ORDER, Followed
    from proxy_models.training.run_record import RunRecord
    from proxy_models.training.run_spec import RunSpec
    from workers.jobs.external_run import ended_badly, run_program

    spec = RunSpec.from_dict(run)
    directory, followed = spec.directory, Followed(spec.directory)
    (directory / FAILURE).unlink(missing_ok=True)
    write_json(directory / ORDER, {"run": run, **about, "reading": readable()})

    def leave() -> bool:
        if (progress := followed.progress()) is not None:
            order.progress(0, progress)
        if metrics := followed.metrics():
            order.measured(0, metrics)
        return order.cancelled(0) or order.stopping()

    launcher = Torchrun.model_validate(torchrun)
    program = {
        "arguments": launcher.trainer(directory / ORDER, ("--standalone",)),
        "directory": str(directory),
        "stop_seconds": launcher.stop_seconds,
        "environment": [name for name in os.environ if not name.startswith("MIXWRIGHT_")],
    }
    status, tail = run_program(program, leave)
    order.measured(0, followed.metrics())
    if (finished := RunRecord(spec).finished()) is not None:
        order.succeeded(0, stored_result(finished, spec))
    elif (directory / FAILURE).exists():
        raise JobError(**json.loads((directory / FAILURE).read_bytes()))
    else:
        raise JobError("torchrun_failed", ended_badly("torchrun", status, tail), retryable=True)


def _train(
    runs: list["RunSpec"], members: list[int], backend: str, order: "Order", engine: Document | None = None
) -> None:
    from proxy_models.errors import ProxyError
    from proxy_models.training.wave import WaveOptions, train_wave

    def ended(number: int, outcome: "RunResult | ProxyError") -> None:
        if isinstance(outcome, ProxyError):
            order.failed(members[number], outcome)
        else:
            order.succeeded(members[number], stored_result(outcome, runs[members[number]]))

    def measured(number: int, metrics: "Sequence[Metric]") -> None:
        order.measured(members[number], [asdict(metric) for metric in metrics])

    options = WaveOptions(
        backend,
        progress=lambda number, progress: order.progress(members[number], progress.to_dict()),
        cancelled=lambda number: order.cancelled(members[number]),
        stopping=order.stopping,
        ended=ended,
        engine=_engine(engine),
    )
    if order.kind == FULL_RUN:
        options = replace(options, measured=measured)
    train_wave([runs[member] for member in members], options)


def _engine(settings: Document | None) -> "Engine | None":
    """Of a run that this process trains alone."""
    if settings is None:
        return None
    from proxy_models.training.full_run import engine_of
    from proxy_models.training.processes import ALONE as BY_ITSELF

    return engine_of({**settings, "sharding": "ddp"}, BY_ITSELF)  # there is nobody to share it with


def stored_result(result: "RunResult", run: "RunSpec") -> Document:
    """The result as it is stored: with a store, the model's place is its address there, whichever machine trained."""
    kept = current_store()
    if kept is None:
        return result.to_dict()
    return {**result.to_dict(), "model_path": kept.address_of(run.directory / "model")}
