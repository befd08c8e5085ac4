"""Which documents a shard holds: sorted digests, by which copies are found without reading the text again.

``documents.bin`` has a record for each different document: the first 64 bits of its digest, where its training tokens
begin in the shard (`HELD_OUT` for a document that is never trained on), how many they are, and how often it occurs.
Two of a thousand million different documents share their 64 bits once in 37 such sets.

Everything is read and written in stretches of `STRETCH` records, however many there are. Free of torch.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from proxy_models.errors import DataMissing

DOCUMENTS = "documents.bin"
RECORD = np.dtype([("digest", "<u8"), ("begin", "<i8"), ("tokens", "<u4"), ("copies", "<u4")])
HELD_OUT = -1
STRETCH = 2**19
EXAMPLES = 3


@dataclass
class IndexWriter:
    """Takes the documents of a shard in any order and writes ``documents.bin`` into its directory."""

    directory: Path
    waiting: list[tuple[int, int, int, int]] = field(default_factory=list)
    sorted: list[np.ndarray] = field(default_factory=list)

    def add(self, digest: bytes, begin: int, tokens: int) -> None:
        """Count a document in."""
        self.waiting.append((int.from_bytes(digest[:8], "big"), begin, tokens, 1))
        if len(self.waiting) >= STRETCH:
            self._spill()

    def _spill(self) -> None:
        """Sort what waits into a file of its own."""
        path = self.directory / f"{DOCUMENTS}.{len(self.sorted)}"
        _once(np.array(self.waiting, RECORD)).tofile(path)
        self.sorted.append(_records(path))
        self.waiting = []

    def write(self) -> "Repeated":
        """Merge what was sorted; answers what occurs more than once."""
        self._spill()
        repeated = Repeated()
        with (self.directory / DOCUMENTS).open("wb") as file:
            for stretch in _stretches(self.sorted):
                records = _once(np.concatenate(stretch))
                repeated.add(records)
                file.write(records.tobytes())
        for number in range(len(self.sorted)):
            (self.directory / f"{DOCUMENTS}.{number}").unlink()
        return repeated


_MOST_RUNS = 8
_RUN = 2**16


@dataclass
class SeenDocuments:
    """The documents so far, to tell which is new: 8 bytes for each different one, in sorted runs that are merged."""

    runs: list[np.ndarray] = field(default_factory=list)
    newest: set[int] = field(default_factory=set)

    def is_new(self, digest: bytes) -> bool:
        """Whether a document was not seen before; it is from now on."""
        key = int.from_bytes(digest[:8], "big")
        if key in self.newest or any(holds(run, digest) for run in self.runs):
            return False
        self.newest.add(key)
        if len(self.newest) == _RUN:
            self.runs.append(np.sort(np.fromiter(self.newest, np.uint64, _RUN)))
            self.newest = set()
        if len(self.runs) > _MOST_RUNS:
            self.runs = [np.sort(np.concatenate(self.runs))]
        return True


def holds(rising: np.ndarray, digest: bytes) -> bool:
    """Whether a document is among those of rising 64-bit digests."""
    key = np.uint64(int.from_bytes(digest[:8], "big"))
    at = int(np.searchsorted(rising, key))
    return at < len(rising) and rising[at] == key


@dataclass
class Repeated:
    """Documents that occur more than once in a domain.

    Attributes:
        documents: copies beside the first.
        tokens: training tokens of these copies.
        most: the records of the documents with the most copies.
    """

    documents: int = 0
    tokens: int = 0
    most: np.ndarray = field(default_factory=lambda: np.empty(0, RECORD))

    def add(self, records: np.ndarray) -> None:
        """Count different documents in."""
        beside = records["copies"].astype(np.int64) - 1
        self.documents += int(beside.sum())
        self.tokens += int(beside @ records["tokens"].astype(np.int64))
        candidates = np.concatenate((self.most, records[beside > 0]))
        self.most = candidates[np.argsort(-candidates["copies"].astype(np.int64), kind="stable")[:EXAMPLES]]


@dataclass(frozen=True)
class SharedText:
    """Documents that several domains hold.

    Attributes:
        domains: sorted names.
        documents: how many different ones.
        tokens: `{domain: training tokens of them, each counted once}`.
        begins: where some of them begin in the first domain's training tokens, with their lengths.
    """

    domains: tuple[str, ...]
    documents: int
    tokens: Mapping[str, int]
    begins: tuple[tuple[int, int], ...]


def shared_texts(indexes: Mapping[str, Path]) -> list[SharedText]:
    """What domains have in common, from their ``documents.bin``, for each set of domains that holds the same.

    The sets are disjoint: a document counts in the set of all domains that hold it. Most tokens first.

    Raises:
        DataMissing: an index that cannot be read.
    """
    names = sorted(indexes)
    files = [_records(indexes[name]) for name in names]
    # A set of domains is told by the sum of a number of each, which are far too long to meet by chance.
    keys = np.random.Generator(np.random.PCG64(0)).integers(0, 2**64, len(names), np.uint64)
    found: dict[int, SharedText] = {}
    for stretch in _stretches(files):
        owner = np.repeat(np.arange(len(names)), [len(part) for part in stretch])
        records = np.concatenate(stretch)
        order = np.argsort(records["digest"], kind="stable")
        records, owner = records[order], owner[order]
        starts = _firsts(records["digest"])
        sizes = np.diff(np.append(starts, len(records)))
        sets = np.repeat(np.add.reduceat(keys[owner], starts) if len(starts) else keys[:0], sizes)
        shared = np.repeat(sizes > 1, sizes)
        for key in np.unique(sets[shared]).tolist():
            part = shared & (sets == key)
            found[key] = _joined(found.get(key), _shared(names, records[part], owner[part]))
    return sorted(found.values(), key=lambda text: (-max(text.tokens.values()), text.domains))


def _shared(names: Sequence[str], records: np.ndarray, owner: np.ndarray) -> SharedText:
    domains: list[int] = np.unique(owner).tolist()
    first = records[(owner == domains[0]) & (records["begin"] != HELD_OUT)][:EXAMPLES]
    return SharedText(
        domains=tuple(names[domain] for domain in domains),
        documents=len(records) // len(domains),
        tokens={
            names[domain]: int(records["tokens"][owner == domain].sum(dtype=np.int64)) for domain in domains
        },
        begins=tuple(zip(first["begin"].tolist(), first["tokens"].tolist(), strict=True)),
    )


def _joined(one: SharedText | None, other: SharedText) -> SharedText:
    if one is None:
        return other
    tokens = {name: count + other.tokens[name] for name, count in one.tokens.items()}
    begins = (one.begins + other.begins)[:EXAMPLES]
    return SharedText(one.domains, one.documents + other.documents, tokens, begins)


def left_to_others(indexes: Mapping[str, Path], giving: Collection[str]) -> dict[str, np.ndarray]:
    """`{domain: rising 64-bit digests}` of what each of the ``giving`` domains holds and leaves to another domain.

    A document stays with every domain that gives nothing away; where all that hold it would, with the one of the
    fewest different documents, and of two of the same size with the first by name. The order of counting plays no
    part.

    Raises:
        DataMissing: an index that cannot be read.
    """
    files = {name: _records(path) for name, path in indexes.items()}
    names = sorted(files, key=lambda name: (name in giving, len(files[name]), name))
    left: dict[str, list[np.ndarray]] = {name: [] for name in names if name in giving}
    for stretch in _stretches([files[name] for name in names]):
        rank = np.repeat(np.arange(len(names)), [len(part) for part in stretch])
        digests = np.concatenate([part["digest"] for part in stretch])
        order = np.lexsort((rank, digests))
        rank, digests = rank[order], digests[order]
        again = np.ones(len(digests), bool)
        again[_firsts(digests)] = False
        for number, name in enumerate(names):
            if name in left:
                left[name].append(digests[again & (rank == number)])
    return {name: np.concatenate(parts) for name, parts in left.items() if any(map(len, parts))}


def _records(path: Path) -> np.ndarray:
    try:
        size = path.stat().st_size
        return np.memmap(path, RECORD, mode="r") if size else np.empty(0, RECORD)
    except (OSError, ValueError) as error:
        raise DataMissing(path, f"is not readable ({error}); prepare the domain again") from error


def _stretches(files: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """The records of sorted files, a range of digests at a time: digests are spread evenly."""
    number = max(1, -(-sum(map(len, files)) // STRETCH))
    ends = [0] * len(files)
    for part in range(1, number + 1):
        begins = ends
        ends = [_first_from(file, part * 2**64 // number) for file in files]
        yield [np.array(file[begin:end]) for file, begin, end in zip(files, begins, ends, strict=True)]


def _first_from(file: np.ndarray, border: int) -> int:
    """Where the first record with a digest of at least the border lies: a few looks, however long the file is."""
    return bisect_left(range(len(file)), border, key=lambda at: int(file["digest"][at]))


def _firsts(digests: np.ndarray) -> np.ndarray:
    """Where each new one begins among sorted digests."""
    return np.flatnonzero(np.append(True, digests[1:] != digests[:-1])[: len(digests)])


def _once(records: np.ndarray) -> np.ndarray:
    """A record for each different document, sorted; copies add up, and the first one trained on stands for all."""
    records = records[np.lexsort((records["begin"] == HELD_OUT, records["digest"]))]
    starts = _firsts(records["digest"])
    different = records[starts]
    if len(starts):
        different["copies"] = np.add.reduceat(records["copies"], starts)
    return different
