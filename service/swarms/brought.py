"""Runs that were sampled and trained elsewhere: read as ``mixwright fit`` reads them, and stored with their swarm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from exchange.columns import Reading
from exchange.directions import directions
from exchange.sheets import Sheet, sheet_of
from exchange.swarm import Swarm, Trained, read_swarm
from mixing.document import to_document
from mixing.errors import MixingError
from mixing.runs.sound import alike
from proxy_models.errors import CorpusError
from proxy_models.text.data_roots import open_data
from service.swarms.schemas import RunRequest, SwarmRequest, TablesRequest
from store import jobs
from store.documents import BroughtDocument
from store.files import resolve_files, store_problems
from store.problems import Invalid, invalid
from store.settings import Settings
from store.tables import Job, Revision, Run, database_now
from store.tables import Swarm as SwarmRow

MOST_BYTES = 2**28
"""Of a table or a file of results: a quarter of a gigabyte holds a hundred thousand runs."""
KEY = ""
"""The column of the run's id in a table made of a request: no domain and no metric is called so."""


@dataclass(frozen=True)
class BroughtRun:
    """A run as it was brought; ``weights`` sum to 1 within 1%, as they were given."""

    name: str
    weights: Mapping[str, float]
    metrics: Mapping[str, float]
    tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class BroughtSwarm:
    """Runs over the domains of a revision, what reading them noted, and how many parameters their model has."""

    runs: Sequence[BroughtRun]
    notes: tuple[str, ...] = ()
    parameters: int | None = None


def read_brought(settings: Settings, request: SwarmRequest, domains: Sequence[str]) -> BroughtSwarm:
    """The runs of a request over these domains. Raises Invalid naming the row and column at fault."""
    try:
        if request.tables is None:
            swarm = _given(request.runs, domains)
        else:
            swarm = _tabled(settings, request.tables).over(domains)
        parameters = swarm.one_of("parameters")
        if swarm.metrics:
            directions(swarm.metrics, swarm.runs, request.higher_is_better, request.lower_is_better)
    except MixingError as error:
        raise invalid(error, error.field if error.field in _FIELDS else _member(request)) from error
    if len(swarm.runs) > settings.max_runs:
        raise Invalid("too_many_runs", f"At most {settings.max_runs} runs.", _member(request))
    said = request.parameters
    if said is not None and parameters is not None and not alike(said / parameters):
        raise Invalid(
            "unlike_proxies",
            f"The table says {parameters:,} parameters, and the request {said:,}.",
            "parameters",
        )
    trained = [Trained(run.tokens, None, run.seed) for run in request.runs] or swarm.trained
    return BroughtSwarm(
        [
            BroughtRun(run.id, dict(run.mixture), dict(run.metrics), told.tokens, told.seed)
            for run, told in zip(swarm.runs, trained, strict=True)
        ],
        swarm.notes,
        said or parameters,
    )


_FIELDS = ("higher_is_better", "lower_is_better")


def _member(request: SwarmRequest) -> str:
    return "runs" if request.tables is None else "tables"


def _given(runs: Sequence[RunRequest], domains: Sequence[str]) -> Swarm:
    """Runs of a request, through the tables that they would have been."""
    weights = _sheet([run.id for run in runs], [run.weights for run in runs])
    metrics = _sheet([run.id for run in runs], [run.metrics for run in runs])
    reading = Reading(
        run_id=KEY,
        weights=tuple(name for name in weights.columns if name != KEY),
        metrics=tuple(name for name in metrics.columns if name != KEY),
        with_gaps=True,
    )
    return read_swarm(weights, metrics, reading).over(domains)


def _sheet(ids: Sequence[str], rows: Sequence[Mapping[str, float]]) -> Sheet:
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    return Sheet("runs", {KEY: list(ids), **columns}, range(len(ids)))


def _tabled(settings: Settings, tables: TablesRequest) -> Swarm:
    weights = table_at(settings, tables.weights, "tables.weights")
    metrics = None if tables.metrics is None else table_at(settings, tables.metrics, "tables.metrics")
    return read_swarm(weights, metrics, tables.reading)


def table_at(settings: Settings, path: str, field: str) -> Sheet:
    """The one table a path below a data root names. Raises Invalid naming the field, MixingError for its content."""
    files = resolve_files(path, settings.roots, field)
    if len(files) != 1:
        raise Invalid("not_one_file", f"{path!r} names {len(files)} files; a table is one.", field)
    return sheet_of(bytes_of(files[0], field), Path(str(files[0])))


def bytes_of(path: Any, field: str) -> bytes:
    """A file's content; raises Invalid for one that is too large or cannot be read."""
    with store_problems(field):
        try:
            with open_data(path) as stream:
                data = stream.read(MOST_BYTES + 1)
        except (OSError, CorpusError) as error:
            raise Invalid("unreadable_file", f"{path} cannot be read: {error}", field) from error
    if len(data) > MOST_BYTES:
        raise Invalid("too_large", f"{path} is larger than {MOST_BYTES:,} bytes.", field)
    return data


def store_swarm(
    session: Session, revision: Revision, request: SwarmRequest, brought: BroughtSwarm, user: str
) -> str:
    """Store the swarm and its runs; answers its id."""
    said = BroughtDocument(
        name=request.name,
        proxy_name=request.proxy_name,
        parameters=brought.parameters,
        tokenizer=request.tokenizer,
        higher_is_better=tuple(request.higher_is_better),
        lower_is_better=tuple(request.lower_is_better),
        notes=brought.notes,
    )
    swarm = SwarmRow(revision_id=revision.id, brought=to_document(said), user_name=user)
    session.add(swarm)
    session.flush()
    add_runs(session, swarm, 0, brought.runs)
    return swarm.id


def add_runs(
    session: Session, swarm: SwarmRow, start: int, brought: Sequence[BroughtRun]
) -> list[tuple[Run, Job]]:
    """Store runs that were brought, each with a job that nobody does: it has ended, or waits for results."""
    runs = [
        Run(
            swarm_id=swarm.id,
            name=run.name,
            position=position,
            tokens=run.tokens,
            seed=run.seed,
            weights=dict(run.weights),
            **({"result": {"final": dict(run.metrics)}} if run.metrics else {}),
        )
        for position, run in enumerate(brought, start)
    ]
    session.add_all(runs)
    session.flush()
    added = [
        (run, jobs.new_job(jobs.PROXY_RUN, run.id, swarm.id, run.position, swarm.user_name)) for run in runs
    ]
    for run, job in added:
        job.state = jobs.WAITING if run.result is None else jobs.SUCCEEDED
        if run.result is not None:
            job.finished_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
    session.add_all(job for _, job in added)
    session.flush()
    return added
