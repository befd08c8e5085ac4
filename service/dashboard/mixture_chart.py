"""Proposed against natural weight of each domain, with the mark of its repetition cap."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from service.dashboard import svg
from service.dashboard.formatting import percent

MOST_ROWS = 40
"""Domains drawn; the table beside the chart has them all."""
_ROW = 42


def mixture_chart(domains: Sequence[Mapping[str, Any]]) -> Markup:
    """The chart of the evidence's ``domains``, in the order given."""
    drawn = domains[:MOST_ROWS]
    highest = max((max(domain["weight"], domain["natural"]) for domain in drawn), default=1.0)
    scale = svg.Scale(0.0, 1.02 * highest)
    rows = [_row(domain, _ROW * index, scale) for index, domain in enumerate(drawn)]
    largest = drawn[0] if drawn else None
    description = f"{len(drawn)} domains, a bar of the proposed weight above one of the natural weight. " + (
        f"The largest proposed weight is {percent(largest['weight'])}, of {largest['name']}. "
        if largest
        else ""
    )
    return svg.chart(
        "mixture-chart",
        "Proposed mixture and natural distribution",
        description + "The table has every number.",
        _ROW * len(drawn) + 2,
        rows,
    )


def _row(domain: Mapping[str, Any], top: float, scale: svg.Scale) -> Markup:
    cap = domain["cap"]
    parts = [
        svg.text("label", "0", top + 13, domain["name"]),
        svg.text(
            "value", "100%", top + 13, f"{percent(domain['weight'])} · {percent(domain['natural'])}", "end"
        ),
        svg.bar("proposed", top + 19, 8, scale.at(domain["weight"])),
        svg.bar("natural", top + 29, 4, scale.at(domain["natural"])),
    ]
    if cap is not None and cap <= scale.high:
        kind = "cap binding" if domain["binding"] else "cap"
        parts.append(svg.line(kind, (scale.at(cap), top + 16), (scale.at(cap), top + 36)))
    words = f"{domain['name']}: proposed {percent(domain['weight'])}, natural {percent(domain['natural'])}"
    if cap is not None and cap < 1:
        words += f", at most {percent(cap)} under the repetition cap"
    return svg.group(words, parts)
