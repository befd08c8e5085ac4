"""Files of columns, read by pyarrow: Parquet, and Arrow as files (Feather) and as the streams `datasets` caches."""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.formats.lines import FREE_BYTES, MOST_EXPANSION, TEXT_FIELD, encodable
from proxy_models.text.formats.opened import OpenedFile
from proxy_models.text.reading import Reading, rendered

_ROWS, _BATCH_BYTES = 512, 2**23
"""Of a batch of Parquet, at most: a row is as long as the footer says they are in the mean."""


def parquet(file: OpenedFile, reading: Reading) -> Iterator[str]:
    """The column of the text, row by row. Raises `CorpusError` naming the row."""

    def batches(source: IO[bytes]) -> Iterator[tuple[Any, list[str]]]:
        with pyarrow.parquet.ParquetFile(source) as table:
            column = _column(file.path, table.schema_arrow, reading.member)
            named, footer = ".".join(column), table.metadata
        rows, strings = _held_against(file, footer, named)
        # A value that many rows share is in memory once, not once a row.
        with pyarrow.parquet.ParquetFile(source, metadata=footer, read_dictionary=strings) as table:
            for batch in table.iter_batches(batch_size=rows, columns=[named], use_threads=False):
                yield batch.column(0), column[1:]

    return _texts(file, reading, batches, "Parquet")


def _held_against(file: OpenedFile, footer: Any, column: str | None) -> tuple[int, list[str]]:
    """How many rows to read at once, and the columns of strings in ``column``; None is all columns.

    Raises `CorpusError` where the footer's sizes are not those of text, or of this file.
    """
    stored = expanded = 0
    strings: set[str] = set()
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for chunk in (group.column(index) for index in range(group.num_columns)):
            if column is None or f"{chunk.path_in_schema}.".startswith(f"{column}."):
                stored += chunk.total_compressed_size
                expanded += chunk.total_uncompressed_size
                if chunk.physical_type == "BYTE_ARRAY":
                    strings.add(chunk.path_in_schema)
                if chunk.total_uncompressed_size > max(
                    FREE_BYTES, MOST_EXPANSION * chunk.total_compressed_size
                ):
                    raise CorpusError(file.path, None, f"expands to over {MOST_EXPANSION} times its size")
                if min(chunk.total_compressed_size, chunk.total_uncompressed_size) < 0:
                    raise CorpusError(file.path, None, "has a column of less than nothing")
    if stored > file.size:
        raise CorpusError(file.path, None, "its footer names more bytes than it has")
    return max(1, min(_ROWS, _BATCH_BYTES * footer.num_rows // max(1, expanded))), sorted(strings)


def arrow(file: OpenedFile, reading: Reading) -> Iterator[str]:
    """`parquet`, of an Arrow file or stream."""

    def batches(source: IO[bytes]) -> Iterator[tuple[Any, list[str]]]:
        schema, parts = _arrow_batches(file, source)
        column = _column(file.path, schema, reading.member)
        for batch in parts:
            yield batch.column(column[0]), column[1:]

    return _texts(file, reading, batches, "Arrow")


def parquet_rows(file: OpenedFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row). Raises `CorpusError`, naming the row where there is one."""

    def batches(source: IO[bytes]) -> Iterator[tuple[Any, list[str]]]:
        with pyarrow.parquet.ParquetFile(source) as table:
            rows, _ = _held_against(file, table.metadata, None)
            for batch in table.iter_batches(batch_size=rows, use_threads=False):
                yield batch.to_struct_array(), []

    return _values(file, batches, "Parquet")


def arrow_rows(file: OpenedFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """`parquet_rows`, of an Arrow file or stream."""

    def batches(source: IO[bytes]) -> Iterator[tuple[Any, list[str]]]:
        for batch in _arrow_batches(file, source)[1]:
            yield batch.to_struct_array(), []

    return _values(file, batches, "Arrow")


def _arrow_batches(file: OpenedFile, source: IO[bytes]) -> tuple[Any, Iterator[Any]]:
    """The schema, and the batches."""
    if not file.head.startswith(b"ARROW1"):
        stream = pyarrow.ipc.open_stream(source)
        return stream.schema, iter(stream)
    table = pyarrow.ipc.open_file(source)
    return table.schema, (table.get_batch(number) for number in range(table.num_record_batches))


def _texts(file: OpenedFile, reading: Reading, batches: Any, name: str) -> Iterator[str]:
    for row, value in _values(file, batches, name):
        try:
            document = _text_of(file, row, value, reading)
        except CorpusError as fault:
            file.faults.pass_over(fault, reading)
        else:
            yield document


def _values(file: OpenedFile, batches: Any, name: str) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of each row of the arrays that ``batches`` finds, with the names that lead into them."""
    row = size = 0
    try:
        with file.seekable() as source:
            for values, inner in batches(source):
                for member in inner:
                    values = pyarrow.compute.call_function("struct_field", [values], _member(member))
                for value in values:  # one by one: all at once they take the batch's bytes twice and more
                    text = value.as_py()
                    row += 1
                    size += _length(text)
                    if size > max(FREE_BYTES, MOST_EXPANSION * file.size):
                        raise CorpusError(file.path, row, f"expands to over {MOST_EXPANSION} times its size")
                    yield row, text
    except MemoryError:  # also Arrow's own: it says nothing of the file
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(file.path, row + 1 if row else None, f"not readable as {name}: {error}") from error


def _text_of(file: OpenedFile, row: int, value: Any, reading: Reading) -> str:
    if reading.chat is not None:
        return encodable(file.path, row, rendered(file.path, row, value, reading.chat))
    if not isinstance(value, str):
        raise CorpusError(file.path, row, f"column {reading.member!r} is not a string")
    return encodable(file.path, row, value)


def _length(value: Any) -> int:
    """Characters in a value and all that is in it."""
    if isinstance(value, dict | list):
        return sum(map(_length, value.values() if isinstance(value, dict) else value))
    return len(value) if isinstance(value, str) else 0


def _member(name: str) -> Any:
    return pyarrow.compute.StructFieldOptions([name])


def _column(path: DataPath, schema: Any, field: str) -> list[str]:
    """The names that lead to a column: one, or those between dots where structures are nested."""
    if field in schema.names:
        return [field]
    names, within = field.split("."), schema
    for name in names:
        if name not in [one.name for one in within]:
            strings = ", ".join(str(one.name) for one in schema if "string" in str(one.type))
            hint = f"; its strings are {strings[:200]}, and {TEXT_FIELD}" if strings else ""
            raise CorpusError(path, None, f"has no column {field!r}{hint}")
        kind = within.field(name).type
        within = kind if pyarrow.types.is_struct(kind) else pyarrow.schema([])
    return names
