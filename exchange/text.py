"""The answer in a terminal, for who reads no JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TASKS, _DOMAINS = 20, 40
"""Rows of a table; the rest are counted, and are all in the JSON."""

Document = Mapping[str, Any]


def summary(document: Document) -> str:
    """The mixture, what it is predicted to be worth, what gets worse, what binds, and what to beware of."""
    return "\n".join(
        [
            *_mixture(document),
            "",
            *_worth(document),
            *_worse(document),
            *_listed("What binds", [row["statement"] for row in document["constraints"]]),
            *_listed("Beware", [row["message"] for row in document["warnings"]]),
            *_listed("Notes", document["notes"]),
            *(["", drawn(document["export"])] if document.get("export") else []),
        ]
    )


def _mixture(document: Document) -> Iterator[str]:
    rows = sorted(document["domains"], key=lambda row: -row["weight"])
    width = max(len("domain"), *(len(row["name"]) for row in rows[:_DOMAINS]))
    known = rows[0]["epochs"] is not None
    yield f"{'domain':{width}}  natural  proposed   change" + ("   epochs" if known else "")
    for row in rows[:_DOMAINS]:
        change = row["weight"] - row["natural"]
        line = f"{row['name']:{width}}  {row['natural']:7.2%}  {row['weight']:8.2%}  {change:+7.2%}"
        if known:
            line += f"  {row['epochs']:7.2f}" + (" (its cap)" if row["binding"] else "")
        yield line
    if rest := rows[_DOMAINS:]:
        yield f"and {len(rest)} more that weigh {sum(row['weight'] for row in rest):.2%}"


def _worth(document: Document) -> Iterator[str]:
    said = document["objective"]
    unit = f" {said['unit']}" if said["unit"] else ""
    yield (
        f"Predicted: {said['proposed']:.4g}{unit} where the natural distribution has {said['natural']:.4g}:"
        f" a gain of {said['gain']:+.4f}" + _interval(said["gain_interval"], said["confidence"])
    )
    if said["rank_correlation"] is not None:
        yield (
            f"From {document['runs_used']} runs; of runs it had not seen the law has a rank correlation of"
            f" {said['rank_correlation']:.2f} and a mean error of {said['mae']:.4f}."
        )


def _interval(bounds: Sequence[float] | None, confidence: float) -> str:
    if bounds is None:
        return ", without an interval."
    return f" ({confidence:.0%} interval {bounds[0]:+.4f} to {bounds[1]:+.4f})."


def _worse(document: Document) -> Iterator[str]:
    rows = document["worse"]
    if rows:
        yield "\nGets worse, by the law:"
    for row in rows[:_TASKS]:
        sure = " (its whole interval)" if row["is_certain"] else ""
        yield f"  {row['task']} by {row['change']:.4f}{sure}"
    if len(rows) > _TASKS:
        yield f"  and {len(rows) - _TASKS} more"


def drawn(report: Document) -> str:
    """How near to its weights a trainer draws what was written for it."""
    how = "draws" if report["exact"] else "draws at random and expects"
    error = report["largest_error"]
    return f"Written as {report['format']}, which {how} every share within {error:.1e} of its weight."


def _listed(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield f"\n{title}:"
        yield from (f"  {sentence}" for sentence in sentences)
