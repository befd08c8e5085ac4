"""Keeps the tasks out of the training text: a document that shares a run of words with a task is left out.

Thirteen words is the run that GPT-3 (arXiv 2005.14165, appendix C) takes for contamination.
"""

from collections.abc import Iterable

RUN_WORDS = 13
PROBE_WORDS = RUN_WORDS // 2 + 1
"""Any common run of `RUN_WORDS` words holds a probe that starts at a multiple of this in the document."""


class TaskText:
    """The word runs of all tasks, to hold documents against."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._probes: set[tuple[str, ...]] = set()
        self._runs: set[tuple[str, ...]] = set()
        for text in texts:
            words = text.split()
            self._probes.update(_runs(words, PROBE_WORDS))
            self._runs.update(_runs(words, RUN_WORDS))

    def shares_a_run(self, document: str) -> bool:
        """Whether `RUN_WORDS` consecutive words of the document are consecutive words of a task."""
        words = document.split()
        starts = range(0, len(words) - PROBE_WORDS + 1, PROBE_WORDS)
        return any(
            tuple(words[start : start + PROBE_WORDS]) in self._probes and self._runs_around(words, start)
            for start in starts
        )

    def _runs_around(self, words: list[str], start: int) -> bool:
        first = max(0, start + PROBE_WORDS - RUN_WORDS)
        around = words[first : start + RUN_WORDS]
        return any(run in self._runs for run in _runs(around, RUN_WORDS))


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
