"""Which columns are weights and which are metrics, and the runs of both, joined by their ids.

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
from mixing.runs.evidence import RunEvidence
from mixing.runs.sound import RENORMALIZED

IDS = ("run_id", "run", "id", "index", "name", "")
"""Columns a run's id is looked for in, the first one that is there and tells the runs apart."""
_LABELS = frozenset({*IDS, "Unnamed: 0", "run_name", "status", "state", "seed", "group", "url", "created_at"})
_PHASE = re.compile(r"phase_(\d+)_(.+)")
_PERCENT = 100.0


@dataclass(frozen=True)
class Reading:
    """How a table is to be read; what is empty is found by the rules of the module.

    Attributes:
        run_id: the column of the run's id.
        weights: patterns of the columns that are weights, in one table; the text before the first ``*`` of a pattern
            is no part of a domain's name.
        metrics: patterns of the columns that are metrics.
        ignored: patterns of columns that are neither.
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
    keep: Mapping[str, str] = field(default_factory=dict)
    phase: int | None = None
    phase_shares: tuple[float, ...] = ()
    without_faulty: bool = False
    with_gaps: bool = False


@dataclass(frozen=True)
class Swarm:
    """Runs of one swarm.

    Attributes:
        domains: names as Mixwright has them, in the table's order.
        labels: `{domain: its name as the table has it}`, without what all columns begin with.
        columns: `{domain: its column}`; of several phases the first one's.
        metrics: names of what was measured.
        runs: their weights and metrics; a metric that a run lacks is not in it.
        notes: what was done on the way, in plain words.
    """

    domains: tuple[str, ...]
    labels: Mapping[str, str]
    columns: Mapping[str, str]
    metrics: tuple[str, ...]
    runs: tuple[RunEvidence, ...]
    notes: tuple[str, ...]


def read_swarm(weights: Sheet, metrics: Sheet | None, reading: Reading) -> Swarm:
    """The runs of two tables, or of one.

    Raises:
        InvalidTable: a column, row or cell that cannot be read, by its name; runs of one table only; weights that do
            not sum to 1; roles that cannot be told.
    """
    notes: list[str] = []
    weights = _kept(weights, reading, notes)
    if metrics is None:
        key = _key(reading, weights)
        columns = _weight_columns(weights, reading, key)
        measured = _metric_columns(weights, reading, {key, *columns})
        pairs = [(row, row) for row in range(len(weights))]
        metrics = weights
    else:
        metrics = _kept(metrics, reading, notes, required=False)
        key = _key(reading, weights, metrics)
        columns = weights.matching(reading.weights) if reading.weights else _others(weights, reading, key)
        measured = metrics.matching(reading.metrics) if reading.metrics else _others(metrics, reading, key)
        pairs = _joined(weights, metrics, key, reading, notes)
    phases = _phases(weights, columns, reading, notes)
    names = _domain_names(weights.source, list(phases[0]))
    mixer = _Mixer(weights, phases, reading)
    runs, faulty, gaps = [], [], Counter()
    for row, other in pairs:
        name = _id(weights, row, key)
        try:
            mixture = dict(zip(names, mixer.weights(row), strict=True))
            values = _values(metrics, other, measured, reading, gaps)
        except InvalidTable as fault:
            faulty.append((name, str(fault)))
        else:
            runs.append(RunEvidence(name, mixture, values))
    if faulty:
        notes.append(_faults(faulty, len(pairs), reading))
    if gaps:
        missing = ", ".join(f"{task} in {count}" for task, count in gaps.most_common(5))
        notes.append(f"Of {len(runs)} runs some lack a metric, which is fitted on the others: {missing}.")
    return Swarm(
        names,
        dict(zip(names, phases[0], strict=True)),
        dict(zip(names, phases[0].values(), strict=True)),
        tuple(measured),
        tuple(runs),
        tuple(notes),
    )


def _faults(faulty: Sequence[tuple[str, str]], runs: int, reading: Reading) -> str:
    """The note on the runs that cannot be read, or the refusal where they are not to be left out."""
    first = "; ".join(f"run {name}: {why}" for name, why in faulty[:5])
    more = f"; and {len(faulty) - 5} more" if len(faulty) > 5 else ""
    if reading.without_faulty:
        return f"{len(faulty)} of {runs} runs were left out: {first}{more}."
    raise InvalidTable(
        f"{len(faulty)} of {runs} runs cannot be read: {first}{more}", names=[name for name, _ in faulty]
    )


def _kept(sheet: Sheet, reading: Reading, notes: list[str], required: bool = True) -> Sheet:
    """The rows that have what `keep` asks for."""
    wanted = {column: value for column, value in reading.keep.items() if required or column in sheet.columns}
    if not wanted:
        return sheet
    sheet.matching(list(wanted))
    kept = [
        row
        for row in range(len(sheet))
        if all(str(sheet.columns[column][row]).strip() == value for column, value in wanted.items())
    ]
    asked = ", ".join(f"{column}={value}" for column, value in wanted.items())
    if not kept:
        column = next(iter(wanted))
        there = listed(sorted({str(cell) for cell in sheet.columns[column]}))
        raise InvalidTable(f"{sheet.source} has no row with {asked}; {column} is {there}", field=sheet.source)
    if len(kept) < len(sheet):
        notes.append(f"{len(sheet) - len(kept)} of {len(sheet)} rows of {sheet.source} are not {asked}.")
    return sheet.rows(kept)


def _key(reading: Reading, *sheets: Sheet) -> str:
    """The column of the run's id, in every sheet."""
    if reading.run_id is not None:
        for sheet in sheets:
            sheet.matching([reading.run_id])
        candidates = [reading.run_id]
    else:
        candidates = [name for name in IDS if all(name in sheet.columns for sheet in sheets)]
    if not candidates:
        raise InvalidTable(
            f"no column of {' and '.join(sheet.source for sheet in sheets)} is a run's id"
            f" ({', '.join(filter(None, IDS))}); name it",
            field="run_id",
        )
    for name in candidates:
        if all(_twice(sheet, name) is None for sheet in sheets):
            return name
    sheet = next(sheet for sheet in sheets if _twice(sheet, candidates[0]) is not None)
    twice = _twice(sheet, candidates[0])
    raise InvalidTable(
        f"{sheet.source} has two rows of {candidates[0]} {twice}; name the column that tells runs apart",
        field="run_id",
        names=[str(twice)],
    )


def _twice(sheet: Sheet, column: str) -> str | None:
    counts = Counter(_id(sheet, row, column) for row in range(len(sheet)))
    return next((name for name, count in counts.items() if count > 1), None)


def _id(sheet: Sheet, row: int, column: str) -> str:
    """A run's id; 7, "7" and 7.0, as which one program or another writes it, are one."""
    cell = sheet.columns[column][row]
    value = number_of(cell)
    if value is not None and value == int(value if math.isfinite(value) else 0):
        return str(int(value))
    return str(cell).strip()


def _others(sheet: Sheet, reading: Reading, key: str) -> list[str]:
    """Every column that is neither the id nor a label nor ignored."""
    return [
        name
        for name in sheet.columns
        if name != key and name not in _LABELS and not any(matches(name, each) for each in reading.ignored)
    ]


def _joined(
    weights: Sheet, metrics: Sheet, key: str, reading: Reading, notes: list[str]
) -> list[tuple[int, int]]:
    """Rows of both of one run."""
    rows = {_id(metrics, row, key): row for row in range(len(metrics))}
    own = {_id(weights, row, key): row for row in range(len(weights))}
    alone = [(metrics.source, [name for name in own if name not in rows])]
    alone.append((weights.source, [name for name in rows if name not in own]))
    for source, missing in alone:
        if not missing:
            continue
        said = f"{len(missing)} runs are not in {source}, by {key}: {listed(missing)}"
        if not reading.without_faulty:
            raise InvalidTable(f"{said}; leave them out, or give their rows", field=source, names=missing)
        notes.append(f"{said}; left out.")
    pairs = [(row, rows[name]) for name, row in own.items() if name in rows]
    if not pairs:
        raise InvalidTable(
            f"{weights.source} and {metrics.source} have no run in common by {key}", field="run_id"
        )
    return pairs


def _weight_columns(sheet: Sheet, reading: Reading, key: str) -> list[str]:
    """The columns of one table that are weights: those asked for, or those of one prefix whose rows sum to 1."""
    if reading.weights:
        return sheet.matching(reading.weights)
    candidates = [name for name in _others(sheet, reading, key) if not name.endswith("_epochs")]
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


def _metric_columns(sheet: Sheet, reading: Reading, taken: set[str]) -> list[str]:
    """The columns of one table that are metrics: those asked for, or those named by a path."""
    if reading.metrics:
        return [name for name in sheet.matching(reading.metrics) if name not in taken]
    rest = [
        name
        for name in _others(sheet, reading, "")
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


def _phases(sheet: Sheet, columns: Sequence[str], reading: Reading, notes: list[str]) -> list[dict[str, str]]:
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


def _domain_names(source: str, columns: Sequence[str]) -> tuple[str, ...]:
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


class _Mixer:
    """The weights of a row, read from the phases' columns."""

    def __init__(self, sheet: Sheet, phases: Sequence[Mapping[str, str]], reading: Reading) -> None:
        self._sheet, self._phases = sheet, phases
        self._shares = reading.phase_shares if len(phases) > 1 else (1.0,)

    def weights(self, row: int) -> list[float]:
        """The row's weights, as given; of several phases their average."""
        total = [0.0] * len(self._phases[0])
        for share, phase in zip(self._shares, self._phases, strict=True):
            for position, weight in enumerate(self._phase(row, phase)):
                total[position] += share * weight
        return total

    def _phase(self, row: int, phase: Mapping[str, str]) -> list[float]:
        values = []
        for column in phase.values():
            value = self._sheet.number(row, column) if column else 0.0
            if value is None:
                raise InvalidTable(
                    f"{self._sheet.address(row, column)}: no weight; write 0 where the domain was left out",
                    field=self._sheet.source,
                    names=[column],
                )
            if value < 0:
                raise InvalidTable(
                    f"{self._sheet.address(row, column)}: a weight of {value:g} is below 0",
                    field=self._sheet.source,
                    names=[column],
                )
            values.append(value)
        self._check_sum(row, dict(zip(phase.values(), values, strict=True)))
        return values

    def _check_sum(self, row: int, weights: Mapping[str, float]) -> None:
        total = math.fsum(weights.values())
        if abs(total - 1) <= RENORMALIZED:
            return
        where = f"{self._sheet.source}, row {self._sheet.numbers[row]}: the weights sum to {total:.6g}, not 1"
        if extra := [name for name, weight in weights.items() if abs(total - weight - 1) <= RENORMALIZED]:
            why = f"without {listed(extra)} they would: is it a domain?"
        elif abs(total - _PERCENT) <= RENORMALIZED * _PERCENT:
            why = "they look like percent: divide them by 100"
        elif total < 1:
            why = "is a domain's column forgotten?"
        else:
            why = "name the columns that are weights"
        raise InvalidTable(f"{where}; {why}", field=self._sheet.source)


def _values(
    sheet: Sheet, row: int, columns: Sequence[str], reading: Reading, gaps: Counter[str]
) -> dict[str, float]:
    values = {}
    for column in columns:
        value = sheet.number(row, column)
        if value is not None:
            values[column] = value
        elif reading.with_gaps:
            gaps[column] += 1
        else:
            raise InvalidTable(
                f"{sheet.address(row, column)}: empty; leave such runs out, or fit the task on the others",
                field=sheet.source,
                names=[column],
            )
    return values
