"""How many directions of what is searched no older run has moved in: what is left to learn.

Two kinds of contents are unknown: those that no run varied, and those that all runs varied in one proportion, as
the parts of a domain that was split since were. Of contents that moved together one direction is known; a mixture
that divides them otherwise moves in another. Whether there were enough runs for what they moved in is another
question, which the regression answers (`mixing.reuse.reuse.least_new_runs`).
"""

import numpy as np

from mixing.answer.warnings import UNVARIED

_OF_LARGEST = 0.05
"""Of the weight a content may have, the standard deviation over the runs that tells of it."""
_ALIKE = 1e-9
"""Columns of length 1 that differ by no more are one direction."""


def unknown_directions(searched: np.ndarray, points: np.ndarray, largest: np.ndarray) -> int:
    """Directions of the searched mixtures that the runs have not moved in.

    Args:
        searched: (n, c) over the contents, one row for each of what is searched.
        points: (K, c) the runs.
        largest: (c,) the most a content may weigh: one that may be a trace only has moved when it moved so little.
    """
    if not len(points):
        return len(searched) - 1
    spread = points.std(axis=0)
    moved = (spread > 0) & (spread >= np.minimum(UNVARIED, _OF_LARGEST * largest))
    unknown = _rank(searched[:, ~moved])
    for together in _proportional(points, np.flatnonzero(moved)):
        known = points[:, together].sum(axis=0)
        unknown += _rank(np.vstack([known / known.sum(), searched[:, together]])) - 1
    return unknown


def _proportional(points: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
    """Sets of more than one of the columns that are multiples of each other."""
    lengths = np.linalg.norm(points[:, columns], axis=0)
    signature = (points[:, columns] / lengths).T @ np.cos(np.arange(len(points)))
    order = np.argsort(signature, kind="stable")
    breaks = np.flatnonzero(np.diff(signature[order]) > _ALIKE) + 1
    return [columns[group] for group in np.split(order, breaks) if len(group) > 1]


def _rank(rows: np.ndarray) -> int:
    present = rows[rows.any(axis=1)]
    return int(np.linalg.matrix_rank(present)) if present.size else 0
