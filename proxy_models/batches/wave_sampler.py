"""The batches of N samplers of one shape, drawn together: the rows are those of each alone. Free of torch."""

from collections.abc import Sequence

import numpy as np

from proxy_models.batches.mixture_sampler import MixtureSampler
from proxy_models.batches.row_order import RowOrder
from proxy_models.errors import InvalidSpec

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
