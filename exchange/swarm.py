"""The runs of one table or two, joined by their ids, with everything that cannot be read named."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exchange.columns import IDS, Reading, domain_names, metric_columns, others, phases_of, weight_columns
from exchange.sheets import InvalidTable, Sheet, comma_in, listed, number_of
from mixing.errors import MissingDomain, UnknownDomain
from mixing.runs.evidence import RunEvidence
from mixing.runs.sound import RENORMALIZED, alike

_PERCENT = 100.0


@dataclass(frozen=True)
class Trained:
    """What a run trained; None where the table does not say."""

    tokens: int | None = None
    parameters: int | None = None
    seed: int | None = None


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
        trained: what each run trained, in the runs' order.
        told: `{what of it is told: its column}`.
    """

    domains: tuple[str, ...]
    labels: Mapping[str, str]
    columns: Mapping[str, str]
    metrics: tuple[str, ...]
    runs: tuple[RunEvidence, ...]
    notes: tuple[str, ...]
    trained: tuple[Trained, ...]
    told: Mapping[str, str]

    def of_one_scale(self, reads_tokens: bool) -> "Swarm":
        """The same runs, each told how much of the longest one it trained where the law ``reads_tokens``.

        Raises:
            InvalidTable: models of several sizes, or lengths that the law does not look at: what they reach lies on
                different levels, which a law would take for the mixtures' doing.
        """
        self.one_of("parameters")
        lengths = [each.tokens for each in self.trained]
        if not reads_tokens or None in lengths:
            self.one_of("tokens")
            return self
        longest = max(filter(None, lengths))
        told = [
            replace(run, tokens=(length or longest) / longest)
            for run, length in zip(self.runs, lengths, strict=True)
        ]
        return replace(self, runs=tuple(told))

    def one_of(self, what: str) -> int | None:
        """The tokens or parameters that all runs have, to 5%; None where no run says. Raises InvalidTable."""
        counts = Counter(value for each in self.trained if (value := getattr(each, what)) is not None)
        if not counts or all(alike(value / max(counts)) for value in counts):
            return max(counts, default=None)
        column = self.told[what]
        each = ", ".join(f"{number} of {value:,}" for value, number in counts.most_common(4))
        most = counts.most_common(1)[0][0]
        raise InvalidTable(
            f"the runs differ in {column}: {each}{' and others' if len(counts) > 4 else ''}; what they reach lies on"
            " different levels, which a law would take for the mixtures' doing. Keep those of one, as with"
            f" {column}={most}",
            field=column,
            names=[column],
        )

    @property
    def aliases(self) -> dict[str, str]:
        """`{column, label or name of a domain: its name}`: all that others may call it by."""
        return {
            alias: name for name in self.domains for alias in (self.columns[name], self.labels[name], name)
        }

    def over(self, domains: Sequence[str]) -> "Swarm":
        """The same runs with their domains called as a domain set calls them.

        Raises:
            UnknownDomain: a column of weights that is none of the domains.
            MissingDomain: a domain that has no column.
        """
        aliases = self.aliases
        called = {aliases[name]: name for name in domains if name in aliases}
        if stray := [name for name in self.domains if name not in called]:
            raise UnknownDomain(
                f"{listed([self.columns[name] for name in stray])} is no domain of the set, which has"
                f" {listed(domains)}",
                field="weights",
                names=stray,
            )
        if missing := [name for name in domains if name not in aliases]:
            raise MissingDomain(
                f"no run has a weight of {listed(missing)}; write 0 where the domain was left out",
                field="weights",
                names=missing,
            )
        runs = [
            replace(run, mixture={called[name]: weight for name, weight in run.mixture.items()})
            for run in self.runs
        ]
        return replace(
            self,
            domains=tuple(called[name] for name in self.domains),
            labels={called[name]: label for name, label in self.labels.items()},
            columns={called[name]: column for name, column in self.columns.items()},
            runs=tuple(runs),
        )


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
        columns = weight_columns(weights, reading, key)
        measured = metric_columns(weights, reading, {key, *columns})
        pairs = [(row, row) for row in range(len(weights))]
        metrics = weights
    else:
        metrics = _kept(metrics, reading, notes, required=False)
        key = _key(reading, weights, metrics)
        columns = weights.matching(reading.weights) if reading.weights else others(weights, reading, key)
        measured = metrics.matching(reading.metrics) if reading.metrics else others(metrics, reading, key)
        pairs = _joined(weights, metrics, key, reading, notes)
    _check_numbers(weights, columns, "weight")
    _check_numbers(metrics, measured, "metric")
    phases = phases_of(weights, columns, reading, notes)
    names = domain_names(weights.source, list(phases[0]))
    mixer = _Mixer(weights, phases, reading)
    told = reading.trained(weights, metrics)
    told = {what: column for what, column in told.items() if column not in (*columns, *measured)}
    runs, trained, faulty, gaps = [], [], [], Counter()
    for row, other in pairs:
        name = _id(weights, row, key)
        try:
            mixture = dict(zip(names, mixer.weights(row), strict=True))
            values = _values(metrics, other, measured, reading, gaps)
            of_run = _trained(((weights, row), (metrics, other)), told)
        except InvalidTable as fault:
            faulty.append((name, str(fault)))
        else:
            runs.append(RunEvidence(name, mixture, values, seed=of_run.seed))
            trained.append(of_run)
    if faulty:
        notes.append(_faults(faulty, len(pairs), reading))
    _check_domains(weights.source, runs, dict(zip(names, phases[0].values(), strict=True)))
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
        tuple(trained),
        told,
    )


def _trained(rows: Sequence[tuple[Sheet, int]], told: Mapping[str, str]) -> Trained:
    """What a run trained, by its rows of the tables; raises InvalidTable for what is no count, or two of them."""
    found: dict[str, int] = {}
    for sheet, row in rows:
        for what, column in told.items():
            value = sheet.number(row, column) if column in sheet.columns else None
            if value is None:
                continue
            if value != int(value) or value < (what != "seed") or found.get(what, value) != value:
                raise InvalidTable(
                    f"{sheet.address(row, column)}: {value:g} is no {what} of a run"
                    + (f", which has {found[what]:,} elsewhere" if what in found else ""),
                    field=sheet.source,
                    names=[column],
                )
            found[what] = int(value)
    return Trained(**found)


def _check_numbers(sheet: Sheet, columns: Sequence[str], kind: str) -> None:
    """Raise InvalidTable for a column in which no row has a number: it was not meant."""
    for column in columns:
        values = [number_of(cell) for cell in sheet.columns[column]]
        if len(values) > 1 and all(value is not None and math.isnan(value) for value in values):
            shown = str(sheet.columns[column][0])[:40]
            advice = comma_in(shown) or "; ignore it, or name the columns that are"
            raise InvalidTable(
                f"column {column!r} of {sheet.source} has no number in any row ({shown!r}), so it is no {kind}"
                f"{advice}",
                field=sheet.source,
                names=[column],
            )


def _check_domains(source: str, runs: Sequence[RunEvidence], columns: Mapping[str, str]) -> None:
    """Raise InvalidTable for a small column beside weights that sum to 1 without it, such as a learning rate."""
    if len(runs) < _SURE:
        return
    table = np.array([list(run.mixture.values()) for run in runs])
    sums = table.sum(axis=1)
    least = np.abs(sums - 1).min()
    for position, name in enumerate(columns):
        if least > _EXACT and 10 * np.abs(sums - table[:, position] - 1).max() < least:
            column = columns[name]
            raise InvalidTable(
                f"{source}: without column {column!r} the weights of every run sum to 1, and with it of none: it is"
                " no domain; ignore it, or name the columns that are weights",
                field=source,
                names=[column],
            )


_SURE, _EXACT = 3, 1e-5
"""Runs, and how far a sum is off that was not rounded: ten times as far as without the column."""


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
        if all(_is(sheet.columns[column][row], value) for column, value in wanted.items())
    ]
    asked = ", ".join(f"{column}={value}" for column, value in wanted.items())
    if not kept:
        column = next(iter(wanted))
        there = listed(sorted({str(cell) for cell in sheet.columns[column]}))
        raise InvalidTable(f"{sheet.source} has no row with {asked}; {column} is {there}", field=sheet.source)
    if len(kept) < len(sheet):
        notes.append(f"{len(sheet) - len(kept)} of {len(sheet)} rows of {sheet.source} are not {asked}.")
    return sheet.rows(kept)


def _is(cell: Any, value: str) -> bool:
    """Whether a cell has a value: the same text, or the same number however it is written."""
    number = number_of(value)
    is_number = number is not None and math.isfinite(number)
    return number_of(cell) == number if is_number else str(cell).strip() == value


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


class _Mixer:
    """The weights of a row, read from the phases' columns."""

    def __init__(self, sheet: Sheet, phases: Sequence[Mapping[str, str]], reading: Reading) -> None:
        self._sheet, self.phases = sheet, phases
        self._shares = reading.phase_shares if len(phases) > 1 else (1.0,)

    def weights(self, row: int) -> list[float]:
        """The row's weights, as given; of several phases their average."""
        total = [0.0] * len(self.phases[0])
        for share, phase in zip(self._shares, self.phases, strict=True):
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
