"""How a number that is minimised is told to people: as it was measured, with the unit and the direction it has there.

Inside, every metric is better when lower; a task that is better when higher was turned on the way in
(`mixing.objective`). Outside, an accuracy is an accuracy. A gain is the same number either way: natural minus
proposed of what is minimised, so positive is better.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixing.objective import Direction, ObjectiveSpec, Turn


@dataclass(frozen=True)
class Sense:
    """Of one task, or of a mean of tasks.

    Attributes:
        turn: how it was turned; None for what is told as it is minimised.
        unit: "BPB", "accuracy" (a share of 1), or None where it has no name, such as a mean of both.
    """

    turn: Turn | None
    unit: str | None

    @property
    def direction(self) -> Direction:
        """Which values are better."""
        return "lower" if self.turn is None else "higher"

    @property
    def suffix(self) -> str:
        """The unit behind a number in a sentence; nothing where it has no name."""
        return f" {self.unit}" if self.unit else ""

    def told(self, value: float) -> float:
        """A minimised value as it is measured."""
        if self.turn is None:
            return value
        return 1 - value if self.turn == "error rate" else -value

    def pair(self, natural: float, proposed: float) -> dict[str, Any]:
        """Two minimised values as they are measured, with unit and direction: for JSON."""
        told = {"natural": self.told(float(natural)), "proposed": self.told(float(proposed))}
        return {"unit": self.unit, "direction": self.direction, **told}

    def interval(self, low: float, high: float) -> list[float]:
        """The ends of an interval of the minimised value as they are measured, the lower first."""
        return sorted([self.told(float(low)), self.told(float(high))])

    def slope(self, values: np.ndarray) -> np.ndarray:
        """Changes of the minimised value as changes of the measured one."""
        return values if self.turn is None else -values


_UNITS: Mapping[Turn | None, str | None] = {None: "BPB", "error rate": "accuracy", "negated": None}


def sense_of(spec: ObjectiveSpec, tasks: Iterable[str]) -> Sense:
    """Of a mean of tasks whose weights sum to 1: theirs where they have one, else that of what is minimised."""
    turns: set[Turn | None] = {spec.turned.get(task) for task in tasks}
    if len(turns) != 1:
        return Sense(None, None)
    turn = turns.pop()
    return Sense(turn, _UNITS[turn])
