"""The trained model of a run as the files of a Hugging Face folder."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from sqlalchemy.orm import Session

from proxy_models.errors import DataMissing
from proxy_models.export.exported_file import ExportedFile
from proxy_models.export.huggingface import exported_model
from proxy_models.stores.local_copies import Hold
from service.swarms.service import run_with_id
from store import jobs
from store.objects import store_problems
from store.problems import Conflict
from store.settings import Settings
from store.tables import Launch, Optimization, Revision, Run, Swarm


def model_files(session: Session, settings: Settings, run_id: str) -> tuple[ExportedFile, ...]:
    """Reads the model's header only; the files are read when they are written or sent.

    They are fetched where they are only in the artifact store, and stay here as long as the answer lives.

    Raises:
        NotFound: no such run.
        Conflict: it has not succeeded, or its files are gone.
        Unavailable: the artifact store does not answer.
    """
    run, job = run_with_id(session, run_id)
    if job.state != jobs.SUCCEEDED:
        raise Conflict(
            "run_not_succeeded",
            f"Only a run that has succeeded has a model; this one is {job.state}.",
        )
    revision, context_length = _trained_on(session, run)
    place = settings.artifacts / "runs" / run.id / "model"
    try:
        with store_problems():
            held, tokenizer = _fetched(settings, place, revision.tokenizer_path or "")
        files = exported_model(place, tokenizer, context_length)
        return tuple(replace(file, pieces=partial(_pieces, held, file.pieces)) for file in files)
    except DataMissing as error:
        raise Conflict(
            "model_missing", f"The run has succeeded, but its model cannot be read any more: {error}"
        ) from error


def _fetched(settings: Settings, place: Path, tokenizer: str) -> tuple[list[Hold], str]:
    store, held = settings.store, []
    if store is not None:
        published = [path for path in (place, store.local_path(tokenizer)) if path is not None]
        held = [hold for path in published if (hold := store.obtain(path)) is not None]
    return held, tokenizer if store is None else str(store.local_path(tokenizer) or tokenizer)


def _pieces(held: list[Hold], pieces: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """The pieces of a file; whoever has them has ``held``, so that nobody clears the file away before."""
    assert held is not None
    return pieces()


def _trained_on(session: Session, run: Run) -> tuple[Revision, int]:
    """The revision whose tokens the run read, and how many of them at once."""
    if run.launch_id is not None:
        launch = session.get_one(Launch, run.launch_id)
        return launch.mixture.revision, int(launch.settings["sequence_length"])
    swarm = session.get_one(Swarm, run.swarm_id)
    optimization = session.get_one(Optimization, swarm.optimization_id)
    return optimization.revision, int(optimization.settings["proxy"]["sequence_length"])
