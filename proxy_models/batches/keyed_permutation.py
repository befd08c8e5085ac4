"""A permutation that is computed, not stored: any element of it in constant time and no memory. Free of torch."""

import numpy as np

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
