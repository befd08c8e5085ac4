"""Which way a metric is better, what it is measured in, and how both are said to people.

Inside, everything is better when lower; outside, an accuracy is an accuracy.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mixing.domains import HELD_OUT_PREFIX

if TYPE_CHECKING:
    from mixing.objective import ObjectiveSpec

Direction = Literal["lower", "higher"]
"""Which values of a metric are better."""
Turn = Literal["error rate", "negated"]
"""How a higher-is-better metric becomes lower-is-better: 1 - value (a share of 1, such as an accuracy) or -value."""


def turned(value: float, turn: Turn | None) -> float:
    """A measured value as it is minimised, and a minimised one as it is measured."""
    if turn is None:
        return value
    return 1 - value if turn == "error rate" else -value


@dataclass(frozen=True)
class Sense:
    """How a number that is minimised is shown: as it was measured, with the unit and the direction it has there.

    Of one task, or of a mean of tasks. A gain is the same number either way: natural minus proposed of what is
    minimised, so positive is better.

    Attributes:
        turn: how it was turned; None for what is shown as it is minimised.
        unit: "BPB", "accuracy" (a share of 1) or what was stated; None where there is none, as for a mean of both.
    """

    turn: Turn | None
    unit: str | None

    @property
    def direction(self) -> Direction:
        """Which values are better."""
        return "lower" if self.turn is None else "higher"

    def in_words(self, value: float) -> str:
        """A minimised value as a sentence says it."""
        return self.change(self.measured(value))

    def change(self, amount: float, sign: str = "") -> str:
        """A difference of values as a sentence says it; four decimals, or as many digits where it takes others."""
        plain = amount == 0 or 1e-3 <= abs(amount) < 1e4
        unit = f" {self.unit}" if self.unit else ""
        return f"{amount:{sign}.4f}{unit}" if plain else f"{amount:{sign}.4g}{unit}"

    def measured(self, value: float) -> float:
        """A minimised value as it is measured."""
        return turned(value, self.turn)

    def pair(self, natural: float, proposed: float) -> dict[str, Any]:
        """Two minimised values as they are measured, with unit and direction: for JSON."""
        return {
            "unit": self.unit,
            "direction": self.direction,
            "natural": self.measured(float(natural)),
            "proposed": self.measured(float(proposed)),
        }

    def interval(self, low: float, high: float) -> list[float]:
        """The ends of an interval of the minimised value as they are measured, the lower first."""
        return sorted([self.measured(float(low)), self.measured(float(high))])

    def slope(self, values: np.ndarray) -> np.ndarray:
        """Changes of the minimised value as changes of the measured one."""
        return values if self.turn is None else -values


def sense_of(spec: "ObjectiveSpec", tasks: Collection[str]) -> Sense:
    """Of a mean of tasks whose weights sum to 1: theirs where they have one, else that of what is minimised."""
    turns: set[Turn | None] = {spec.turned.get(task) for task in tasks}
    if len(turns) != 1:
        return Sense(None, None)
    turn = turns.pop()
    usual = "accuracy" if turn == "error rate" else None
    units = {spec.units.get(task, usual) for task in tasks}
    return Sense(turn, units.pop() if len(units) == 1 else None)


_LOWER_WORDS = {"bpb", "bits", "nats", "loss", "nll", "ce", "ppl", "perplexity", "error", "err", "wer", "cer"}
_HIGHER_WORDS = {"acc", "accuracy", "em", "f1", "auc", "auroc", "bleu", "mcc", "elo", "winrate", "mc1", "mc2"}
_HIGHER_PHRASES = ("exact match", "win rate", "pass rate")
_LARGEST_SHARE = 100.0


def suggested_direction(name: str) -> Direction | None:
    """Which values of what is called so are better, as far as its words tell; None where they tell nothing.

    >>> suggested_direction("arc_challenge/acc_norm"), suggested_direction("humaneval pass@10")
    ('higher', 'higher')
    >>> suggested_direction("gsm8k"), suggested_direction("accuracy, bpb of the gold answer")
    (None, 'lower')
    """
    words = re.findall(r"[a-z]+@?[0-9]*", name.lower())
    if _LOWER_WORDS & set(words):
        return "lower"
    spoken = " ".join(words)
    passed = any(re.fullmatch(r"pass@[0-9k]*|(rouge|bleu)[a-z]*[0-9]*", word) for word in words)
    return (
        "higher"
        if passed or _HIGHER_WORDS & set(words) or any(p in spoken for p in _HIGHER_PHRASES)
        else None
    )


def unclear_direction(spec: "ObjectiveSpec", task: str, values: Iterable[float] = ()) -> str | None:
    """What has to be asked about a task's direction, or None.

    Its direction is asked for where the name says another than is stated, or than is taken for granted. A name
    that says higher counts for values that can be shares of 1 or of 100. A unit that is stated settles it.

    Args:
        spec: the objective.
        task: measured, in the objective or only watched.
        values: what was measured of it.
    """
    stated = spec.directions.get(task)
    told = None if task.startswith(HELD_OUT_PREFIX) or task in spec.units else suggested_direction(task)
    if told in (None, stated or "lower"):
        return None
    if told == "higher" and not all(0 <= value <= _LARGEST_SHARE for value in values):
        return None
    said = f"is said to be better when {stated}" if stated else "nothing says which of its values are better"
    looks = "an accuracy, better when higher" if told == "higher" else "a loss, better when lower"
    return (
        f"task {task!r} looks like {looks}, and {said}: state its direction"
        f" (`directions={{{task!r}: {told!r}}}`), or what it is measured in (`units`)"
    )
