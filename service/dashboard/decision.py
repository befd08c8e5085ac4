"""What to do with a mixture, in words, from its evidence and what was measured: pure, and never greener than it is.

The verdict is ``good`` where nothing known speaks against using the mixture: the planned run was reached by runs of
other sizes or by a measured launch, its gain is above zero by the whole interval, and no task is certain to lose.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.dashboard.evidence import Evidence, ObjectiveEvidence, Predicted, TargetEvidence, TaskEvidence
from service.dashboard.formatting import UNKNOWN, percent, quantity, signed
from service.launches.comparison import Comparison

NAMED = 5
"""Tasks a list of the first screen names; the others are counted."""
MOST_PLACES = 6
ONE_SIDED = 0.8
"""A mixture of which one domain takes more than this is said to be nearly that domain."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A sentence, and the code of the warning behind it where there is one."""

    words: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do in two or three words, why, and whether that is ``good``, ``open`` or ``bad`` news."""

    words: str
    tone: str
    reasons: tuple[Reason, ...]


def places_for(error: float | None) -> int:
    """Decimals of a number that may be off by ``error``: one digit of the error, two where that begins with 1."""
    if error is None or not math.isfinite(error) or error <= 0:
        return 4
    power = math.floor(math.log10(error))
    leading = error / 10**power
    return min(MOST_PLACES, max(0, -power + (leading < 1.95)))


def half_width(bounds: Sequence[float] | None) -> float | None:
    """Half of an interval's length; None without one."""
    return None if bounds is None else (bounds[1] - bounds[0]) / 2


def gain_words(gain: float | None, bounds: Sequence[float] | None, unit: str | None = None) -> str:
    """A gain with as many digits as its interval allows, and its unit: ``+0.041 BPB``."""
    if gain is None:
        return UNKNOWN
    return f"{signed(gain, places_for(half_width(bounds)))} {unit or ''}".rstrip()


def between_words(bounds: Sequence[float] | None) -> str:
    """The ends of a gain's interval, likewise: ``+0.022 to +0.061``."""
    if bounds is None:
        return UNKNOWN
    places = places_for(half_width(bounds))
    return f"{signed(bounds[0], places)} to {signed(bounds[1], places)}"


def losers(evidence: Evidence) -> list[TaskEvidence]:
    """The tasks that get worse, in the objective or not: the certain ones first, then by how much."""
    worse = [task for task in evidence.tasks if _moves(task) and task.gain < 0]
    return sorted(worse, key=lambda task: (not task.is_certain_loss, task.gain, task.name))


def winners(evidence: Evidence) -> list[TaskEvidence]:
    """The tasks that get better, the certain ones first, then by how much."""
    better = [task for task in evidence.tasks if _moves(task) and task.gain > 0]
    return sorted(better, key=lambda task: (not task.is_certain_gain, -task.gain, task.name))


def _moves(task: TaskEvidence) -> bool:
    """Whether it is predicted otherwise at all, as it is shown."""
    return any(digit in "123456789" for digit in gain_words(task.gain, task.gain_interval))


def decide(evidence: Evidence, measured: Comparison | None = None) -> Decision:
    """What to do with the proposed mixture."""
    objective = evidence.objective
    if objective is None:
        said = "No run was trained for it, so nothing is predicted of it."
        return Decision("Nothing to decide by", "open", (Reason(said),))
    beside = tuple(_beside(evidence, measured))
    if measured is None:
        verdict = _predicted(evidence, objective, not beside)
    else:
        verdict = _measured(objective, measured, not beside)
    return Decision(verdict.words, verdict.tone, (*verdict.reasons, *beside))


_WITH_LOSSES = "Adopt if you accept what gets worse"


def _measured(objective: ObjectiveEvidence, measured: Comparison, clear: bool) -> Decision:
    """By the launches of the proposed and the natural mixture."""
    gain = measured.objective
    where = "the planned run" if measured.is_target else "a larger model"
    much = gain_words(gain.measured, gain.interval, objective.unit)
    said = f"Measured on {where}: {much} over the natural distribution."
    if gain.measured <= 0:
        return Decision("Keep the natural distribution", "bad", (Reason(said),))
    lost = [task for task in measured.tasks if task.measured < 0]
    if not lost:
        return Decision("Adopt" if clear else _WITH_LOSSES, "good" if clear else "open", (Reason(said),))
    worst = min(lost, key=lambda task: task.measured)
    cost = (
        f"{_several(len(lost))} measured worse, most {worst.name} by"
        f" {gain_words(-worst.measured, worst.interval, worst.unit).lstrip('+')}."
    )
    return Decision(_WITH_LOSSES, "open", (Reason(said), Reason(cost)))


def _predicted(evidence: Evidence, objective: ObjectiveEvidence, clear: bool) -> Decision:
    bounds = objective.gain_interval
    if bounds is None:
        said = "No run could be held out, so nobody knows how sure the gain is. Train more runs."
        return Decision("Not yet", "open", (Reason(said, "not_cross_validated"),))
    if bounds[1] < 0:
        said = f"Even the best end of the interval is worse than natural: {between_words(bounds)} {objective.unit}."
        return Decision("Keep the natural distribution", "bad", (Reason(said, "gain_negative"),))
    if bounds[0] <= 0:
        said = (
            f"These runs cannot tell it from the natural distribution: the gain lies between"
            f" {' and '.join(between_words(bounds).split(' to '))}. Train more runs, or longer ones."
        )
        return Decision("Not yet", "open", (Reason(said, "gain_uncertain"),))
    doubts = tuple(_doubts(evidence))
    if doubts:
        return Decision("Not yet", "open", doubts)
    return _of_the_planned_run(evidence, evidence.at_target, clear)


_DOUBTS = {
    "low_rank_correlation": "The regression orders runs it has not seen badly. Train more runs, or longer ones.",
    "not_converged": "A law was still improving when its iterations ended. Solve again with another regression.",
}


def _doubts(evidence: Evidence) -> Iterator[Reason]:
    """What makes a gain above zero no gain to act on."""
    for code, said in _DOUBTS.items():
        if evidence.warned(code) is not None:
            yield Reason(said, code)


def _of_the_planned_run(evidence: Evidence, target: TargetEvidence | None, clear: bool) -> Decision:
    if target is None:
        said = (
            "The gain is a proxy's, and nobody said what the planned run is. Launch the proposed and the natural"
            " mixture at a size between, or solve with a target."
        )
        return Decision("Check with a launch", "open", (Reason(said),))
    run = f"{quantity(target.parameters)} parameters on {quantity(target.tokens)} tokens"
    certain = target.objective.interval[0] > 0
    if target.transfer != "measured":
        said = (
            f"All runs have one size, and the planned run ({run}) another: what a proxy gains may be worth more or"
            " less there. Train anchors of another size, or launch both mixtures."
        )
        words = "Check with a launch" if certain else "Not yet: the evidence is of one size"
        return Decision(words, "open", (Reason(said),))
    ends = " and ".join(between_words(target.objective.interval).split(" to "))
    said = f"The planned run ({run}) is predicted to gain between {ends}."
    if not certain:
        return Decision("Check with a launch", "open", (Reason(said),))
    reasons = [Reason(said)]
    if (warned := evidence.warned("weak_transfer")) is not None:
        reasons.append(Reason(warned, "weak_transfer"))
        clear = False
    return Decision("Adopt" if clear else "Check with a launch", "good" if clear else "open", tuple(reasons))


def _beside(evidence: Evidence, measured: Comparison | None) -> Iterator[Reason]:
    """What speaks against it whatever the objective gains, and was not measured to be otherwise."""
    found = set() if measured is None else {task.name for task in measured.tasks}
    certain = [task for task in evidence.tasks if task.is_certain_loss and task.name not in found]
    if certain:
        worst = min(certain, key=lambda task: task.gain)
        yield Reason(
            f"{_several(len(certain))} certain to get worse, most {worst.name} by {_loss(worst)}. A guard rail bounds"
            " what a task may lose.",
            "certain_losses",
        )
    if measured is None and evidence.warned("beyond_the_runs") is not None:
        yield Reason(
            "It lies further out than any run, so the prediction extrapolates. Train runs near it, or launch it.",
            "beyond_the_runs",
        )
    largest = max(evidence.domains, key=lambda domain: domain.weight, default=None)
    if largest is not None and largest.weight > max(ONE_SIDED, largest.natural + 0.2):
        yield Reason(
            f"It is nearly all {largest.name} ({percent(largest.weight)}, natural {percent(largest.natural)}). A cap"
            " or a share holds that back.",
            "one_domain",
        )


def _loss(task: Predicted) -> str:
    return gain_words(-task.gain, task.gain_interval, task.unit).lstrip("+")


def _several(number: int) -> str:
    return "One task is" if number == 1 else f"{number} tasks are"
