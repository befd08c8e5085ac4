"""Tables as people have them: comma or tab separated, Parquet, JSON lines, or a data frame.

What a file is follows from its content. Every cell keeps an address, so that a complaint names file, row and column.
"""

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mixing.errors import MixingError

_EMPTY = frozenset({"", "nan", "null", "none", "na", "n/a", "-"})


class InvalidTable(MixingError):
    """A table that cannot be read as it is; `field` is its file, `names` the columns or runs at fault."""


@dataclass(frozen=True)
class Sheet:
    """A table: columns of equal length, in the order given.

    Attributes:
        source: what it is called in messages: the file's name.
        columns: `{name: its cells}`; a cell is text, a number or None.
        numbers: of the rows, for who opens the file: the first below a header is 2.
    """

    source: str
    columns: Mapping[str, Sequence[Any]]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def address(self, row: int, column: str) -> str:
        """Where a cell is, for messages."""
        return f"{self.source}, row {self.numbers[row]}, column {column!r}"

    def rows(self, kept: Sequence[int]) -> "Sheet":
        """The same table of some rows only."""
        columns = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        return Sheet(self.source, columns, [self.numbers[row] for row in kept])

    def number(self, row: int, column: str) -> float | None:
        """A cell as a number; None where it is empty or NaN.

        Raises:
            InvalidTable: text that is no number, or an infinite one.
        """
        value = number_of(self.columns[column][row])
        if value is not None and math.isnan(value):
            shown = str(self.columns[column][row])[:40]
            raise InvalidTable(
                f"{self.address(row, column)}: {shown!r} is no finite number{comma_in(shown)}",
                field=self.source,
                names=[column],
            )
        return value

    def is_numeric(self, column: str) -> bool:
        """Whether a column has numbers and nothing else but gaps."""
        values = [number_of(cell) for cell in self.columns[column]]
        known = [value for value in values if value is not None]
        return bool(known) and not any(map(math.isnan, known))

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The columns one of the patterns stands for, in the table's order.

        Raises:
            InvalidTable: a pattern that stands for none.
        """
        for pattern in patterns:
            if not any(matches(name, pattern) for name in self.columns):
                raise InvalidTable(
                    f"{self.source} has no column {pattern!r}; it has {listed(self.columns)}",
                    field=self.source,
                    names=[pattern],
                )
        return [name for name in self.columns if any(matches(name, pattern) for pattern in patterns)]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern with ``*`` and ``?`` stands for a name; a name stands for itself whatever is in it."""
    return name == pattern or fnmatchcase(name, pattern)


def listed(names: Sequence[str] | Mapping[str, Any], most: int = 8) -> str:
    """Names for a message, the first few and how many more."""
    given = list(names)
    more = f" and {len(given) - most} more" if len(given) > most else ""
    return ", ".join(given[:most]) + more


def comma_in(cell: str) -> str:
    """What to say of a number that is written as in half of Europe, with a decimal comma; else nothing."""
    is_one = re.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*", cell)
    return "; write its decimals behind a point, as 0.5" if is_one else ""


def number_of(cell: Any) -> float | None:
    """A cell as a number; None where it is empty or NaN, NaN where it is something else or infinite."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _EMPTY):
        return None
    if isinstance(cell, bool):
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else math.nan


def read_sheet(given: Any) -> Sheet:
    """A table from a path or from any data frame narwhals knows: pandas, polars, pyarrow.

    Raises:
        InvalidTable: no file, nothing in it, or what is no table.
    """
    if isinstance(given, Sheet):
        return given
    if isinstance(given, str | Path):
        return _file(Path(given))
    import narwhals as nw

    try:
        frame = nw.from_native(given, eager_only=True)
    except TypeError as error:
        raise InvalidTable(f"a {type(given).__name__} is neither a path nor a data frame") from error
    return _checked(Sheet("the frame", frame.to_dict(as_series=False), range(len(frame))))


def _file(path: Path) -> Sheet:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidTable(f"{path}: {error.strerror or error}", field=str(path)) from error
    return sheet_of(data, path)


def sheet_of(data: bytes, path: Path) -> Sheet:
    """The table that a file's content is; ``path`` is what it is called in messages.

    Raises:
        InvalidTable: nothing in it, or what is no table.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidTable(
                f"{path} is gzip that ends early or is damaged: {error}", field=str(path)
            ) from error
    if data[:4] == b"PAR1":
        columns = _parquet(data, path)
        return _checked(Sheet(path.name, columns, range(1, 1 + len(next(iter(columns.values()), ())))))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidTable(f"{path} is neither Parquet nor UTF-8 text", field=str(path)) from error
    if text.lstrip()[:1] in ("{", "["):
        return _checked(_objects(text, path))
    return _checked(_separated(text, path))


def _checked(sheet: Sheet) -> Sheet:
    if not len(sheet):
        raise InvalidTable(f"{sheet.source} has no rows", field=sheet.source)
    return sheet


def _parquet(data: bytes, path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise InvalidTable(f"{path} is no Parquet that can be read: {error}", field=str(path)) from error
    while any(pa.types.is_struct(column.type) for column in table.columns):
        table = table.flatten()
    return table.to_pydict()


def _objects(text: str, path: Path) -> Sheet:
    """JSON lines, or one array of objects; objects inside are columns named ``outer/inner``."""
    rows, numbers = [], []
    for number, document in _documents(text, path):
        if not isinstance(document, dict):
            raise InvalidTable(f"{path}, row {number}: not a JSON object", field=str(path))
        rows.append(dict(_leaves(document)))
        numbers.append(number)
    names = dict.fromkeys(name for row in rows for name in row)
    return Sheet(path.name, {name: [row.get(name) for row in rows] for name in names}, numbers)


def _documents(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    if text.lstrip().startswith("["):
        yield from enumerate(_parsed(text, path, 1), 1)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, _parsed(line, path, number)


def _parsed(text: str, path: Path, row: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidTable(f"{path}, row {row}: {error}", field=str(path)) from error


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _separated(text: str, path: Path) -> Sheet:
    head = text.split("\n", 1)[0]
    separator = max(",\t;", key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        header = next(rows)
    except StopIteration:
        raise InvalidTable(f"{path} is empty", field=str(path)) from None
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InvalidTable(f"{path} has two columns {listed(twice)}", field=str(path), names=twice)
    cells, numbers = [], []
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(header):
            raise InvalidTable(
                f"{path}, row {number}: {len(row)} cells under {len(header)} column names", field=str(path)
            )
        cells.append(row)
        numbers.append(number)
    columns = {name: [row[column] for row in cells] for column, name in enumerate(header)}
    return Sheet(path.name, columns, numbers)


# Weights as people keep them: a table of domain and weight, a mapping, or Olmix's list of both.


def read_weights(path: Path) -> dict[str, float]:
    """`{domain: weight}` of a CSV, JSON or YAML file, as it stands there: the sum is for who uses it to check.

    Raises:
        InvalidTable: no such file; a row that is no domain with its weight; a domain named twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTable(f"{path}: {error}", field=str(path)) from error
    if path.suffix in (".json", ".yaml", ".yml"):
        return _of_document(_document_of(text, path), path)
    sheet = read_sheet(path)
    numeric = [name for name in sheet.columns if sheet.is_numeric(name)]
    texts = [name for name in sheet.columns if name not in numeric]
    if "weight" in sheet.columns:
        numeric = ["weight"]
    if len(numeric) != 1 or len(texts) != 1:
        raise InvalidTable(f"{path}: needs one column of domains and one called weight", field=str(path))
    pairs = [(str(sheet.columns[texts[0]][row]), sheet.number(row, numeric[0])) for row in range(len(sheet))]
    return _of_pairs(pairs, path)


def _document_of(text: str, path: Path) -> Any:
    import yaml

    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InvalidTable(f"{path}: {error}", field=str(path)) from error


def _of_document(document: Any, path: Path) -> dict[str, float]:
    if isinstance(document, dict) and isinstance(document.get("weights"), dict):
        document = document["weights"]
    if isinstance(document, dict):
        return _of_pairs(list(document.items()), path)
    if isinstance(document, list) and all(isinstance(row, dict) and "domain" in row for row in document):
        return _of_pairs([(row["domain"], row.get("weight")) for row in document], path)
    raise InvalidTable(f"{path}: neither a mapping of domains to weights nor a list of both", field=str(path))


def _of_pairs(pairs: list[tuple[Any, Any]], path: Path) -> dict[str, float]:
    weights: dict[str, float] = {}
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidTable(
                f"{path}: the weight of {name!r} is {value!r}", field=str(path), names=[str(name)]
            )
        if str(name) in weights:
            raise InvalidTable(f"{path}: {name!r} is named twice", field=str(path), names=[str(name)])
        weights[str(name)] = float(value)
    return weights
