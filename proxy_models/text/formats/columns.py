"""Files of columns, read by pyarrow: Parquet."""

from collections.abc import Iterator
from typing import Any

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests, open_seekable
from proxy_models.text.formats.json_lines import encodable
from proxy_models.text.reading import Reading


def documents(path: DataPath, digests: Digests | None, reading: Reading) -> Iterator[str]:
    """The column of the text, row by row. Raises `CorpusError` naming the row."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    row = 0
    try:
        with open_seekable(path, digests) as source, pyarrow.parquet.ParquetFile(source) as file:
            column = _column(path, file.schema_arrow, reading.text_field)
            for batch in file.iter_batches(batch_size=512, columns=[".".join(column)]):
                values = batch.column(0)
                for name in column[1:]:
                    values = pyarrow.compute.struct_field(values, name)
                for text in values.to_pylist():
                    row += 1
                    if not isinstance(text, str):
                        raise CorpusError(path, row, f"column {reading.text_field!r} is not a string")
                    yield encodable(path, row, text)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(path, row + 1 if row else None, f"not readable as Parquet: {error}") from error


def _column(path: DataPath, schema: Any, field: str) -> list[str]:
    """The names that lead to a column: one, or those between dots where structures are nested."""
    if field in schema.names:
        return [field]
    names, within = field.split("."), schema
    for name in names:
        known = [one.name for one in within]
        if name not in known:
            strings = ", ".join(str(one.name) for one in schema if "string" in str(one.type))
            hint = f"; its strings are {strings[:200]}, and reading.text_field names one" if strings else ""
            raise CorpusError(path, None, f"has no column {field!r}{hint}")
        within = within.field(name).type
        within = within if hasattr(within, "fields") else []
    return names
