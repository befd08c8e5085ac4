"""litdata (LitGPT): `CombinedStreamingDataset` draws rows by chance, but by the same chance in every epoch.

Its epoch ends as soon as one domain is read to its end, and the next begins with the same seed: the same rows of the
same domains in the same order. With a small domain in the mixture an epoch is short, so what chance made of the
weights stays so for the whole run. The draws follow from the seed, so the report has them exactly; and the seed
written is the one of `_SEEDS` whose draws lie nearest to the weights.
"""

import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from exchange.formats.base import Blend, Format

_SEEDS, _DRAWN = 200, 20_000
"""Seeds that are tried: so many, or of a mixture over many domains as many as draw so many domains' rows."""
_LONGEST = 100_000
"""Rows of an epoch that are followed; a longer one is within chance of its weights, .3% at most."""


class LitData(Format):
    """What `CombinedStreamingDataset` is called with, as JSON; needs a folder and the tokens of every domain."""

    name = "litdata"
    title = "litdata 0.2.76 (LitGPT)"
    file = "combined.json"
    unit = "rows"
    checked = "drawn with litdata 0.2.76"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        told = {
            "datasets": [{"input_dir": paths[0]} for paths in blend.each("paths")],
            "weights": [source.weight for source in blend.sources],
            "seed": _best_seed(blend)[0],
            # With it the weights are refused.
            "iterate_over_all": False,
        }
        return {self.file: json.dumps(told, indent=2) + "\n"}

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        drawn = _run(_best_seed(blend)[1], blend.rows, len(blend.sources))
        return (drawn * float(blend.sequence_length)).tolist()


@lru_cache(maxsize=1)
def _best_seed(blend: Blend) -> tuple[int, np.ndarray]:
    """The seed, and the domain of every row of its epoch."""
    weights = np.array([source.weight for source in blend.sources])
    rows = np.array([int(tokens) // blend.sequence_length for tokens in blend.each("tokens")])
    best: tuple[float, int, np.ndarray] | None = None
    tried = min(_SEEDS, max(1, _DRAWN // len(weights)))
    for seed in range(blend.seed, blend.seed + tried):
        epoch = _epoch(seed, weights, rows, blend.rows)
        error = float(np.abs(_run(epoch, blend.rows, len(weights)) / blend.rows - weights).max())
        if best is None or error < best[0]:
            best = error, seed, epoch
    assert best is not None
    return best[1], best[2]


def _epoch(seed: int, weights: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """The domain of every row until one has no more, as `random.Random(seed).choices` draws them."""
    # NumPy's Mersenne twister, seeded by an array, is Python's, and draws a hundred times as fast.
    uniform = np.random.RandomState([seed]).random_sample(min(most, _LONGEST))
    order = np.minimum(
        np.searchsorted(np.cumsum(weights), uniform * weights.sum(), side="right"), len(rows) - 1
    )
    short = np.flatnonzero(np.bincount(order, minlength=len(rows)) > rows)
    return order[: min([len(order), *(np.flatnonzero(order == j)[rows[j]] for j in short)])]


def _run(epoch: np.ndarray, rows: int, domains: int) -> np.ndarray:
    """(m,) rows of each domain in a run of so many: whole epochs and the beginning of one."""
    if not len(epoch):
        return np.zeros(domains)
    whole, rest = divmod(rows, len(epoch))
    counts = np.bincount(epoch, minlength=domains)
    return whole * counts + np.bincount(epoch[:rest], minlength=domains)
