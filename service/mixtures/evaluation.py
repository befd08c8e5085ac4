"""``POST /v1/mixtures:evaluate``: what an optimization's runs predict of mixtures somebody has in mind."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator
from sqlalchemy.orm import Session

from mixing.errors import MixingError
from service.http.schemas import RequestModel, Weights
from service.mixtures.kept_laws import judge_file, keep_judge, kept_judge
from service.mixtures.service import mixture_with_id
from service.optimizations.service import mixtures_of, optimization_with_id
from store.engine import Database, database_for
from store.problems import Conflict, Invalid, invalid
from store.question import JobQuestion, version_of
from store.settings import Settings

if TYPE_CHECKING:  # only named here
    from mixing.answer.whatif import Judge


class CandidateRequest(RequestModel):
    """A mixture to be judged: weights of one's own over all domains, or a stored mixture."""

    name: str | None = Field(
        default=None, min_length=1, max_length=200, description="What the answer calls it."
    )
    weights: dict[str, float] | None = Field(default=None, max_length=20_000)
    mixture_id: str | None = Field(default=None, max_length=64)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.weights is None) == (self.mixture_id is None):
            raise ValueError("give weights or a mixture_id")
        return self


class EvaluateRequest(RequestModel):
    """Mixtures to be judged by the finished runs of an optimization, whether it is over or not."""

    optimization_id: str = Field(max_length=64)
    mixtures: Annotated[list[CandidateRequest], Field(min_length=1, max_length=20)]
    against: CandidateRequest | None = Field(
        default=None, description="Another mixture, such as the one in use, to say the gain `over`."
    )


class EvaluatedView(BaseModel):
    """What is predicted of one mixture. `objective`, `tasks`, `worse` and `domains` are as a mixture's evidence."""

    name: str
    weights: Weights
    objective: dict[str, Any]
    tasks: list[dict[str, Any]]
    worse: list[dict[str, Any]]
    domains: list[dict[str, Any]]
    violated: list[dict[str, Any]] = Field(
        description="Caps, shares and guard rails of the optimization that it breaks, each in a sentence."
    )
    nearest_run_distance: float = Field(
        description="L1, as `run_distances`: far from all runs little is known."
    )
    run_distances: dict[str, float]
    confidence: float
    over: dict[str, Any] | None = Field(
        description="Gain and interval of `objective` and `tasks` over the mixture it is held `against`."
    )


class EvaluationView(BaseModel):
    """The mixtures in the order of the request, by one regression of so many runs."""

    optimization_id: str
    regression: str
    runs_used: int
    mixtures: list[EvaluatedView]
    notes: list[str]


def evaluate_mixtures(settings: Settings, request: EvaluateRequest) -> EvaluationView:
    """Judge the mixtures by the optimization's regression, fitted to its finished runs once: a computation.

    Raises a Problem: NotFound, Conflict where nothing was trained, Invalid for a mixture that is not over the domains
    and for runs no regression can be fitted to.
    """
    try:
        with database_for(settings.resolved_database_url) as database:
            with database.read() as session:
                weights = _weights(session, request)
                against = request.against and _given(session, request.against)
            made = judge_of(database, settings, request.optimization_id).evaluate(weights, against)
    except MixingError as error:
        raise invalid(error) from error
    mixtures = [{"name": name, **document} for name, document in made["mixtures"].items()]
    return EvaluationView.model_validate(
        {**made, "optimization_id": request.optimization_id, "mixtures": mixtures}
    )


def evaluation_document(settings: Settings, request: EvaluateRequest) -> bytes:
    """JSON of the same."""
    return evaluate_mixtures(settings, request).model_dump_json().encode()


def gain_in_use(settings: Settings, optimization_id: str, used_id: str) -> dict[str, Any] | None:
    """What the proposed mixture gains over the one in use, its choice by the runs allowed for.

    None where that is itself, is over other domains, or nobody has asked what if yet, so that a law would be fitted.
    """
    with database_for(settings.resolved_database_url) as database, database.read() as session:
        own = mixtures_of(session, optimization_id).get("proposed")
        used = mixture_with_id(session, used_id)
        proposed = None if own in (None, used_id) else mixture_with_id(session, str(own))
        if proposed is None or proposed.revision_id != used.revision_id:
            return None
        judge = kept_judge(judge_file(settings, version_of(session, optimization_id)))
        weights, against = proposed.weights, used.weights
        optimism = (proposed.evidence or {}).get("optimism") or 0.0
    if judge is None:
        return None
    over: dict[str, Any] = judge.evaluate({"proposed": weights}, against)["mixtures"]["proposed"]["over"][
        "objective"
    ]
    bounds = over["gain_interval"]
    return {**over, "gain_interval": bounds and [end - optimism for end in bounds]}


def judge_of(database: Database, settings: Settings, optimization_id: str) -> "Judge":
    """What judges by the optimization's regression: the one that is kept, or fitted to its finished runs and kept.

    Raises a Problem: NotFound, Conflict where nothing was trained. Raises MixingError where nothing can be fitted.
    """
    with database.read() as session:
        file = judge_file(settings, version_of(session, optimization_id))
    return kept_judge(file) or _fitted(database, optimization_id, file)


def _fitted(database: Database, optimization_id: str, file: Path) -> "Judge":
    from mixing.answer.whatif import Judge

    with database.read() as session:
        asked = JobQuestion.of(session, optimization_with_id(session, optimization_id))
    question = asked.question()
    if question.recipe is None:
        raise Conflict(
            "no_runs", f"The method {question.method!r} trains no runs: there is nothing to predict by."
        )
    judge = Judge.of(question, asked.evidence())
    keep_judge(file, judge)
    return judge


def _weights(session: Session, request: EvaluateRequest) -> dict[str, Mapping[str, float]]:
    """By what the answer calls each; raises Invalid for two of one name."""
    weights: dict[str, Mapping[str, float]] = {}
    for number, given in enumerate(request.mixtures):
        name = given.name or given.mixture_id or f"mixture {number + 1}"
        if name in weights:
            raise Invalid("duplicate_name", f"Two mixtures are called {name!r}.", f"mixtures[{number}].name")
        weights[name] = _given(session, given)
    return weights


def _given(session: Session, given: CandidateRequest) -> Mapping[str, float]:
    if given.mixture_id is not None:
        return mixture_with_id(session, given.mixture_id).weights
    return given.weights or {}
