"""The mixture by source and the gains by task, as tables with a picture in each row, drawn to one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixing.domains import HELD_OUT_PREFIX
from service.dashboard.charts import Scale
from service.dashboard.decision import half_width, places_for
from service.dashboard.evidence import DomainEvidence, Evidence, Predicted, TaskEvidence
from service.dashboard.formatting import model_name, objective_unit, quantity
from service.launches.comparison import Comparison, Gain

UNCHANGED = 5e-5
"""Of a weight: less is not shown, for percentages have two decimals."""
MOST_UNFOLDED = 100
"""Domains that are shown one by one at first."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """A domain, or a source's sum: its weights, with the mixture in use where there is one."""

    name: str
    natural: float
    proposed: float
    used: float | None
    epochs: float | None
    cap: float | None
    binding: bool
    spread: float | None
    tokens: float

    @property
    def change(self) -> float:
        """Against the mixture in use, or the natural distribution where there is none."""
        return self.proposed - (self.natural if self.used is None else self.used)

    @property
    def is_changed(self) -> bool:
        """Whether that can be seen."""
        return abs(self.change) >= UNCHANGED


@dataclass(frozen=True, slots=True)
class Source:
    """What its domains weigh together, and each; a source that is one domain has no sum to show."""

    total: Weighed
    domains: tuple[Weighed, ...]


@dataclass(frozen=True, slots=True)
class MixtureTable:
    """Sources and their domains, the largest proposed weight first."""

    sources: tuple[Source, ...]
    scale: Scale
    has_used: bool
    domains: int

    @property
    def is_long(self) -> bool:
        """Whether sources are shown folded at first."""
        return self.domains > MOST_UNFOLDED


def mixture_table(evidence: Evidence, used: Mapping[str, float] | None = None) -> MixtureTable:
    """All domains by source: what comes before the first colon of a name."""
    spreads = evidence.weight_spread or {}
    grouped: dict[str, list[Weighed]] = {}
    for domain in evidence.domains:
        row = _weighed(domain, spreads.get(domain.name), used)
        grouped.setdefault(domain.name.partition(":")[0], []).append(row)
    sources = [Source(_sum(name, rows), tuple(sorted(rows, key=_order))) for name, rows in grouped.items()]
    totals = [source.total for source in sources]
    highest = max((max(row.natural, row.proposed, row.used or 0.0) for row in totals), default=1.0)
    return MixtureTable(
        tuple(sorted(sources, key=lambda source: _order(source.total))),
        Scale(0.0, highest or 1.0),
        used is not None,
        len(evidence.domains),
    )


def _order(row: Weighed) -> tuple[float, str]:
    return -row.proposed, row.name


def _weighed(domain: DomainEvidence, spread: float | None, used: Mapping[str, float] | None) -> Weighed:
    return Weighed(
        name=domain.name,
        natural=domain.natural,
        proposed=domain.weight,
        used=None if used is None else float(used.get(domain.name, 0.0)),
        epochs=domain.epochs,
        cap=domain.cap,
        binding=domain.binding,
        spread=spread,
        tokens=domain.tokens,
    )


def _sum(name: str, rows: Sequence[Weighed]) -> Weighed:
    used = [row.used for row in rows if row.used is not None]
    return Weighed(
        name=name,
        natural=sum(row.natural for row in rows),
        proposed=sum(row.proposed for row in rows),
        used=sum(used) if used else None,
        epochs=None,
        cap=None,
        binding=any(row.binding for row in rows),
        spread=None,
        tokens=sum(row.tokens for row in rows),
    )


@dataclass(frozen=True, slots=True)
class GainRow:
    """A task's predicted gain with its interval, and the measured one where a launch has it."""

    name: str
    predicted: Predicted
    weight: float | None
    measured: float | None

    @property
    def places(self) -> int:
        """Decimals that its interval allows."""
        return places_for(half_width(self.predicted.gain_interval))

    @property
    def side(self) -> str:
        """``better`` or ``worse`` where the interval says so."""
        if self.predicted.is_certain_loss:
            return "worse"
        return "better" if self.predicted.is_certain_gain else ""


@dataclass(frozen=True, slots=True)
class GainGroup:
    """Rows of one unit to one scale, sorted by gain: the best first, the losers last."""

    unit: str
    rows: tuple[GainRow, ...]
    scale: Scale

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self.rows)


def gain_groups(evidence: Evidence, measured: Comparison | None = None) -> list[GainGroup]:
    """Every task, in the objective or not, by unit; the objective's own unit first, with the objective on top."""
    objective = evidence.objective
    if objective is None:
        return []
    found = {} if measured is None else {gain.name: gain for gain in measured.tasks}
    units: dict[str, list[GainRow]] = {objective.unit or "": []}
    for task in evidence.tasks:
        units.setdefault(task.unit or "", []).append(_row(task, found.get(task.name)))
    whole = GainRow("objective", objective, None, measured.objective.measured if measured else None)
    return [
        _group(unit, rows, [whole] if unit == (objective.unit or "") else [])
        for unit, rows in units.items()
        if rows or unit == (objective.unit or "")
    ]


def _row(task: TaskEvidence, found: Gain | None) -> GainRow:
    return GainRow(task.name, task, task.weight, None if found is None else found.measured)


def _group(unit: str, rows: Sequence[GainRow], first: Sequence[GainRow]) -> GainGroup:
    ordered = (*first, *sorted(rows, key=lambda row: (-row.predicted.gain, row.name)))
    values = [0.0]
    for row in ordered:
        values += [row.predicted.gain, *(row.predicted.gain_interval or ())]
        values += [] if row.measured is None else [row.measured]
    margin = 0.04 * (max(values) - min(values)) or 0.01
    return GainGroup(unit, ordered, Scale(min(values) - margin, max(values) + margin))


@dataclass(frozen=True, slots=True)
class LaunchGroup:
    """Launches that may be compared: of one objective, model and number of tokens, which ``words`` say."""

    words: str
    unit: str
    launches: tuple[Mapping[str, Any], ...]


def launch_groups(launches: Sequence[Mapping[str, Any]]) -> list[LaunchGroup]:
    """Launches by what was trained and measured, in the order in which each kind comes first."""
    grouped: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for launch in launches:
        settings = launch["settings"]
        tasks = tuple(
            sorted((task["name"], task["weight"], task.get("metric")) for task in settings["tasks"])
        )
        slices = (
            ()
            if tasks
            else tuple(sorted(name for name in launch["metrics"] if name.startswith(HELD_OUT_PREFIX)))
        )
        key = (tasks, slices, settings.get("aggregate"), model_name(settings), _tokens(launch))
        grouped.setdefault(key, []).append(launch)
    return [
        LaunchGroup(_alike(rows[0]), objective_unit(rows[0]["settings"]), tuple(rows))
        for rows in grouped.values()
    ]


def _tokens(launch: Mapping[str, Any]) -> int:
    """That were asked for; a program may have said only what it trained."""
    return launch["settings"].get("tokens") or launch["tokens"] or 0


def _alike(launch: Mapping[str, Any]) -> str:
    settings = launch["settings"]
    return f"{objective_words(settings)}; {model_name(settings)} on {quantity(_tokens(launch))} tokens"


def objective_words(settings: Mapping[str, Any]) -> str:
    """What is minimised, by the names of its tasks, the first few of them where they are many."""
    names = [task["name"] for task in settings["tasks"] if task["weight"] > 0]
    others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    of = f"{', '.join(names[:NAMED])}{others}" if names else "held-out text of the domains"
    return f"worst family of {of}" if settings.get("aggregate") == "worst_family" else of


NAMED = 3
"""Tasks an objective is called by; the others are counted."""
