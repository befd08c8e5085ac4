"""What the columns of a table of runs are: weights, metrics, or neither.

Nothing is guessed that could be wrong in silence: what no rule below decides is asked for by name.

- Two tables (Olmix, RegMix): every column of the first but the run's id and its labels is a weight, every such column
  of the second a metric. They are joined by id, never by position.
- One table (exports of experiment trackers): weights are the columns with one prefix whose rows sum to 1, or those
  named; metrics are the columns named, or those that have a path such as ``eval/code/bpb``.
- A table with the weights of several phases (``phase_0_code``) holds one mixture a phase: one of them is chosen, or
  all are averaged by the phases' shares of the tokens.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from exchange.sheets import InvalidTable, Sheet, listed, matches, number_of
from mixing.domains import MAXIMUM_NAME_LENGTH
from mixing.runs.sound import RENORMALIZED

IDS = ("run_id", "run", "id", "index", "name", "")
"""Columns a run's id is looked for in, the first one that is there and tells the runs apart."""
TRAINED = ("tokens", "parameters", "seed")
"""Columns of what a run trained, its model's size and its seed, where nobody names others: no weights, no metrics."""
_LABELS = frozenset({*IDS, "Unnamed: 0", "run_name", "status", "state", "group", "url", "created_at"})
_PHASE = re.compile(r"phase_(\d+)_(.+)")


@dataclass(frozen=True)
class Reading:
    """How a table is to be read; what is empty is found by the rules of the module.

    Attributes:
        run_id: the column of the run's id.
        weights: patterns of the columns that are weights, in one table; the text before the first ``*`` of a pattern
            is no part of a domain's name.
        metrics: patterns of the columns that are metrics.
        ignored: patterns of columns that are neither.
        run_tokens: the column of how many tokens a run trained; "tokens" where there is one.
        run_parameters: of how many parameters its model has; "parameters" where there is one.
        run_seed: of its seed; "seed" where there is one.
        keep: `{column: value}`; rows that have another are left out and counted.
        phase: which phase's weights count.
        phase_shares: the phases' shares of the tokens, in order; their weights are averaged by these.
        without_faulty: leave out runs that have no partner or a cell that cannot be read, and name them.
        with_gaps: fit a task on the runs that measured it; an empty cell is no fault then.
    """

    run_id: str | None = None
    weights: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    run_tokens: str | None = None
    run_parameters: str | None = None
    run_seed: str | None = None
    keep: Mapping[str, str] = field(default_factory=dict)
    phase: int | None = None
    phase_shares: tuple[float, ...] = ()
    without_faulty: bool = False
    with_gaps: bool = False

    def trained(self, *sheets: Sheet) -> dict[str, str]:
        """`{what of `TRAINED`: its column}`, as far as one of the tables has it and it is not ignored.

        Raises:
            InvalidTable: a column that was named and is in none of them.
        """
        found = {}
        for what in TRAINED:
            named = getattr(self, f"run_{what}")
            column = named or what
            if any(column in sheet.columns for sheet in sheets):
                if named or not self.ignores(column):
                    found[what] = column
            elif named:
                sheets[0].matching([named])
        return found

    def ignores(self, column: str) -> bool:
        """Whether a column was said to be neither weight nor metric."""
        return any(matches(column, each) for each in self.ignored)


def others(sheet: Sheet, reading: Reading, key: str) -> list[str]:
    """Every column that is neither the id nor a label nor ignored, nor tells what was trained."""
    told = {key, *_LABELS, *TRAINED, *(getattr(reading, f"run_{what}") for what in TRAINED)}
    return [name for name in sheet.columns if name not in told and not reading.ignores(name)]


def weight_columns(sheet: Sheet, reading: Reading, key: str) -> list[str]:
    """The columns of one table that are weights: those asked for, or those of one prefix whose rows sum to 1."""
    if reading.weights:
        return sheet.matching(reading.weights)
    candidates = [name for name in others(sheet, reading, key) if not name.endswith("_epochs")]
    if phased := [name for name in candidates if _PHASE.fullmatch(name)]:
        return phased
    groups: dict[str, list[str]] = {}
    for name in candidates:
        if parted := re.match(r"[^_/.:]+[_/.:]+", name):
            groups.setdefault(parted[0], []).append(name)
    mixtures = [names for names in groups.values() if len(names) > 1 and _are_mixtures(sheet, names)]
    if len(mixtures) != 1:
        found = "none" if not mixtures else " and ".join(f"{names[0]!r}, ..." for names in mixtures)
        raise InvalidTable(
            f"which columns of {sheet.source} are weights? Of the columns that share a prefix, those whose rows sum"
            f" to 1 would be: {found}. Name them, as in 'train_*'",
            field="weights",
        )
    return mixtures[0]


def _are_mixtures(sheet: Sheet, names: Sequence[str]) -> bool:
    """Whether most rows of the columns are non-negative and sum to 1."""
    good = 0
    for row in range(len(sheet)):
        values = [number_of(sheet.columns[name][row]) for name in names]
        known = [value for value in values if value is not None and value >= 0]
        good += len(known) == len(values) and abs(math.fsum(known) - 1) <= RENORMALIZED
    return 2 * good > len(sheet)


def metric_columns(sheet: Sheet, reading: Reading, taken: set[str]) -> list[str]:
    """The columns of one table that are metrics: those asked for, or those named by a path."""
    if reading.metrics:
        return [name for name in sheet.matching(reading.metrics) if name not in taken]
    rest = [
        name
        for name in others(sheet, reading, "")
        if name not in taken
        and not _PHASE.fullmatch(name)
        and not name.endswith("_epochs")
        and sheet.is_numeric(name)
    ]
    if unclear := [name for name in rest if "/" not in name]:
        raise InvalidTable(
            f"is {listed(unclear)} of {sheet.source} a metric? Name the metrics, as in 'eval/*', or what to ignore",
            field="metrics",
            names=unclear,
        )
    if not rest:
        raise InvalidTable(f"{sheet.source} has no column that is a metric", field="metrics")
    return rest


def phases_of(
    sheet: Sheet, columns: Sequence[str], reading: Reading, notes: list[str]
) -> list[dict[str, str]]:
    """`{domain as the table has it: its column}` of every phase that counts; one where there are none."""
    found = [(_PHASE.fullmatch(name), name) for name in columns]
    if not all(phase for phase, _ in found):
        prefixes = {pattern.partition("*")[0] for pattern in reading.weights if "*" in pattern}
        if all(name.startswith("train_") for name in columns):
            prefixes.add("train_")
        return [{_stripped(name, prefixes): name for name in columns}]
    phases: dict[int, dict[str, str]] = {}
    for phase, name in found:
        if phase is not None:
            phases.setdefault(int(phase[1]), {})[phase[2]] = name
    numbers = sorted(phases)
    if reading.phase is not None:
        if reading.phase not in phases:
            raise InvalidTable(f"{sheet.source} has phases {numbers}, not {reading.phase}", field="phase")
        return [phases[reading.phase]]
    every = list(dict.fromkeys(name for number in numbers for name in phases[number]))
    if len(numbers) > 1 and not reading.phase_shares:
        raise InvalidTable(
            f"{sheet.source} has the weights of {len(numbers)} phases; say which one counts, or the shares of the"
            " tokens by which they are averaged",
            field="phase",
        )
    if len(numbers) == 1:
        return [phases[numbers[0]]]
    if len(reading.phase_shares) != len(numbers) or abs(math.fsum(reading.phase_shares) - 1) > RENORMALIZED:
        raise InvalidTable(
            f"{len(numbers)} phases need as many shares that sum to 1, not {list(reading.phase_shares)}",
            field="phase_shares",
        )
    notes.append(
        f"The weights of {len(numbers)} phases were averaged by their shares of the tokens; that a domain came early"
        " or late is not seen by the law."
    )
    return [{name: phases[number].get(name, "") for name in every} for number in numbers]


def _stripped(name: str, prefixes: Collection[str]) -> str:
    """A domain's column without what all of them, or all of its pattern, begin with."""
    longest = max(
        (prefix for prefix in prefixes if name.startswith(prefix) and name != prefix), key=len, default=""
    )
    return name[len(longest) :]


def domain_names(source: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns as names of domains: a slash opens a group, what a name cannot have is an underscore.

    Raises:
        InvalidTable: two columns that would have one name, or none at all.
    """
    if not columns:
        raise InvalidTable(f"{source} has no column of weights", field="weights")
    names = []
    for column in columns:
        parts = [
            re.sub(r"[^\w.+&@-]|^[^\w]", "_", part) for part in re.split(r"[:/]", column.strip()) if part
        ]
        names.append(
            ":".join([*parts[:2], "_".join(parts[2:])] if len(parts) > 3 else parts)[:MAXIMUM_NAME_LENGTH]
        )
    # A leaf that is a group too, as `web` beside `web/news`, keeps its text under a name of its own.
    groups = {":".join(name.split(":")[:depth]) for name in names for depth in range(1, name.count(":") + 1)}
    names = [f"{name}:other" if name in groups else name for name in names]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        same = [column for column, name in zip(columns, names, strict=True) if name == twice[0]]
        raise InvalidTable(
            f"{source}: {listed(same)} would all be the domain {twice[0]!r}", field="weights", names=same
        )
    return tuple(names)
