"""What to do next with an answer: requests of the public API, ready to be sent."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from service.dashboard.decision import losers
from service.dashboard.evidence import Evidence
from service.dashboard.formatting import in_unit
from service.optimizations.extension import sampler_of_more
from store.documents import OptimizationDocument, TaskDocument
from store.problems import Invalid

ALLOWED_LOSS = 0.0
"""What the suggested guard rail lets a task lose: nothing."""
MOST_RAILS = 20
MORE = 0.25
"""Of the runs there are: how many more are suggested."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do: ``path`` is posted to with ``body``; ``why`` says what it takes and gives."""

    name: str
    title: str
    why: str
    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """An optimization that has an answer, as its requests call it."""

    optimization_id: str
    domain_set: str
    revision: int
    settings: OptimizationDocument
    swarm_id: str | None
    mixture_id: str
    natural_mixture_id: str | None
    is_in_use: bool = False
    is_done: bool = True


def next_steps(answered: Answered, evidence: Evidence) -> list[Step]:
    """The steps there are, the most useful first."""
    return [
        *_launches(answered),
        *_solved_again(answered, evidence),
        *_extended(answered, evidence),
        *_adopted(answered),
    ]


def _launches(answered: Answered) -> Iterator[Step]:
    for name, mixture in (("proposed", answered.mixture_id), ("natural", answered.natural_mixture_id)):
        why = "Say the size and the tokens; the same for both mixtures, so that they can be compared."
        body = None if answered.natural_mixture_id is None else launch_body(answered.settings, mixture)
        if body is not None:
            yield Step(f"launch-{name}", f"Launch the {name} mixture", why, "/v1/launches", body)


def launch_body(
    settings: OptimizationDocument, mixture_id: str | None, *, is_own: bool = True
) -> dict[str, Any] | None:
    """The request for a run as the proxies were; None where they have no named size.

    A mixture that is not the optimization's ``own`` is measured on its tasks by saying them.
    """
    proxy = settings.proxy
    if proxy is None or proxy.size is None:
        return None
    body = {
        "mixture_id": mixture_id,
        "size": proxy.size,
        "tokens": proxy.tokens,
        "sequence_length": proxy.sequence_length,
        "batch_rows": proxy.batch_rows,
    }
    return body if is_own else {**body, "tasks": [_task(task) for task in settings.tasks if task.path]}


_TASK = ("name", "path", "fields", "family", "weight", "metric", "normalization")


def _task(task: TaskDocument) -> dict[str, Any]:
    return {name: value for name in _TASK if (value := getattr(task, name)) is not None}


def _solved_again(answered: Answered, evidence: Evidence) -> Iterator[Step]:
    again = _question(answered)
    if again is None:
        return
    certain = [task for task in losers(evidence) if task.is_certain_loss][:MOST_RAILS]
    railed = {guard.task for guard in answered.settings.guard_rails}
    if named := [task.name for task in certain if task.name not in railed]:
        rails = [{"task": name, "worse_than_natural": ALLOWED_LOSS} for name in named]
        others = f" and {len(named) - 1} more" if len(named) > 1 else ""
        yield Step(
            "guard-rail",
            "Solve again with a guard rail",
            f"No mixture in which {named[0]}{others} would lose against natural. No runs; seconds.",
            "/v1/optimizations",
            {**again, "guard_rails": [*again.get("guard_rails", ()), *rails]},
        )
    yield Step(
        "solve-again",
        "Solve again with other caps or shares",
        "Change repetition_cap, kl_weight or shares below. No runs; seconds.",
        "/v1/optimizations",
        again,
    )


def _question(answered: Answered) -> dict[str, Any] | None:
    """The same question over the same runs; None where it has none, or limits that no request can repeat."""
    settings = answered.settings
    swarms = settings.swarms or ((answered.swarm_id,) if answered.swarm_id else ())
    if not swarms or settings.recipe is None:
        return None
    body: dict[str, Any] = {
        "domain_set": answered.domain_set,
        "revision": answered.revision,
        "method": settings.method,
        "regression": settings.recipe.regression,
        "granularity": settings.recipe.granularity,
        "solver": settings.recipe.solver,
        "swarms": list(swarms),
        "target_tokens": int(settings.target_tokens),
        "repetition_cap": settings.repetition_cap,
        "kl_weight": settings.kl_weight,
        "kl_unit": settings.kl_unit,
        "aggregate": settings.aggregate,
        "tasks": [
            {
                "name": task.name,
                "weight": task.weight,
                **({"family": task.family} if task.family else {}),
            }
            for task in settings.tasks
        ],
    }
    if settings.target is not None:
        body["target"] = {"parameters": int(settings.target.parameters)}
    if settings.shares:
        body["shares"] = [
            {name: value for name, value in asdict(share).items() if value is not None}
            for share in settings.shares
        ]
    if settings.guard_rails:
        body["guard_rails"] = [
            {name: value for name, value in asdict(guard).items() if value is not None}
            for guard in settings.guard_rails
        ]
    return body


def _extended(answered: Answered, evidence: Evidence) -> Iterator[Step]:
    if not answered.is_done:  # it was asked for more already
        return
    try:
        sampler_of_more(answered.settings)
    except Invalid:  # there are no runs that more could be added to
        return
    why = "Each is sampled where it may change the decision most; then the mixture is solved again over all."
    if evidence.regret is not None and evidence.objective is not None:
        away = in_unit(evidence.regret.expected, evidence.objective.unit or "")
        why = f"The answer is expected to give away {away} as it is. {why}"
    if answered.settings.proxy is None:
        why += " They wait for results from elsewhere."
    runs = max(1, round(MORE * answered.settings.runs))
    path = f"/v1/optimizations/{answered.optimization_id}:extend"
    yield Step("more-runs", "Train more runs", why, path, {"runs": runs, "rounds": 1})


def _adopted(answered: Answered) -> Iterator[Step]:
    if answered.is_in_use:
        return
    yield Step(
        "adopt",
        "Mark as in use",
        "Later answers for this domain set are compared with it. Say why, for who asks in a year.",
        f"/v1/domain-sets/{answered.domain_set}/adoptions",
        {"mixture_id": answered.mixture_id, "why": "..."},
    )
