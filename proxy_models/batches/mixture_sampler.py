"""Batches drawn from a mixture of token shards; (seed, step) is the whole state. Free of torch."""

import math
from collections.abc import Mapping
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
