"""Files of columns, read by pyarrow: Parquet."""

from collections.abc import Iterator

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests, open_seekable
from proxy_models.text.formats.json_lines import encodable


def documents(path: DataPath, digests: Digests | None) -> Iterator[str]:
    """The column ``text``, row by row. Raises `CorpusError` naming the row."""
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with open_seekable(path, digests) as source, pyarrow.parquet.ParquetFile(source) as file:
            if "text" not in file.schema_arrow.names:
                raise CorpusError(path, None, "has no column 'text'")
            for batch in file.iter_batches(batch_size=512, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    if not isinstance(text, str):
                        raise CorpusError(path, row, "column 'text' is not a string")
                    yield encodable(path, row, text)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(path, row + 1 if row else None, f"not readable as Parquet: {error}") from error
