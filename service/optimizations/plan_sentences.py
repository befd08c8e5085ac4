"""A plan of what is reused, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]

_NAMED = 8
"""Names listed in a sentence; the plan itself has all of them."""


def plan_sentences(plan: Document) -> Iterator[str]:
    """What will be done, why, what it costs against recomputing everything, and what is lost by it."""
    yield from plan["why"]
    if plan["recomputed"]:
        yield f"Recomputed: {_listed(plan['recomputed'])}."
    for name, ratios in sorted(plan["groups"].items()):
        said = f"{len(ratios)} domains keep their ratios as the virtual domain {name!r}"
        cap = plan["virtual_caps"].get(name)
        if cap is not None and cap < 1:
            said += (
                f", of which the mixture may hold {100 * cap:.1f}% at most: beyond that"
                f" {plan['binding_members'].get(name)!r} would be repeated too often"
            )
        yield f"{said}."
    older, aside = len(plan["reused"]), len(plan["set_aside"])
    if older or aside:
        reasons = sorted(set(plan["set_aside"].values()))
        yield f"{older} of {older + aside} older runs count" + (
            f"; the others do not: {'; '.join(reasons[:3])}." if aside else "."
        )
    yield _cost_sentence(plan)
    yield from plan["lost"]


def _cost_sentence(plan: Document) -> str:
    """New runs and worker hours against recomputing everything."""
    said = f"{plan['new_runs']} runs are trained; recomputing everything would take {plan['recompute_runs']}"
    if plan["new_seconds"] is None or plan["recompute_seconds"] is None:
        return f"{said}. How long that takes nobody knows: no comparable run was trained yet."
    return (
        f"{said}. By the comparable runs so far that is {_worker_time(plan['new_seconds'])} of worker time instead of"
        f" {_worker_time(plan['recompute_seconds'])}."
    )


def _worker_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _listed(names: list[str] | tuple[str, ...]) -> str:
    """The first few by name, the rest by number."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
