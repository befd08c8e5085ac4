"""Files of columns, read by pyarrow: Parquet, and Arrow as files (Feather) and as the streams `datasets` caches."""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.formats.json_lines import encodable
from proxy_models.text.formats.messages import rendered
from proxy_models.text.formats.opened import OpenedFile
from proxy_models.text.reading import Reading

_ROWS = 512
"""Of a batch of Parquet."""


def parquet(file: OpenedFile, reading: Reading) -> Iterator[str]:
    """The column of the text, row by row. Raises `CorpusError` naming the row."""

    def batches(source: IO[bytes]) -> Iterator[tuple[Any, list[str]]]:
        with pyarrow.parquet.ParquetFile(source) as table:
            column = _column(file.path, table.schema_arrow, reading.member)
            for batch in table.iter_batches(batch_size=_ROWS, columns=[".".join(column)]):
                yield batch.column(0), column[1:]

    return _texts(file, reading, batches, "Parquet")


def arrow(file: OpenedFile, reading: Reading) -> Iterator[str]:
    """`parquet`, of an Arrow file or stream."""

    def batches(source: IO[bytes]) -> Iterator[tuple[Any, list[str]]]:
        if file.head.startswith(b"ARROW1"):
            table = pyarrow.ipc.open_file(source)
            parts = (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            parts = table = pyarrow.ipc.open_stream(source)
        column = _column(file.path, table.schema, reading.member)
        for batch in parts:
            yield batch.column(column[0]), column[1:]

    return _texts(file, reading, batches, "Arrow")


def _texts(file: OpenedFile, reading: Reading, batches: Any, name: str) -> Iterator[str]:
    row = 0
    try:
        with file.seekable() as source:
            for values, inner in batches(source):
                for member in inner:
                    values = pyarrow.compute.call_function("struct_field", [values], _member(member))
                for text in values.to_pylist():
                    row += 1
                    if reading.chat is not None:
                        text = rendered(file.path, row, text, reading.chat)
                    elif not isinstance(text, str):
                        raise CorpusError(file.path, row, f"column {reading.member!r} is not a string")
                    yield encodable(file.path, row, text)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(file.path, row + 1 if row else None, f"not readable as {name}: {error}") from error


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
            hint = f"; its strings are {strings[:200]}, and reading.text_field names one" if strings else ""
            raise CorpusError(path, None, f"has no column {field!r}{hint}")
        kind = within.field(name).type
        within = kind if pyarrow.types.is_struct(kind) else pyarrow.schema([])
    return names
