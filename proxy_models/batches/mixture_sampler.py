"""Batches drawn from a mixture of token shards; (seed, step) is the whole state. Free of torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proxy_models.batches.row_order import RowOrder
from proxy_models.errors import InvalidSpec, MissingDomain, OverCap, TooLittleText, UnknownDomain
from proxy_models.training.schedule import Schedule, allocate_rows

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

    def realised_tokens(self, steps: int | None = None) -> dict[str, int]:
        """Tokens of each domain trained on in the first ``steps`` steps (default: all)."""
        steps = self.spec.steps if steps is None else steps
        rows = self.schedule.rows_before(steps * self.spec.batch_rows)
        return {name: int(n) * self.spec.sequence_length for name, n in zip(self.names, rows, strict=True)}


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


CHUNK_BYTES = 2**22
"""Tokens gathered at once, as the shards store them, so that a domain's rows of many steps are one index."""


class WaveSampler:
    """``batch(step)`` of every sampler, in one array.

    Rows are gathered some steps ahead, all rows of a domain at once; where no step is asked for out of turn, none is
    gathered twice. Samplers of one seed share a domain's `RowOrder`, so that N of them keep one permutation. Raises
    `InvalidSpec` for samplers of unequal steps, rows or length.
    """

    def __init__(self, samplers: Sequence[MixtureSampler]) -> None:
        if not samplers:
            raise InvalidSpec("a wave needs at least one sampler", "samplers")
        first = samplers[0].spec
        for field in ("steps", "batch_rows", "sequence_length"):
            for member, sampler in enumerate(samplers):
                if (found := getattr(sampler.spec, field)) != (expected := getattr(first, field)):
                    raise InvalidSpec(
                        f"sampler {member} has {field} {found}, the first has {expected}", field
                    )
        self.steps, self.rows = first.steps, first.batch_rows
        self.samplers = samplers
        self._sources = _Sources(samplers)
        shape = (len(samplers), self.rows, first.sequence_length + 1)
        self._batch = np.empty(shape, dtype=np.int64)
        step_bytes = self._batch.size * self._sources.dtype.itemsize
        self._chunk = np.empty(
            (min(self.steps, max(1, CHUNK_BYTES // step_bytes)), *shape), self._sources.dtype
        )
        self._gathered = range(0)

    def batch(self, step: int) -> np.ndarray:
        """Rows of the step (counted from 0): (N, batch_rows, T + 1) int64, which the next call overwrites."""
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
        """From (N, steps * rows) to the chunk's order, (steps * N * rows,)."""
        return plan.reshape(len(plan), -1, self.rows).swapaxes(0, 1).ravel()


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
