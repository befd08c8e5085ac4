"""What if the mixture were another: weights in an address, and what the runs predict of them beside other mixtures.

An address says where one begins (``start``), what is typed (``w:DOMAIN``, in percent) and what stands beside it
(``b:MIXTURE``). What is typed stays, and the domains nothing is typed for share the rest as they do where one began:
so the weights keep their sum, and the address of a mixture of 512 domains is as long as what was changed in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.dashboard.actions import May, number_typed
from service.dashboard.charts import Scale
from service.dashboard.evidence import Predicted, TaskEvidence
from service.dashboard.next_steps import Step, launch_body
from service.dashboard.session import PageRoute
from service.dashboard.templating import page
from service.domain_sets import adoptions
from service.http.routes import ComputeDependency, DatabaseDependency, SettingsDependency, reads, slow
from service.mixtures.evaluation import (
    CandidateRequest,
    EvaluatedView,
    EvaluateRequest,
    evaluate_mixtures,
)
from service.mixtures.service import mixture_with_id
from service.optimizations.service import optimization_with_id
from service.processes.computation import Computation
from store.documents import OptimizationDocument
from store.engine import Database
from store.problems import Invalid, NotFound, Problem
from store.settings import Settings
from store.tables import MixtureRow

router = APIRouter(route_class=PageRoute, include_in_schema=False)
WEIGHT, BESIDE = "w:", "b:"
MOST_BESIDE = 3
MOST_CHOICES = 40
"""Mixtures that are offered, the newest of those made by hand."""
MOST_TASKS = 200
_ROUNDED = 2e-3
"""By how much weights that are all typed may miss one: two decimals of each percentage."""
OWN, NATURAL, IN_USE = "yours", "natural", "in-use"


@dataclass(frozen=True, slots=True)
class Choice:
    """A stored mixture that one can begin from or look at beside."""

    key: str
    title: str
    mixture_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the address asks for; ``typed`` as it stands there, by domain."""

    start: str
    typed: Mapping[str, str]
    beside: tuple[str, ...]

    @classmethod
    def of(cls, request: Request, start: str) -> "Asked":
        """From the query of a request."""
        query = request.query_params.items()
        typed = {name.removeprefix(WEIGHT): said.strip() for name, said in query if name.startswith(WEIGHT)}
        beside = (name.removeprefix(BESIDE) for name in request.query_params if name.startswith(BESIDE))
        return cls(
            start=start, typed={name: said for name, said in typed.items() if said}, beside=tuple(beside)
        )

    @property
    def link(self) -> str:
        """The query that shows the same."""
        typed = {f"{WEIGHT}{name}": said for name, said in self.typed.items()}
        return "?" + urlencode(
            {"start": self.start, **typed, **{f"{BESIDE}{key}": "on" for key in self.beside}}
        )


def shared(base: Mapping[str, float], typed: Mapping[str, str]) -> dict[str, float]:
    """Weights that sum to one: the typed percentages stay, the other domains share the rest as they do in ``base``.

    Where these have nothing in ``base`` they share it evenly. Raises Invalid naming the domain or saying the sum.
    """
    kept: dict[str, float] = {}
    for name, said in typed.items():
        if name not in base:
            raise Invalid("unknown_domain", f"There is no domain {name[:200]!r}.", name[:200])
        kept[name] = number_typed(name, said.removesuffix("%")) / 100
        if not 0 <= kept[name] <= 1:
            raise Invalid("bad_weight", f"{name}: {said[:40]} is not between 0 and 100 percent.", name)
    total, free = math.fsum(kept.values()), [name for name in base if name not in kept]
    if total > 1 + _ROUNDED:
        raise Invalid("bad_weights", f"What is typed makes {100 * total:.2f}%, over 100.")
    if not free and abs(total - 1) > _ROUNDED:
        said = f"What is typed makes {100 * total:.2f}%, not 100. Leave a domain empty: it takes the rest."
        raise Invalid("bad_weights", said)
    if not free or total > 1:
        return {name: kept.get(name, 0.0) / total for name in base}
    weight = math.fsum(base[name] for name in free)
    rest = 1 - total
    others = {name: rest * base[name] / weight if weight else rest / len(free) for name in free}
    return {name: kept[name] if name in kept else others[name] for name in base}


@dataclass(frozen=True, slots=True)
class Column:
    """A mixture of those side by side."""

    title: str
    view: EvaluatedView
    objective: Predicted
    tasks: Mapping[str, TaskEvidence]

    @classmethod
    def of(cls, title: str, view: EvaluatedView) -> "Column":
        """With its predictions as pages read them; the natural distribution gains nothing over itself."""
        if title == NATURAL:
            still = {"gain": 0.0, "gain_interval": None}
            tasks = [{**task, **still} for task in view.tasks]
            view = view.model_copy(update={"objective": {**view.objective, **still}, "tasks": tasks})
        tasks = [TaskEvidence.model_validate(task) for task in view.tasks]
        return cls(title, view, Predicted.model_validate(view.objective), {task.name: task for task in tasks})


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task, or the objective, by every column."""

    name: str
    is_watched: bool
    cells: tuple[Predicted, ...]
    scale: Scale


def task_rows(columns: Sequence[Column]) -> list[TaskRow]:
    """The objective, then the tasks by what the first column gains, the most first; a scale for each unit."""
    first = columns[0]
    tasks = sorted(first.tasks.values(), key=lambda task: (-task.gain, task.name))[:MOST_TASKS]
    rows = [("objective", False, tuple(column.objective for column in columns))]
    rows += [
        (task.name, task.weight <= 0, tuple(column.tasks[task.name] for column in columns)) for task in tasks
    ]
    reach: dict[str, list[float]] = {}
    for _, _, cells in rows:
        for cell in cells:
            reach.setdefault(cell.unit or "", [0.0]).extend((cell.gain, *(cell.gain_interval or ())))
    margins = {unit: 0.04 * (max(ends) - min(ends)) or 0.01 for unit, ends in reach.items()}
    scales = {
        unit: Scale(min(ends) - margins[unit], max(ends) + margins[unit]) for unit, ends in reach.items()
    }
    return [TaskRow(name, watched, cells, scales[cells[0].unit or ""]) for name, watched, cells in rows]


@dataclass(frozen=True, slots=True)
class DomainRow:
    """A domain of the form: ``base`` is its weight where one began, ``per`` its epochs at a weight of one."""

    name: str
    base: float
    typed: str
    weight: float
    per: float | None
    cap: float | None


@dataclass(frozen=True, slots=True)
class _Found:
    """What the store has of all that is asked."""

    optimization_id: str
    domain_set: str
    revision: int
    settings: OptimizationDocument
    choices: tuple[Choice, ...]
    base: Mapping[str, float]
    tokens: Mapping[str, int | None]


def _found(session: Session, optimization_id: str, asked: Asked) -> _Found:
    row = optimization_with_id(session, optimization_id)
    revision = row.revision
    choices = _choices(session, optimization_id, revision.id, revision.domain_set.name)
    keys = {choice.key: choice for choice in choices}
    if not choices:
        raise NotFound("mixture", f"of {optimization_id}, before it is solved")
    for key in (asked.start, *asked.beside):
        if key not in keys:
            raise NotFound("mixture", key[:64])
    if len(asked.beside) > MOST_BESIDE:
        raise Invalid("too_many", f"At most {MOST_BESIDE} mixtures stand beside one's own.", "beside")
    weights = mixture_with_id(session, keys[asked.start].mixture_id).weights
    return _Found(
        optimization_id,
        revision.domain_set.name,
        revision.number,
        OptimizationDocument.of(row),
        choices,
        {domain.name: float(weights.get(domain.name, 0.0)) for domain in revision.domains},
        {domain.name: domain.tokens for domain in revision.domains},
    )


def _choices(session: Session, optimization_id: str, revision_id: str, domain_set: str) -> tuple[Choice, ...]:
    """The optimization's own mixtures, the one in use, and those made by hand over the same revision."""
    rows = session.execute(
        select(MixtureRow.id, MixtureRow.kind, MixtureRow.name, MixtureRow.optimization_id)
        .where(
            MixtureRow.revision_id == revision_id,
            or_(MixtureRow.optimization_id == optimization_id, MixtureRow.kind == "custom"),
        )
        .order_by(MixtureRow.optimization_id.is_(None), MixtureRow.id.desc())
        .limit(MOST_CHOICES)
    ).all()
    own = [Choice(row.kind, row.kind, row.id) for row in rows if row.optimization_id == optimization_id]
    own.sort(key=lambda choice: choice.key != "proposed")
    adopted = adoptions.in_use(session, domain_set)
    if adopted and mixture_with_id(session, adopted.mixture_id).revision_id == revision_id:
        own.append(Choice(IN_USE, "in use", adopted.mixture_id))
    return (
        *own,
        *(
            Choice(row.id, row.name or row.id, row.id)
            for row in rows
            if row.optimization_id != optimization_id
        ),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What is shown of it; without ``columns`` the ``refusal`` says why nothing is predicted."""

    asked: Asked
    found: _Found
    weights: Mapping[str, float]
    columns: tuple[Column, ...] = ()
    notes: tuple[str, ...] = ()
    runs: int = 0
    refusal: str | None = None

    @property
    def is_stored(self) -> bool:
        """Whether nothing is typed, so that the mixture is the one that one began from."""
        return not self.asked.typed

    @property
    def start(self) -> Choice:
        """Where one began."""
        return next(choice for choice in self.found.choices if choice.key == self.asked.start)

    @property
    def rows(self) -> list[TaskRow]:
        """Of the predictions."""
        return task_rows(self.columns) if self.columns else []

    @property
    def domains(self) -> list[DomainRow]:
        """Of the form, the largest first."""
        target = self.found.settings.target_tokens
        known = {row["name"]: row for row in self.columns[0].view.domains} if self.columns else {}
        rows: list[DomainRow] = []
        for name, base in self.found.base.items():
            row, tokens = known.get(name), self.found.tokens[name]
            per = row["natural_epochs"] / row["natural"] if row and row["natural"] else None
            if per is None and tokens:
                per = target / tokens
            cap, typed = row["cap"] if row else None, self.asked.typed.get(name, "")
            rows.append(DomainRow(name, base, typed, self.weights[name], per, cap))
        return sorted(rows, key=lambda row: (-row.base, row.name))

    @property
    def launch(self) -> Step | None:
        """To train it; None before it is stored, and without proxies to train alike."""
        choice = self.start
        is_own = choice.key in ("proposed", "natural")
        body = launch_body(self.found.settings, choice.mixture_id, is_own=is_own) if self.is_stored else None
        why = "Say the size and the tokens."
        return None if body is None else Step("launch", f"Launch {choice.title}", why, "/v1/launches", body)


def _answer(
    database: Database, compute: Computation, settings: Settings, optimization_id: str, asked: Asked
) -> Answer:
    with database.read() as session:
        found = _found(session, optimization_id, asked)
    try:
        weights = shared(found.base, asked.typed)
    except Invalid as refused:
        return Answer(asked, found, found.base, refusal=refused.detail)
    keys = {choice.key: choice for choice in found.choices}
    beside = [keys[key] for key in asked.beside if asked.typed or key != asked.start]
    mixtures = [
        CandidateRequest(name="0", weights=weights),
        *(
            CandidateRequest(name=str(number), mixture_id=choice.mixture_id)
            for number, choice in enumerate(beside, 1)
        ),
    ]
    used = next((choice for choice in beside if choice.key == IN_USE), None)
    body = EvaluateRequest(
        optimization_id=optimization_id,
        mixtures=mixtures,
        against=used and CandidateRequest(mixture_id=used.mixture_id),
    )
    try:
        made = compute(evaluate_mixtures, settings, body)
    except Problem as refused:
        return Answer(asked, found, weights, refusal=refused.detail)
    titles = [OWN if asked.typed else keys[asked.start].title, *(choice.title for choice in beside)]
    columns = [Column.of(title, view) for title, view in zip(titles, made.mixtures, strict=True)]
    return Answer(asked, found, weights, tuple(columns), tuple(made.notes), made.runs_used)


Start = Annotated[str, Query(max_length=64)]


@router.get("/optimizations/{optimization_id}/what-if")
@slow
@reads(WEIGHT, BESIDE)
def what_if(
    optimization_id: str,
    request: Request,
    database: DatabaseDependency,
    settings: SettingsDependency,
    compute: ComputeDependency,
    may: May,
    start: Start = "proposed",
) -> Response:
    """The weights as a form, and what is predicted of them."""
    answer = _answer(database, compute, settings, optimization_id, Asked.of(request, start))
    return page("what_if.html", answer=answer, may=may, is_part=False)


@router.get("/optimizations/{optimization_id}/what-if/answer")
@slow
@reads(WEIGHT, BESIDE)
def what_if_answer(
    optimization_id: str,
    request: Request,
    database: DatabaseDependency,
    settings: SettingsDependency,
    compute: ComputeDependency,
    may: May,
    start: Start = "proposed",
) -> Response:
    """The part of the page that moves with the weights."""
    answer = _answer(database, compute, settings, optimization_id, Asked.of(request, start))
    return page("_what_if.html", answer=answer, may=may, is_part=True)
