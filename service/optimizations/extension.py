"""More runs for an optimization that has an answer: what is asked for, what it costs, and its further rounds.

The old runs stay the evidence they are. The new ones are rounds like any other, chosen where they are expected to
change the decision most, and the mixture is solved again over all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.document import to_document
from mixing.parts import SAMPLERS
from service.domain_sets.repository import counted_text, require_usable
from service.http.limits import check_queue
from service.optimizations.checks import DECISIVE, stop_rule
from service.optimizations.progress import asked_swarm, own_cost, work_of
from service.optimizations.schemas import ExtendRequest
from service.optimizations.service import optimization_with_id
from service.optimizations.views import CostView, ExtensionView
from service.tokens import Principal
from service.training.device import WorkerDevice
from store import jobs
from store.documents import OptimizationDocument
from store.problems import Conflict, Invalid
from store.settings import Settings
from store.tables import PROPOSED, MixtureRow, Optimization, database_now

if TYPE_CHECKING:  # who asks for no extension need not load the mathematics
    from mixing.answer.regret import Regret


@dataclass(frozen=True)
class Extension:
    """What is to be added to an optimization.

    Attributes:
        row: the optimization.
        rounds: runs of each new round.
        sampler: that chooses them.
        stop_when: the rule from now on, as stored; None for none.
        cost: of the new runs; None where they are trained elsewhere, and where nobody could say.
        regret: of the answer there is; None where it was not cross-validated.
    """

    row: Optimization
    rounds: tuple[int, ...]
    sampler: str
    stop_when: object
    cost: CostView | None
    regret: "Regret | None"

    @property
    def runs(self) -> int:
        """All that may be trained."""
        return sum(self.rounds)

    @property
    def device_hours(self) -> float:
        """The estimate, 0 where nobody knows."""
        return 0.0 if self.cost is None else self.cost.device_hours or 0.0


def planned_extension(
    session: Session, optimization_id: str, request: ExtendRequest, settings: Settings, device: WorkerDevice
) -> Extension:
    """What a request comes to.

    Raises:
        NotFound, Conflict: no such optimization, or one without an answer.
        Invalid: nothing could be trained, more than may be, or a rule that is met already or never will be.
    """
    row = optimization_with_id(session, optimization_id)
    if row.state != jobs.SUCCEEDED:
        raise Conflict(
            "not_finished", f"Only an optimization with an answer is extended; this is {row.state}."
        )
    document = OptimizationDocument.of(row)
    sampler = sampler_of_more(document)
    work, text = work_of(session, row), counted_text(session, row.revision)
    one = own_cost(document.reuse, asked_swarm(row, text, document, 1), work, device)
    runs = request.runs if request.runs is not None else _affordable(request.device_hours or 0.0, one)
    regret = _regret(session, row)
    _check(request, document, runs, regret, settings)
    count = min(request.rounds, runs)
    return Extension(
        row,
        tuple(runs // count + (number < runs % count) for number in range(count)),
        sampler,
        None if request.stop_when is None else to_document(stop_rule(request.stop_when)),
        own_cost(document.reuse, asked_swarm(row, text, document, runs), work, device),
        regret,
    )


def sampler_of_more(document: OptimizationDocument) -> str:
    """Of the new rounds. Raises Invalid where there are no runs to be added to."""
    if document.recipe is None:
        raise Invalid(
            "nothing_is_trained", "The method trains no runs, so there is nothing to extend.", "runs"
        )
    if document.swarms:
        raise Invalid(
            "swarms_are_given",
            "The runs of given swarms are its evidence; bring more of them, and name all in a new optimization.",
            "runs",
        )
    if document.reuse is not None and document.reuse.plan.is_renormalised:
        raise Invalid("nothing_to_search", "Every ratio is kept, so no run could change the mixture.", "runs")
    part = SAMPLERS[document.recipe.sampler]
    if part.exact_per_domain is not None:
        raise Invalid(
            "rounds_are_fixed",
            f"The sampler {part.name!r} has a design of its own number of runs; ask for a new optimization.",
            "runs",
        )
    return part.name if part.learns else DECISIVE


def _affordable(hours: float, one: CostView | None) -> int:
    """The runs that a budget is enough for."""
    if one is None or not one.device_hours:
        raise Invalid(
            "cost_unknown", "Nobody knows how long a run takes; say how many there are to be.", "device_hours"
        )
    runs = int(hours / one.device_hours)
    if not runs:
        raise Invalid(
            "budget_too_small",
            f"A run takes about {one.device_hours:.3g} device-hours, more than the {hours:g} there are.",
            "device_hours",
        )
    return runs


def _regret(session: Session, row: Optimization) -> "Regret | None":
    from mixing.answer.regret import Regret

    query = select(MixtureRow.evidence["regret"]).where(
        MixtureRow.optimization_id == row.id, MixtureRow.kind == PROPOSED
    )
    found = session.scalar(query)
    return None if not found else Regret(**found)


def _check(
    request: ExtendRequest,
    document: OptimizationDocument,
    runs: int,
    regret: "Regret | None",
    settings: Settings,
) -> None:
    if document.runs + runs > settings.max_runs:
        raise Invalid(
            "too_many_runs",
            f"With the {document.runs} runs there are it would have {document.runs + runs}, and at most"
            f" {settings.max_runs} are allowed.",
            "runs" if request.runs is not None else "device_hours",
        )
    rule = stop_rule(request.stop_when)
    if rule is None or regret is None:
        return
    if (met := regret.meets(rule)) is not None:
        raise Invalid(
            "already_met",
            f"The answer is expected to give away {regret.expected:.4g}, which meets the rule ({met}) as it is:"
            " nothing would be trained.",
            "stop_when",
        )
    if not regret.can_meet(rule, regret.runs + runs):
        raise Invalid(
            "never_met",
            f"After {regret.runs} runs the answer is expected to give away {regret.expected:.4g}; with {runs} more it"
            f" is {regret.after(regret.runs + runs):.4g} at best, so the rule would never stop anything: ask for more"
            " runs, or leave it out.",
            "stop_when",
        )


def extend(session: Session, extension: Extension, settings: Settings, user: Principal) -> None:
    """Add the rounds; the workers take it from there. It counts as the user's from now on.

    Raises:
        Conflict: it was extended meanwhile.
        TooManyRequests: the user has as much as they may have.
    """
    row = session.get_one(Optimization, extension.row.id, with_for_update=True)
    if row.state != jobs.SUCCEEDED:
        raise Conflict(
            "not_finished", f"Only an optimization with an answer is extended; this is {row.state}."
        )
    check_queue(session, settings, user, extension.device_hours)
    require_usable(session, row.revision)
    row.settings = {
        **row.settings,
        **OptimizationDocument.of(row).extended(extension.rounds),
        "recipe": {**row.settings["recipe"], "sampler": extension.sampler},
        "stop_when": extension.stop_when,
    }
    row.user_name, row.device_hours = user.name, extension.device_hours
    row.state, row.finished_at = jobs.QUEUED, None
    row.updated_at = database_now()  # pyright: ignore[reportAttributeAccessIssue] - an SQL expression, set on flush


def extension_view(extension: Extension, document: OptimizationDocument) -> ExtensionView:
    """What a dry run answers."""
    regret, runs = extension.regret, extension.runs
    best = None if regret is None else regret.after(regret.runs + runs)
    return ExtensionView(
        optimization_id=extension.row.id,
        runs=runs,
        rounds=list(extension.rounds),
        sampler=extension.sampler,
        total_runs=document.runs + runs,
        expected_regret=None if regret is None else regret.expected,
        best_expected_regret=best,
        cost=extension.cost,
        sentences=list(_sentences(extension.rounds, regret, best, extension.cost)),
    )


def _sentences(
    rounds: Sequence[int], regret: "Regret | None", best: float | None, cost: CostView | None
) -> list[str]:
    rounds_said = "one round" if len(rounds) == 1 else f"{len(rounds)} rounds"
    said = [
        f"{sum(rounds)} more runs in {rounds_said}, each where it is expected to change the decision most."
    ]
    if cost is not None and cost.device_hours is not None:
        said.append(f"They take about {cost.device_hours:.3g} device-hours.")
    if regret is not None and best is not None:
        said.append(
            f"The answer there is may be expected to give away {regret.expected:.4g}; with them at best {best:.4g}."
        )
    return said
