"""Batches drawn from a mixture of token shards; (seed, step) is the whole state. Free of torch."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proxy_models.errors import InvalidSpec, MissingDomain, OverCap, TooLittleText, UnknownDomain
from proxy_models.training.run_spec import digest_of

# Which domain each row of a run comes from: exact shares, evenly interleaved, any block in isolation.


def allocate_rows(weights: np.ndarray, rows: int, caps: np.ndarray) -> np.ndarray:
    """Rows per domain by largest remainder: within one row of ``weights * rows`` or at the cap, never above it.

    A domain that would get no row though it wants half of one goes before those that have some.
    What full caps leave over goes to the other weighted domains, those furthest below their request first.

    ``weights`` (m,) sum to 1; ``caps`` (m,) are whole rows and at least ``floor(weights * rows)``, which the caller
    has checked. Returns (m,) int64 summing to ``rows``. Ties go to the earlier domain. Raises `InvalidSpec` where
    all caps together leave no room, and where there are fewer rows than weighted domains.
    """
    if rows < (weighted := np.count_nonzero(weights)):
        raise InvalidSpec(
            f"{rows} rows cannot hold {weighted} domains: some would be trained on no text; train on more tokens, or"
            " in shorter sequences",
            "tokens",
        )
    ideal = weights * rows
    share = np.floor(ideal * (1 + 1e-12)).astype(np.int64)
    share = np.minimum(share, caps)
    for _ in range(int(rows - share.sum())):
        lacking = (share == 0) & (ideal >= 0.5)
        remainder = np.where((share < caps) & (weights > 0), ideal - share + lacking, -np.inf)
        best = int(np.argmax(remainder))
        if remainder[best] == -np.inf:
            raise InvalidSpec(f"the repetition caps leave room for fewer than {rows} rows", "max_epochs")
        share[best] += 1
    return share


class Schedule:
    """The domain of every row, in blocks of `BLOCK_ROWS`.

    Row i of a domain with n rows wants the time (i + 1/2) / n; rows come in the order of their times, ties by
    domain. So any stretch of training holds each domain to within about a row of its share.
    """

    BLOCK_ROWS = 4096

    def __init__(self, rows: Sequence[int] | np.ndarray) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.total = int(self.rows.sum())
        self._block_number = -1
        self._block = (np.empty(0, np.int64), np.empty(0, np.int64))

    def rows_between(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """(domain index, row number within the domain) of the rows ``start <= g < stop``, each (stop - start,)."""
        domains, ordinals = [], []
        while start < stop:
            number, offset = divmod(start, self.BLOCK_ROWS)
            if number != self._block_number:
                self._block = self._compute(number * self.BLOCK_ROWS)
                self._block_number = number
            end = min(stop - number * self.BLOCK_ROWS, self.BLOCK_ROWS)
            domains.append(self._block[0][offset:end])
            ordinals.append(self._block[1][offset:end])
            start = number * self.BLOCK_ROWS + end
        return np.concatenate(domains), np.concatenate(ordinals)

    def _counts_before(self, time: float) -> np.ndarray:
        """Rows of each domain due before ``time``, give or take one."""
        return np.clip(np.floor(self.rows * time + 0.5).astype(np.int64), 0, self.rows)

    def _compute(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """The block from row ``start``: begin safely early, list what is due, sort, drop the surplus."""
        count = min(self.BLOCK_ROWS, self.total - start)
        early = max(0.0, (start - 3 * len(self.rows)) / self.total)
        late = min(1.0, (start + count + 3 * len(self.rows)) / self.total)
        first = np.maximum(self._counts_before(early) - 1, 0)
        last = np.minimum(self._counts_before(late) + 1, self.rows)
        lengths = last - first
        domains = np.repeat(np.arange(len(self.rows)), lengths)
        ordinals = np.arange(len(domains)) - np.repeat(np.cumsum(lengths) - lengths - first, lengths)
        times = (ordinals + 0.5) / self.rows[domains]
        order = np.lexsort((domains, times))
        skip = start - int(first.sum())
        chosen = order[skip : skip + count]
        return domains[chosen], ordinals[chosen]


# A permutation that is computed, not stored: any element of it in constant time and no memory.

ROUNDS = 8


def permuted(index: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """The images of ``index`` (k,) under a permutation of 0..size-1 that ``key`` (2,) uint64 chooses: (k,) int64.

    A Feistel network (Luby and Rackoff 1988) over the smallest even number of bits that holds ``size``, with the
    finalizer of SplitMix64 (Steele, Lea and Flood 2014) in each round; what falls outside is sent through again until
    it is inside ("cycle walking", Black and Rogaway 2002), 4 times on average at worst. ``size`` is at most 2**62.
    """
    half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    keys = np.random.Philox(key=key).random_raw(ROUNDS + 1)[1:]  # the first draw is the epoch's offset
    images = _network(index.astype(np.uint64), half, keys)
    while (outside := np.flatnonzero(images >= size)).size:
        images[outside] = _network(images[outside], half, keys)
    return images.astype(np.int64)


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


# The order in which the rows of a domain are trained on: a permutation an epoch, drawn from names. Free of torch.

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
    order is `permuted` by the same key, which takes no memory.
    """

    def __init__(self, domain: str, length: int, sequence_length: int, seed: int) -> None:
        self.domain, self.sequence_length, self.seed = domain, sequence_length, seed
        self.rows_per_epoch = max(0, length - 1) // sequence_length
        self.slack = max(0, length - 1) - self.rows_per_epoch * sequence_length
        self._epochs: OrderedDict[int, tuple[int, np.ndarray]] = OrderedDict()
        self._kept = max(2, KEPT_ROWS // max(1, self.rows_per_epoch))

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
        starts = np.empty(len(rows), dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            starts[here] = self._starts(epoch, index[here])
        return starts

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


WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class SamplerSpec:
    """What to sample.

    ``tokens`` holds each domain's training tokens, (N_j,) integers; ``mixture`` a weight for each of the same
    names. ``max_epochs`` bounds the tokens trained on in a domain to that many times N_j (None: no bound).
    """

    tokens: Mapping[str, np.ndarray]
    mixture: Mapping[str, float]
    steps: int
    batch_rows: int
    sequence_length: int
    seed: int
    max_epochs: float | None = None


class MixtureSampler:
    """Deterministic batches of a mixture.

    Raises, before anything is drawn: `UnknownDomain`, `MissingDomain`, `InvalidSpec` (weights), `TooLittleText`
    (a weighted domain without one row) and `OverCap`, all naming the domain.
    """

    def __init__(self, spec: SamplerSpec) -> None:
        self.spec = spec
        self.names = tuple(sorted(spec.tokens))
        weights = _weights(spec, self.names)
        lengths = np.array([len(spec.tokens[name]) for name in self.names], dtype=np.int64)
        self.schedule = Schedule(
            allocate_rows(weights, spec.steps * spec.batch_rows, self._caps(weights, lengths))
        )
        self.orders = [
            RowOrder(name, int(length), spec.sequence_length, spec.seed)
            for name, length in zip(self.names, lengths, strict=True)
        ]
        for order, rows in zip(self.orders, self.schedule.rows, strict=True):
            if rows and not order.rows_per_epoch:
                raise TooLittleText(
                    order.domain, f"it has no row of {spec.sequence_length + 1} training tokens"
                )

    def _caps(self, weights: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Most rows of each domain; a request beyond the cap by a row or more is refused."""
        spec = self.spec
        rows = spec.steps * spec.batch_rows
        if spec.max_epochs is None:
            return np.full(len(self.names), rows, dtype=np.int64)
        caps = np.floor(spec.max_epochs * lengths / spec.sequence_length * (1 + 1e-12)).astype(np.int64)
        for name, weight, length, cap in zip(self.names, weights, lengths, caps, strict=True):
            if weight * rows >= cap + 1:
                requested = round(weight * rows * spec.sequence_length)
                raise OverCap(name, requested, int(length), spec.max_epochs)
        return caps

    def batch(self, step: int) -> np.ndarray:
        """Rows of the step (counted from 0): (batch_rows, sequence_length + 1) int64."""
        spec = self.spec
        first = step * spec.batch_rows
        batch = np.empty((spec.batch_rows, spec.sequence_length + 1), dtype=np.int64)
        domains, ordinals = self.schedule.rows_between(first, first + spec.batch_rows)
        for row, (domain, ordinal) in enumerate(zip(domains.tolist(), ordinals.tolist(), strict=True)):
            start = self.orders[domain].start(ordinal)
            batch[row] = spec.tokens[self.names[domain]][start : start + spec.sequence_length + 1]
        return batch

    def realised_tokens(self) -> dict[str, int]:
        """Tokens of each domain trained on in all steps."""
        rows = self.schedule.rows.tolist()
        return {name: n * self.spec.sequence_length for name, n in zip(self.names, rows, strict=True)}


def _weights(spec: SamplerSpec, names: tuple[str, ...]) -> np.ndarray:
    for name in spec.mixture:
        if name not in spec.tokens:
            raise UnknownDomain(name)
    for name in names:
        if name not in spec.mixture:
            raise MissingDomain(name)
        if not (math.isfinite(spec.mixture[name]) and spec.mixture[name] >= 0):
            raise InvalidSpec(f"the weight of domain {name!r} is {spec.mixture[name]}", "mixture")
    weights = np.array([spec.mixture[name] for name in names], dtype=np.float64)
    if not names or abs(weights.sum() - 1) > WEIGHT_TOLERANCE:
        raise InvalidSpec(f"the weights sum to {weights.sum():.8f}, not 1", "mixture")
    return weights / weights.sum()


# The batches of N samplers of one shape, drawn together: the rows are those of each alone. Free of torch.

CHUNK_BYTES = 2**22
"""Tokens gathered at once, as the shards store them, so that a domain's rows of many steps are one index."""


class WaveSampler:
    """``batch(step)`` of every sampler, in one array.

    Rows are gathered some steps ahead, all rows of a domain at once; where no step is asked for out of turn, none is
    gathered twice. Samplers of one seed share a domain's `RowOrder`, so that N of them keep one permutation. Of
    ``own`` rows of every batch only those are read: the share of one of several processes. Raises
    `InvalidSpec` for samplers of unequal steps, rows or length.
    """

    def __init__(self, samplers: Sequence[MixtureSampler], own: slice = slice(None)) -> None:
        if not samplers:
            raise InvalidSpec("a wave needs at least one sampler", "samplers")
        first = samplers[0].spec
        for field in ("steps", "batch_rows", "sequence_length"):
            for member, sampler in enumerate(samplers):
                if (value := getattr(sampler.spec, field)) != (expected := getattr(first, field)):
                    raise InvalidSpec(
                        f"sampler {member} has {field} {value}, the first has {expected}", field
                    )
        self.steps, self.rows = first.steps, first.batch_rows
        self.samplers = samplers
        self._sources = _Sources(samplers)
        self.own = range(self.rows)[own]
        shape = (len(samplers), len(self.own), first.sequence_length + 1)
        self._batch = np.empty(shape, dtype=np.int64)
        step_bytes = self._batch.size * self._sources.dtype.itemsize
        self._chunk = np.empty(
            (min(self.steps, max(1, CHUNK_BYTES // step_bytes)), *shape), self._sources.dtype
        )
        self._gathered = range(0)

    def batch(self, step: int) -> np.ndarray:
        """Own rows of the step (counted from 0): (N, rows, T + 1) int64, which the next call overwrites."""
        if not 0 <= step < self.steps:
            raise InvalidSpec(f"step {step} of a run of {self.steps}", "step")
        if step not in self._gathered:
            self._gather(step)
        np.copyto(self._batch, self._chunk[step - self._gathered.start])
        return self._batch

    def _gather(self, step: int) -> None:
        """Fill the chunk with the steps from ``step``."""
        stop = min(self.steps, step + len(self._chunk))
        plans = [s.schedule.rows_between(step * self.rows, stop * self.rows) for s in self.samplers]
        domains, ordinals = (np.stack(part) for part in zip(*plans, strict=True))  # (N, steps * rows)
        sources = np.take_along_axis(self._sources.of, domains, axis=1)
        out = self._chunk.reshape(-1, self._chunk.shape[-1])
        self._sources.read(self._steps_first(sources), self._steps_first(ordinals), out)
        self._gathered = range(step, stop)

    def _steps_first(self, plan: np.ndarray) -> np.ndarray:
        """From (N, steps * rows) to the chunk's order, (steps * N * own rows,)."""
        batches = plan.reshape(len(plan), -1, self.rows)[:, :, self.own.start : self.own.stop]
        return batches.swapaxes(0, 1).ravel()


class _Sources:
    """A domain's tokens in the order of one seed, each once; ``of`` (N, m) says which is which sampler's domain."""

    def __init__(self, samplers: Sequence[MixtureSampler]) -> None:
        self.orders: list[RowOrder] = []
        self.windows: list[np.ndarray] = []  # (rows that could be, T + 1) views of the tokens
        numbers: dict[tuple[str, int, int], int] = {}
        of = []
        for sampler in samplers:
            spec = sampler.spec
            for name, order in zip(sampler.names, sampler.orders, strict=True):
                key = (name, spec.seed, id(spec.tokens[name]))
                if key not in numbers:
                    numbers[key] = len(self.orders)
                    self.orders.append(order)
                    self.windows.append(_windows(spec.tokens[name], spec.sequence_length + 1))
                of.append(numbers[key])
        self.of = np.array(of).reshape(len(samplers), -1)
        self.dtype = np.result_type(*self.windows)

    def read(self, sources: np.ndarray, ordinals: np.ndarray, out: np.ndarray) -> None:
        """Row ``ordinals[i]`` of source ``sources[i]`` into ``out[i]``."""
        by_source = np.argsort(sources, kind="stable")
        used, firsts = np.unique(sources[by_source], return_index=True)
        for source, places in zip(used.tolist(), np.split(by_source, firsts[1:]), strict=True):
            out[places] = self.windows[source][self.orders[source].starts_of(ordinals[places])]


def _windows(tokens: np.ndarray, length: int) -> np.ndarray:
    """Every stretch of ``length`` tokens as a row, without a copy: (len(tokens) - length + 1, length)."""
    plain = np.asarray(tokens).view(np.ndarray)  # indexing a memmap costs more than reading a row
    if len(plain) < length:
        return np.empty((0, length), plain.dtype)
    return np.lib.stride_tricks.sliding_window_view(plain, length)
