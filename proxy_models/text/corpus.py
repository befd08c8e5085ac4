"""Documents of corpus files, whatever they are: formats are told by content (`formats.catalogue`). Free of torch.

What a document is:

- JSON lines, and a JSON array: the string ``text`` of each object; blank lines are skipped.
- Parquet, Arrow: the column ``text``, row by row.
- plain text: a file of up to `lines.LONG_TEXT` characters is one document, a longer one is cut at blank lines
  into documents of that length (at line ends where no blank line comes within twice the length), so that a book has
  a held-out part like any domain.
- token ids: see `token_files`.

gzip, Zstandard, bzip2 and xz are decompressed. `Reading` names another member or column, and says what content does
not. Documents of white space only are left out. A file is a local one or an object in a store
(`stores.object_path`). Files are streamed, and every failure names its file and line.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import TypeVar

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests
from proxy_models.text.formats.catalogue import Format, format_of
from proxy_models.text.formats.opened import OpenedFile, opened
from proxy_models.text.reading import BY_CONTENT, Reading
from proxy_models.text.token_files import TokenArray, TokenReader
from proxy_models.text.token_shard import SAMPLE_CHARACTERS

Text = TypeVar("Text", str, tuple[str, Sequence[int] | None])
MOST_OPENED = 2048
"""Files of one folder and suffix that are opened while somebody waits."""
MOST_EMPTY_DOCUMENTS = 100_000
"""On end; a file of them would hold up whoever looks for its first text."""


def read_documents(
    path: DataPath, digests: Digests | None = None, reading: Reading = BY_CONTENT
) -> Iterator[str]:
    """The documents of a text file, in order. Raises `CorpusError` naming the file and line.

    With ``digests`` the file is read once and whole, and when it is read its digest is among them.
    Token ids have no text of their own: use `read_token_documents`.
    """
    with opened(path, digests) as file:
        found = format_of(file, reading)
        if found.layout is not None:
            raise CorpusError(path, None, f"holds {found.name}, not text")
        yield from documents_of(file, found, reading)


def holds_text(path: DataPath, reading: Reading) -> bool:
    """Whether a file is of text, and not of token ids. Raises `CorpusError` where it cannot be opened."""
    with opened(path) as file:
        return format_of(file, reading).layout is None


def documents_of(file: OpenedFile, found: Format, reading: Reading) -> Iterator[str]:
    """`read_documents`, of a file that is open and whose format is told."""
    if found.family is None:
        raise found.refusal(file)
    empty = 0
    for document in found.documents(file, reading) if found.documents is not None else ():
        if document and not document.isspace():
            empty = 0
            yield document
        elif (empty := empty + 1) > MOST_EMPTY_DOCUMENTS:
            reason = f"has over {MOST_EMPTY_DOCUMENTS} documents on end without text"
            raise CorpusError(file.path, None, reason)
    file.read_to_end()


def byte_limits(paths: Sequence[DataPath], reading: Reading) -> list[float]:
    """Bytes of text to read of each file: of a sample what its part of all bytes is, else all."""
    if reading.max_bytes is None:
        return [inf] * len(paths)
    sizes = [path.stat().st_size for path in paths]
    total = max(1, sum(sizes))
    return [reading.max_bytes * size / total for size in sizes]


def up_to(texts: Iterator[Text], byte_limit: float) -> Iterator[Text]:
    """The first of some documents, with the one that reaches the limit."""
    for text in texts:
        yield text
        byte_limit -= len((text if isinstance(text, str) else text[0]).encode())
        if byte_limit <= 0:
            return


def read_token_documents(
    path: DataPath, reader: TokenReader, digests: Digests | None = None
) -> Iterator[TokenArray]:
    """The documents of a file of token ids, in order; ``digests`` as above, files beside it have their own."""
    with opened(path, digests) as file:
        found = format_of(file, BY_CONTENT)
        if found.layout is None:
            raise CorpusError(path, None, f"is {found.name}, not token ids")
        yield from reader.documents(file, found.layout(file, reader.vocabulary_size))


@dataclass(frozen=True)
class FileLook:
    """What a look at a file found.

    Attributes:
        path: of the file.
        format: it is of.
        size_bytes: as it is stored.
        text_bytes: of the documents that were read, in UTF-8; of token ids their own bytes.
        complete: whether the file was read to its end.
        sample: the beginning of the first document.
        fault: why it cannot be read, as far as it was.
        tokenizer: the fingerprint that the sidecar of token ids gives of their tokenizer.
    """

    path: DataPath
    format: Format
    size_bytes: int
    text_bytes: int = 0
    complete: bool = True
    sample: str | None = None
    fault: CorpusError | None = None
    tokenizer: object = None


def look_at(
    paths: Collection[DataPath],
    byte_limit: int,
    reading: Reading = BY_CONTENT,
    sizes: Mapping[DataPath, int] | None = None,
) -> list[FileLook]:
    """Open the files, tell their formats, and read up to ``byte_limit`` bytes of text over all of them.

    Of each file the first document is read, limit or not. Of a folder's files of one suffix only about `MOST_OPENED`
    are opened, evenly over their order; the others are taken for what those are until they are counted, when every
    file is told by its own content. Raises `CorpusError` for a file that cannot be opened.
    """
    shelves: dict[tuple[str, str], list[DataPath]] = {}
    for path in paths:
        folder, _, name = str(path).rpartition("/")
        shelves.setdefault((folder, name.rpartition(".")[2] if "." in name else ""), []).append(path)
    looks: dict[DataPath, FileLook] = {}
    for shelf in shelves.values():
        step, last = ceil(len(shelf) / MOST_OPENED), None
        for number, path in enumerate(shelf):
            if last is not None and number % step:
                size = path.stat().st_size if sizes is None else sizes[path]
                if size:
                    told = (last.sample, last.fault, last.tokenizer)
                    looks[path] = FileLook(path, last.format, size, 0, False, *told)
                    continue
            with opened(path) as file:
                looks[path] = look = _look(file, byte_limit, reading)
            if look.format.layout is None:
                byte_limit -= look.text_bytes
            last = look if look.text_bytes else None
    return [looks[path] for path in paths]


def _look(file: OpenedFile, byte_limit: int, reading: Reading) -> FileLook:
    found = format_of(file, reading)
    documents = text_bytes = 0
    complete, sample, fault = True, None, None
    try:
        if found.layout is not None:
            layout = found.layout(file, None)
            tokenizer = layout.sidecar.get("tokenizer")
            return FileLook(file.path, found, file.size, layout.size_bytes, tokenizer=tokenizer)
        for document in documents_of(file, found, reading):
            sample = document[:SAMPLE_CHARACTERS] if sample is None else sample
            text_bytes += len(document.encode())
            documents += 1
            if not (complete := text_bytes < byte_limit):
                break
        else:
            file.faults.check(documents, reading)
    except CorpusError as error:
        fault = error
    return FileLook(file.path, found, file.size, text_bytes, complete, sample, fault)


@dataclass(frozen=True)
class TakenFiles:
    """Which files of a folder or pattern are a domain's text, and why others are not."""

    taken: tuple[FileLook, ...]
    left_out: tuple[tuple[FileLook, str], ...]


def choose(looks: Sequence[FileLook], named: Collection[DataPath] = ()) -> TakenFiles:
    """The files of the kind that most of the bytes are of: records, plain text or token ids.

    Files without text are left out, and so is what lies beside a corpus: of another kind, unreadable, or with a name
    that begins with ``_``. Those that are ``named`` one by one are taken unless they are empty.

    Raises `CorpusError` for a file that would be taken and cannot be read, where most of the bytes are of a kind that
    is refused, and where there is no text at all.
    """
    sizes: dict[str, int] = {}
    for look in looks:
        if look.path in named or not look.path.name.startswith("_"):
            kind = look.format.family or look.format.name
            sizes[kind] = sizes.get(kind, 0) + look.size_bytes * (kind != "nothing")
    leading = max(sizes, key=sizes.__getitem__, default="nothing")
    taken, left_out = [], []
    for look in looks:
        reason = _reason(look, leading, look.path in named)
        if reason is not None:
            left_out.append((look, reason))
        elif look.fault is not None:
            raise look.fault
        else:
            taken.append(look)
    if not taken:
        raise CorpusError(looks[0].path, None, "holds no text")
    return TakenFiles(tuple(taken), tuple(left_out))


def _reason(look: FileLook, leading: str, is_named: bool) -> str | None:
    """Why a file is left out; None for one that is taken, whatever is then wrong with it."""
    family = look.format.family
    if family == "nothing":
        return look.format.name
    if family is not None and look.complete and not look.text_bytes and look.fault is None:
        return "holds no text"
    if is_named or (family is None and leading == look.format.name):
        return None
    if look.path.name.startswith("_"):
        return "its name begins with _, as of what is written beside a corpus"
    if family is None:
        return str(look.fault)
    return None if family == leading else f"is {look.format.name} among {leading}; name it to take it"
