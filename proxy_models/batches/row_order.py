"""The order in which the rows of a domain are trained on: a permutation an epoch, drawn from names. Free of torch."""

from collections import OrderedDict

import numpy as np

from proxy_models.training.run_spec import digest_of

ROUNDS = 8


def permuted(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """The images of ``index`` (k,) under a permutation of 0..size-1 that ``key`` (2,) uint64 chooses: (k,) int64.

    A Feistel network (Luby and Rackoff 1988) over the smallest even number of bits that holds ``size``, with the
    finalizer of SplitMix64 (Steele, Lea and Flood 2014) in each round; what falls outside is sent through again until
    it is inside ("cycle walking", Black and Rogaway 2002), 4 times on average at worst. ``size`` is at most 2**62.
    """
    half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    keys = np.random.Philox(key=key).random_raw(ROUNDS + 1)[1:]  # the first draw is the epoch's offset
    found = _network(index.astype(np.uint64), half, keys)
    while (outside := np.flatnonzero(found >= size)).size:
        found[outside] = _network(found[outside], half, keys)
    return found.astype(np.int64)


def _network(values: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << half) | right


def _mixed(words: np.ndarray) -> np.ndarray:
    """64 bits that depend on all of each word's."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


DRAWN_ROWS = 2**22
"""Epochs of at most so many rows (16 MiB as kept) are drawn and sorted; longer ones are permuted row by row."""

KEPT_ROWS = 2**18
"""Drawn rows kept of past epochs of a domain; the last two epochs always are, whatever their length."""


class RowOrder:
    """The rows of one domain: T + 1 tokens each, overlapping by one, epoch after epoch.

    An epoch of N tokens has floor((N - 1) / T) rows from an offset drawn for the epoch, in an order drawn for the
    epoch. Both depend on (seed, domain, epoch) alone, so runs of one seed see a domain's text in the same order
    whatever their mixtures: their differences carry less noise. Draws are raw Philox output, which NumPy keeps
    stable across versions, sorted; beyond `DRAWN_ROWS` rows, where that would take 24 bytes a row and minutes, the
    order is a `keyed_permutation` of the same key, which takes no memory.
    """

    def __init__(self, domain: str, length: int, sequence_length: int, seed: int) -> None:
        self.domain, self.sequence_length, self.seed = domain, sequence_length, seed
        self.rows_per_epoch = max(0, length - 1) // sequence_length
        self.slack = max(0, length - 1) - self.rows_per_epoch * sequence_length
        self._epochs: OrderedDict[int, tuple[int, np.ndarray]] = OrderedDict()
        self._kept = max(2, KEPT_ROWS // max(1, self.rows_per_epoch))

    def starts(self, epoch: int) -> np.ndarray:
        """Where each row of an epoch starts in the shard: (rows_per_epoch,) int64, in training order."""
        return self._starts(epoch, np.arange(self.rows_per_epoch))

    def start(self, row: int) -> int:
        """Where the ``row``-th row of the run starts."""
        epoch, index = divmod(row, self.rows_per_epoch)
        if self.rows_per_epoch > DRAWN_ROWS:
            return int(self._starts(epoch, np.array([index]))[0])
        offset, order = self._drawn(epoch)
        return offset + int(order[index]) * self.sequence_length

    def starts_of(self, rows: np.ndarray) -> np.ndarray:
        """Where the given rows of the run start: (k,) int64, k >= 1 -> (k,) int64."""
        first, last = int(rows.min()) // self.rows_per_epoch, int(rows.max()) // self.rows_per_epoch
        if first == last:
            return self._starts(first, rows - first * self.rows_per_epoch)
        epochs, index = np.divmod(rows, self.rows_per_epoch)
        found = np.empty(len(rows), dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            found[here] = self._starts(epoch, index[here])
        return found

    def _starts(self, epoch: int, index: np.ndarray) -> np.ndarray:
        if self.rows_per_epoch > DRAWN_ROWS:
            key = self._key(epoch)
            offset = self._offset(np.random.Philox(key=key).random_raw(1))
            return offset + permuted(index, self.rows_per_epoch, key) * self.sequence_length
        offset, order = self._drawn(epoch)
        return offset + order[index].astype(np.int64) * self.sequence_length

    def _drawn(self, epoch: int) -> tuple[int, np.ndarray]:
        """Offset and order of an epoch; runs of unequal weights are in different epochs of a domain at a time."""
        if epoch not in self._epochs:
            draws = np.random.Philox(key=self._key(epoch)).random_raw(self.rows_per_epoch + 1)
            order = np.argsort(draws[1:], kind="stable").astype(np.uint32)
            self._epochs[epoch] = (self._offset(draws), order)
            if len(self._epochs) > self._kept:
                self._epochs.popitem(last=False)
        self._epochs.move_to_end(epoch)
        return self._epochs[epoch]

    def _key(self, epoch: int) -> np.ndarray:
        return np.frombuffer(digest_of("rows", self.seed, self.domain, epoch)[:16], "<u8")

    def _offset(self, draws: np.ndarray) -> int:
        return int(draws[0] % np.uint64(self.slack + 1))
