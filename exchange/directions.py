"""Which of the metrics that runs measured are better when higher: as said, and asked for where a name suggests it."""

from collections.abc import Iterable, Mapping, Sequence

from exchange.sheets import listed, matches
from mixing.errors import InvalidSetting
from mixing.runs.evidence import RunEvidence
from mixing.sense import Turn, suggested_direction


def directions(
    metrics: Sequence[str], runs: Sequence[RunEvidence], higher: Iterable[str], lower: Iterable[str]
) -> dict[str, Turn]:
    """`{metric that is better when higher: how it is turned}`, sorted; every other one is better when lower.

    A share of 1 becomes what is missing to it; any other metric that is better when higher is negated.

    Args:
        metrics: what was measured.
        runs: with their values.
        higher: patterns of the metrics that are better when higher.
        lower: patterns of those that are not, though their names look like it.

    Raises:
        InvalidSetting: a pattern that stands for no metric, a metric of both, or one that looks like an accuracy and
            of which nothing was said.
    """
    is_higher = named(metrics, higher, "higher_is_better")
    is_lower = named(metrics, lower, "lower_is_better")
    if both := sorted(is_higher & is_lower):
        raise InvalidSetting(
            f"{listed(both)} cannot be better both ways", field="higher_is_better", names=both
        )
    stated = is_higher | is_lower
    if unclear := [name for name in metrics if suggested_direction(name) == "higher" and name not in stated]:
        raise InvalidSetting(
            f"is {listed(unclear)} better when higher? Say so, or that lower is better",
            field="higher_is_better",
            names=unclear,
        )
    return {name: _turn(runs, name) for name in sorted(is_higher)}


def against_their_names(metrics: Sequence[str], turns: Mapping[str, Turn]) -> list[str]:
    """The metrics whose names say another direction than `directions` found to be stated for them."""
    way = {name: "higher" if name in turns else "lower" for name in metrics}
    return [name for name in metrics if suggested_direction(name) not in (None, way[name])]


def check_one_direction(metrics: Sequence[str], turns: Mapping[str, Turn]) -> None:
    """Raise InvalidSetting for an objective of all metrics where some are better when higher and some when lower."""
    if turns and set(turns) != set(metrics):
        raise InvalidSetting(
            "some metrics are better when higher and some when lower, and a mean of both means nothing; name the"
            " objective",
            field="objective",
        )


def named(metrics: Sequence[str], patterns: Iterable[str], setting: str) -> set[str]:
    """The metrics that the patterns stand for. Raises InvalidSetting for a pattern that stands for none."""
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in metrics if matches(name, pattern)}
        if not matched:
            raise InvalidSetting(
                f"there is no metric {pattern!r}; there are {listed(metrics)}", field=setting, names=[pattern]
            )
        found |= matched
    return found


def _turn(runs: Sequence[RunEvidence], name: str) -> Turn:
    values = [run.metrics[name] for run in runs if name in run.metrics]
    return "error rate" if values and min(values) >= 0 and max(values) <= 1 else "negated"
