"""Results of runs that were trained elsewhere, as they come: idempotent, and never overwritten unasked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from sqlalchemy import select
from sqlalchemy.orm import Session

from exchange.directions import directions
from exchange.results import REALISED as REPORT
from exchange.results import InvalidResults, drawn_of, read_results
from mixing.document import to_document
from mixing.errors import MixingError
from service.optimizations.given import patterns_of
from service.swarms.brought import add_runs, bytes_of, read_brought
from service.swarms.schemas import (
    ResultRequest,
    ResultsRequest,
    RunRequest,
    SwarmRequest,
    TakenView,
)
from store import jobs
from store.documents import BroughtDocument, Measurements
from store.files import resolve_files
from store.problems import Conflict, Invalid, NotFound, invalid
from store.settings import Settings
from store.swarms import GivenSwarm, given_swarms
from store.tables import Job, Run, Swarm, database_now

_NAMED = 8
REALISED = "realised_tokens"


@dataclass(frozen=True)
class ReadResults:
    """What was sent and what files have: results of runs by name, and what was left out of the files."""

    results: Sequence[ResultRequest]
    left_out: tuple[str, ...] = ()


def read_files(
    settings: Settings, request: ResultsRequest, names: Sequence[str], tasks: Sequence[str]
) -> ReadResults:
    """The results of a request with those of its files.

    Args:
        settings: the data roots.
        request: what was sent.
        names: of the swarm's runs, as folders may be called.
        tasks: that count; empty where all that is measured does.

    Raises:
        Invalid: a file that cannot be read, is of no kind that is known or of no run, or a run with two values.
    """
    found: dict[str, dict[str, float]] = {}
    left_out: list[str] = []
    drawn: dict[str, dict[str, int]] = {}
    for index, pattern in enumerate(request.files):
        place = f"files[{index}]"
        contents = {
            str(path): bytes_of(path, place) for path in resolve_files(pattern, settings.roots, place)
        }
        try:
            for path in [path for path in contents if PurePath(path).name == REPORT]:
                drawn |= drawn_of(contents[path], path)
            read = read_results(contents, names)
        except InvalidResults as error:
            raise invalid(error, place) from error
        for run, metrics in read.metrics.items():
            known = {name: value for name, value in metrics.items() if not tasks or name in tasks}
            left_out += [name for name in metrics if name not in known]
            mine = found.setdefault(run, {})
            _check_same(run, mine, known, place)
            mine.update(known)
        left_out += read.left_out
    if request.files and not any(found.values()):
        raise Invalid(
            "no_results",
            f"The files have nothing that is asked for ({', '.join(tasks[:_NAMED])}); they have"
            f" {', '.join(sorted(set(left_out))[:20]) or 'no metrics'}.",
            "files",
        )
    sent = {one.run for one in request.results}
    if both := sorted(sent & set(found)):
        raise Invalid("duplicate_run", f"Run {both[0]!r} is among the results and in the files.", "files")
    made = [
        ResultRequest(run=run, metrics=metrics, realised_tokens=drawn.get(run, {}))
        for run, metrics in found.items()
        if metrics
    ]
    return ReadResults([*request.results, *made], tuple(dict.fromkeys(sorted(left_out))))


def _check_same(run: str, known: Mapping[str, float], new: Mapping[str, float], place: str) -> None:
    for name, value in new.items():
        if known.get(name, value) != value:
            raise Invalid(
                "conflicting_results",
                f"The files say both {known[name]} and {value} for {name!r} of run {run!r}.",
                place,
                names=[run, name],
            )


def swarm_of(session: Session, swarm_id: str) -> GivenSwarm:
    """A swarm that takes results. Raises NotFound, and Conflict for one that is trained here."""
    (given,) = given_swarms(session, [swarm_id])
    if given.document is not None and not given.document.is_elsewhere:
        raise Conflict("trained_here", f"The runs of swarm {swarm_id} are trained here; it takes no results.")
    return given


@dataclass
class Taken:
    """What became of a request's results."""

    views: list[TakenView] = field(default_factory=list)
    unchanged: int = 0


def take_results(
    session: Session,
    settings: Settings,
    swarm_id: str,
    request: ResultsRequest,
    results: Sequence[ResultRequest],
) -> Taken:
    """Store them, all or none.

    Raises:
        Invalid: a run or metric nobody knows, a value that no metric of its kind has, or an unclear direction.
        Conflict: another value than an earlier one, and ``replace`` was not said.
    """
    locked = select(Swarm).where(Swarm.id == swarm_id).with_for_update()
    if session.scalars(locked).first() is None:
        raise NotFound("swarm", swarm_id)
    given = swarm_of(session, swarm_id)
    _say_directions(given, request)
    known = {name: (run, job) for run, job in given.runs for name in {run.id, run.name} - {None}}
    taken = Taken()
    new = [one for one in results if one.run not in known]
    for run, job in _added(session, settings, given, new):
        taken.views.append(_view(run, job, sorted(Measurements.of(run.result).final)))
    for result in results:
        if result.run not in known:
            continue
        run, job = known[result.run]
        _check_tasks(given, result)
        _check_said(run, result)
        if changed := _take(run, job, result, _realised(given, result), request.replace):
            _end(given, run, job)
            taken.views.append(_view(run, job, changed))
        elif result.failed is not None and job.state != jobs.FAILED:
            _fail(run, job, result.failed)
            taken.views.append(_view(run, job, []))
        else:
            taken.unchanged += 1
    session.flush()
    _check_directions(swarm_of(session, swarm_id))
    return taken


def _take(
    run: Run, job: Job, result: ResultRequest, drawn: Mapping[str, int] | None, is_replacing: bool
) -> list[str]:
    """Add what is new of a run's metrics, and the tokens that were drawn; answers their names."""
    before = Measurements.of(run.result).final
    changed = sorted(name for name, value in result.metrics.items() if before.get(name) != value)
    if not is_replacing and (other := [name for name in changed if name in before]):
        name = other[0]
        raise Conflict(
            "conflicting_results",
            f"Run {result.run!r} has {before[name]} for {name!r} already, and now {result.metrics[name]}; say replace"
            " if the new value is right.",
            "results",
            names=[result.run, name],
        )
    if drawn is not None and (known := Measurements.of(run.result).realised_tokens) != drawn:
        if known is not None and not is_replacing:
            raise Conflict(
                "conflicting_results",
                f"Run {result.run!r} has other realised tokens already; say replace if the new ones are right.",
                "results",
                names=[result.run],
            )
        changed = [*changed, REALISED]
    if changed:
        run.result = {
            **(run.result or {}),
            "final": {**before, **result.metrics},
            **({} if drawn is None else {"realised_tokens": dict(drawn)}),
        }
        job.failure_code = job.failure_detail = None
    return changed


def _check_said(run: Run, result: ResultRequest) -> None:
    """Raise Conflict for weights, tokens or a seed that are not those of the run: only results are added to one."""
    for name in ("weights", "tokens", "seed"):
        said, known = getattr(result, name), getattr(run, name)
        if said is not None and (dict(said) if name == "weights" else said) != known:
            raise Conflict(
                "conflicting_results",
                f"Run {result.run!r} has other {name} than are said now; what was trained otherwise is another run.",
                "results",
                names=[result.run, name],
            )


def _realised(given: GivenSwarm, result: ResultRequest) -> dict[str, int] | None:
    """Tokens of every domain that were drawn; None where nobody said. Raises Invalid for what is no domain."""
    if not result.realised_tokens:
        return None
    domains = [row.name for row in given.revision.domains]
    if stray := sorted(result.realised_tokens.keys() - set(domains)):
        raise Invalid(
            "unknown_domain",
            f"Run {result.run!r} has realised tokens of {stray[0]!r}, which is no domain.",
            "results",
            names=[result.run, *stray],
        )
    if not sum(result.realised_tokens.values()):
        raise Invalid("no_tokens", f"Run {result.run!r} has realised tokens of nothing.", "results")
    return {name: result.realised_tokens.get(name, 0) for name in domains}


def _end(given: GivenSwarm, run: Run, job: Job) -> None:
    """A run is over when all that the objective needs is measured."""
    measured = Measurements.of(run.result).final
    tasks = [] if given.document is None else given.document.tasks
    if all(task.name in measured for task in tasks if task.weight > 0):
        job.state = jobs.SUCCEEDED
        job.finished_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]


def _fail(run: Run, job: Job, reason: str) -> None:
    if run.result is not None and job.state == jobs.SUCCEEDED:
        raise Conflict(
            "conflicting_results", f"Run {run.name or run.id!r} has results; it has not failed.", "results"
        )
    job.state, job.failure_code, job.failure_detail = jobs.FAILED, "failed_elsewhere", reason
    job.finished_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]


def _view(run: Run, job: Job, metrics: list[str]) -> TakenView:
    return TakenView(run_id=run.id, name=run.name, metrics=metrics, state=job.state)


def _added(
    session: Session, settings: Settings, given: GivenSwarm, results: Sequence[ResultRequest]
) -> list[tuple[Run, Job]]:
    """Runs that were not there before, of a swarm that was brought."""
    if not results:
        return []
    if given.optimization is not None or any(one.weights is None for one in results):
        names = [one.run for one in results if given.optimization is not None or one.weights is None]
        raise Invalid(
            "unknown_run",
            f"Swarm {given.label} has no run {', '.join(map(repr, names[:_NAMED]))}"
            f"{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}; a new one of a swarm that was"
            " brought has weights.",
            "results",
            names=names,
        )
    if len(given.runs) + len(results) > settings.max_runs:
        raise Invalid("too_many_runs", f"At most {settings.max_runs} runs.", "results")
    asked = SwarmRequest.model_construct(
        runs=[
            RunRequest(
                id=one.run,
                weights=dict(one.weights or {}),
                metrics=one.metrics,
                tokens=one.tokens,
                seed=one.seed,
            )
            for one in results
        ],
        tables=None,
        # Directions are checked over all runs together.
        higher_is_better=[],
        lower_is_better=sorted({name for one in results for name in one.metrics}),
    )
    domains = [row.name for row in given.revision.domains]
    return add_runs(session, given.swarm, len(given.runs), read_brought(settings, asked, domains).runs)


def _check_tasks(given: GivenSwarm, result: ResultRequest) -> None:
    """Raise Invalid for a metric that a swarm which was sampled here does not ask for, or no accuracy."""
    if given.document is None:
        return
    tasks = {task.name: task for task in given.document.tasks}
    for name, value in result.metrics.items():
        if name not in tasks:
            raise Invalid(
                "unknown_task",
                f"Run {result.run!r}: {name!r} is none of the tasks: {', '.join(list(tasks)[:_NAMED])}.",
                "results",
                names=[result.run, name],
            )
        if tasks[name].metric == "accuracy" and not 0 <= value <= 1:
            raise Invalid(
                "no_share",
                f"Run {result.run!r} has {value} for {name!r}, and an accuracy is a share of 1"
                f"{'; divide percent by 100' if 1 < value <= 100 else ''}.",
                "results",
                names=[result.run, name],
            )


def _say_directions(given: GivenSwarm, request: ResultsRequest) -> None:
    """Add what the request says of directions to what was said."""
    if not request.higher_is_better and not request.lower_is_better:
        return
    if given.optimization is not None:
        raise Invalid(
            "directions_are_given",
            "The optimization's tasks say which way they are better.",
            "higher_is_better",
        )
    said: BroughtDocument = given.brought
    higher = dict.fromkeys([*said.higher_is_better, *request.higher_is_better])
    lower = dict.fromkeys([*said.lower_is_better, *request.lower_is_better])
    given.swarm.brought = to_document(
        replace(said, higher_is_better=tuple(higher), lower_is_better=tuple(lower))
    )


def _check_directions(given: GivenSwarm) -> None:
    if given.optimization is not None:
        return
    runs = given.evidence(given.metrics, None)
    try:
        directions(given.metrics, runs, *patterns_of(given.brought, given.metrics))
    except MixingError as error:
        raise invalid(error) from error
