"""Documents of corpus files: JSONL, plain text, Parquet, and sizes of pre-tokenized files. Free of torch.

What a document is:

- ``.jsonl``, ``.ndjson`` (also ``.gz``, ``.zst``): the string ``text`` of each line; blank lines are skipped.
- ``.parquet``: the column ``text``, row by row.
- ``.npy``, ``.bin``: see `token_files`.
- anything else (also ``.gz``, ``.zst``) is plain text: a file of up to `plain_text.LONG_TEXT` characters is one
  document, a longer one is cut at blank lines into documents of that length (at line ends where no blank line
  comes within twice the length), so that a book has a held-out part like any domain.

Documents of white space only are left out. A file is a local one or an object in a store (`stores.object_path`).
Files are streamed, and every failure names its file and line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests
from proxy_models.text.formats import columns, json_lines, plain_text
from proxy_models.text.formats.compression import plain_suffix
from proxy_models.text.reading import BY_CONTENT, Reading
from proxy_models.text.token_files import is_pretokenized, tokens_size

MOST_EMPTY_DOCUMENTS = 100_000
"""On end; a file of them would hold up whoever looks for its first text."""
JSONL_SUFFIXES = (".jsonl", ".ndjson")


def read_documents(
    path: DataPath, digests: Digests | None = None, reading: Reading = BY_CONTENT
) -> Iterator[str]:
    """The documents of a text file, in order. Raises `CorpusError` naming the file and line.

    With ``digests`` the file is read once and whole, and when it is read its digest is among them.
    Pre-tokenized files have no text of their own: use `token_files.read_token_documents`.
    """
    suffix = plain_suffix(path)
    if is_pretokenized(path):
        raise CorpusError(path, None, "holds token ids, not text")
    if reading.format is not None:
        documents = plain_text.documents(path, digests, reading)
    elif suffix in JSONL_SUFFIXES:
        documents = json_lines.documents(path, digests, reading)
    elif suffix == ".parquet":
        documents = columns.documents(path, digests, reading)
    else:
        documents = plain_text.documents(path, digests, reading)
    return _with_text(path, documents)


def _with_text(path: DataPath, documents: Iterator[str]) -> Iterator[str]:
    empty = 0
    for document in documents:
        if document and not document.isspace():
            empty = 0
            yield document
        elif (empty := empty + 1) > MOST_EMPTY_DOCUMENTS:
            raise CorpusError(path, None, f"has over {MOST_EMPTY_DOCUMENTS} documents on end without text")


@dataclass(frozen=True)
class CorpusProbe:
    """What a look at some files found.

    ``documents`` counts text documents only; ``size_bytes`` is UTF-8 bytes of text, and file bytes of
    pre-tokenized files; ``complete`` is False where the look stopped at its limit.
    """

    documents: int
    size_bytes: int
    complete: bool


def probe(paths: Sequence[DataPath], byte_limit: int, reading: Reading = BY_CONTENT) -> CorpusProbe:
    """Open every file and read up to ``byte_limit`` bytes of text over all of them.

    Each file is opened and its first document read, limit or not. Raises `CorpusError` for a file that is
    unreadable, malformed as far as it was read, or without any text.
    """
    documents = size_bytes = 0
    complete = True
    for path in paths:
        if is_pretokenized(path):
            size_bytes += tokens_size(path)
            continue
        count = 0
        for document in read_documents(path, reading=reading):
            count += 1
            size_bytes += len(document.encode())
            if size_bytes >= byte_limit:
                complete = False
                break
        if not count:
            raise CorpusError(path, None, "holds no text")
        documents += count
    return CorpusProbe(documents, size_bytes, complete)
