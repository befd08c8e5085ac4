"""What the runs and the law fitted to them say of every mixture alike: made once for however many are asked about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from mixing.answer.uncertainty import CONFIDENCE
from mixing.laws.conformal import RunIntervals, fewest_runs
from mixing.laws.learning import Learned
from mixing.runs.evidence import Evidence
from mixing.runs.noise import TaskSignal, rank_tasks
from mixing.runs.table import Groups


@dataclass(frozen=True)
class Standing:
    """How well the law predicts a new run of each task, and what tells the runs apart.

    Attributes:
        enough: (C + 1,) the columns, the objective's last, that enough runs measured; none without refits.
        misses: how far these were missed; None without refits.
        signals: by task, what tells runs apart, of the tasks whose noise is known.
        laws: (C,) `{law: its share}` of each column where it is an average of several; empty where it is one law.
        runs: (C,) how many measured each column.
    """

    enough: np.ndarray
    misses: RunIntervals | None
    signals: Mapping[str, TaskSignal]
    laws: tuple[Mapping[str, float], ...]
    runs: np.ndarray

    @classmethod
    def of(cls, learned: Learned) -> Self:
        """Of a fit."""
        evidence = learned.evidence
        enough, misses = _misses(learned)
        return cls(
            enough, misses, _signals(evidence), learned.law.parts(), evidence.table.measured.sum(axis=0)
        )

    def expected(self, groups: Groups, at: np.ndarray) -> np.ndarray:
        """(2, C + 1) where one more run is expected that is predicted at (C,) `at`; NaN with too few runs."""
        ends = np.full((2, len(self.enough)), np.nan)
        if self.misses is not None:
            ends[:, self.enough] = np.concatenate(
                self.misses.around(groups.with_value(at)[None, self.enough])
            )
        return ends


def _misses(learned: Learned) -> tuple[np.ndarray, RunIntervals | None]:
    refits, widened = learned.refits, learned.evidence.groups.with_value
    if refits is None:
        return np.zeros(len(learned.evidence.table.names) + 1, bool), None
    measured = widened(refits.measured)
    enough = np.isfinite(measured).sum(axis=0) >= fewest_runs(CONFIDENCE)
    predicted = widened(refits.predicted)[:, :, enough]
    return enough, RunIntervals.of(predicted, measured[:, enough], CONFIDENCE)


def _signals(evidence: Evidence) -> dict[str, TaskSignal]:
    found = {}
    for task, values, noise in zip(evidence.tasks, evidence.metrics.T, evidence.noise, strict=True):
        measured = values[np.isfinite(values)]
        if np.isfinite(noise) and measured.mean() > 0:
            (found[task],) = rank_tasks([task], measured[:, None], noise[None])
    return found
