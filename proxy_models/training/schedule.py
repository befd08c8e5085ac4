"""Which domain each row of a run comes from: exact shares, evenly interleaved, any block in isolation."""

from collections.abc import Sequence

import numpy as np

from proxy_models.errors import InvalidSpec


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
