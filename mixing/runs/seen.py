"""Recognises a run that is given twice."""

from typing import TYPE_CHECKING

from mixing.errors import DuplicateRun

if TYPE_CHECKING:  # only named here
    from mixing.runs.sound import RunEvidence


class SeenRuns:
    """The runs so far."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._measured: dict[object, list[RunEvidence]] = {}

    def add(self, run: "RunEvidence") -> str | None:
        """Take a run in; answers the id of another that was to train something else and came to the very same rows.

        Such runs are one, honestly come by: short runs have few rows, and those of a swarm share their seed.

        Raises:
            DuplicateRun: its id, or the run itself, was given before.
        """
        if run.id in self._ids:
            raise DuplicateRun(f"run {run.id!r} is given twice", field="runs", names=[run.id])
        said = (tuple(sorted(run.mixture.items())), tuple(sorted(run.metrics.items())))
        for other in self._measured.get(said, ()):
            if run.seed is not None and other.seed is not None and run.seed != other.seed:
                continue
            if run.requested != other.requested:
                return other.id
            raise DuplicateRun(
                f"runs {other.id!r} and {run.id!r} have the same mixture and the same metrics to the last bit, so"
                " they are one run given twice; leave one out, or state the seeds if they are two",
                field="runs",
                names=[other.id, run.id],
            )
        self._ids.add(run.id)
        self._measured.setdefault(said, []).append(run)
        return None
