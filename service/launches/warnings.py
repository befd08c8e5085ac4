"""What is doubtful about a launch before it starts: domains too small for a row, and tasks that are trained on."""

import math
from collections.abc import Iterator, Mapping

from store.documents import LaunchDocument
from store.problems import Invalid
from store.revisions.shared_text import (
    contamination_warnings,
    known_tasks,
    of_tasks,
    task_warnings,
    uncompared_warnings,
)
from store.tables import MixtureRow


def launch_warnings(mixture: MixtureRow, document: LaunchDocument) -> Iterator[str]:
    """In the order a reader wants them; raises Invalid where rounding to rows would make it another mixture."""
    if not document.is_program:
        yield from _thin_domains(document, mixture.weights)
    known = of_tasks(known_tasks(mixture.revision), document.tasks)
    yield from task_warnings(document.tasks)
    yield from contamination_warnings(known)
    yield from uncompared_warnings(document.tasks, known)


THIN = 0.5
"""Rows that a domain is to have to get one before others get more (`mixture_sampler.allocate_rows`)."""
MOST_THIN = 0.02
"""Share of the mixture that may lie in domains that perhaps get none; with more it would be another mixture."""
SHORTEST_ROW = 16
"""Tokens; no request may ask for fewer."""
_NAMED = 5


def _thin_domains(document: LaunchDocument, weights: Mapping[str, float]) -> Iterator[str]:
    """What is said of domains whose weight is less than half a row; raises Invalid where they are too much of it."""
    rows = document.rows
    thin = {name: weight for name, weight in weights.items() if 0 < weight * rows < THIN}
    if not thin:
        return
    smallest = min(thin.values())
    steps = math.ceil(THIN / smallest * document.sequence_length / document.tokens_per_step)
    shorter = math.floor(document.tokens * smallest / THIN)
    shown = [f"{name} ({weight:.2g}, {weight * rows:.2g} rows)" for name, weight in thin.items()]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    said = (
        f"The run reads {rows:,} rows of {document.sequence_length:,} tokens, each of one domain, and these domains"
        f" have a weight of less than half a row and may get none: {', '.join(shown[:_NAMED])}{more}. With"
        f" {steps * document.tokens_per_step:,} tokens"
    )
    said += f", or rows of {shorter:,}," if shorter >= SHORTEST_ROW else ""
    said += " each gets one."
    if (lost := sum(thin.values())) > MOST_THIN:
        raise Invalid(
            "rows_too_coarse",
            f"{said} They are {lost:.2%} of the mixture, over the {MOST_THIN:.0%} that rounding may take from it.",
            "tokens",
            names=sorted(thin),
        )
    yield said
