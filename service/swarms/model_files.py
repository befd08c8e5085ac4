"""The trained model of a run as the files of a Hugging Face folder."""

from sqlalchemy.orm import Session

from proxy_models.errors import DataMissing
from proxy_models.exported_file import ExportedFile
from proxy_models.huggingface import exported_model
from service.database import jobs
from service.database.models import Launch, Optimization, Revision, Run, Swarm
from service.errors import Conflict
from service.settings import Settings
from service.swarms.service import run_with_id


def model_files(session: Session, settings: Settings, run_id: str) -> tuple[ExportedFile, ...]:
    """Reads the model's header only; the files are read when they are written or sent.

    Raises:
        NotFound: no such run.
        Conflict: it has not succeeded, or its files are gone.
    """
    run, job, _ = run_with_id(session, run_id)
    if job.state != jobs.SUCCEEDED:
        raise Conflict(
            "run_not_succeeded",
            f"Only a run that has succeeded has a model; this one is {job.state}.",
        )
    revision, context_length = _trained_on(session, run)
    place = settings.artifacts / "runs" / run.id / "model"
    try:
        return exported_model(place, revision.tokenizer_path or "", context_length)
    except DataMissing as error:
        raise Conflict(
            "model_missing", f"The run has succeeded, but its model cannot be read any more: {error}"
        ) from error


def _trained_on(session: Session, run: Run) -> tuple[Revision, int]:
    """The revision whose tokens the run read, and how many of them at once."""
    if run.launch_id is not None:
        launch = session.get_one(Launch, run.launch_id)
        return launch.mixture.revision, int(launch.settings["sequence_length"])
    swarm = session.get_one(Swarm, run.swarm_id)
    optimization = session.get_one(Optimization, swarm.optimization_id)
    return optimization.revision, int(optimization.settings["proxy"]["sequence_length"])
