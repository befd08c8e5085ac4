"""Which of a task's texts are trained on: whole documents of the domains that say what is asked, or its answer.

A document counts where it is an example's context with its continuation, or one of the two alone; equal to the last
byte, for the digests of documents are all that is looked at. Free of torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from proxy_models.text.document_index import trained_on
from proxy_models.text.held_out import document_digest
from proxy_models.text.task_file import TaskExample

SHORTEST = 32
"""Characters; a shorter document that is equal to a part of an example says little."""
SHOWN = 120


@dataclass(frozen=True)
class Contamination:
    """Of one task.

    Attributes:
        examples: how many it has.
        domains: `{domain: examples of which it trains on a part}`, where there are any.
        total: examples of which any domain does.
        shown: the beginning of such a part.
    """

    examples: int
    domains: Mapping[str, int]
    total: int
    shown: str


def contamination(examples: Sequence[TaskExample], indexes: Mapping[str, Path]) -> Contamination | None:
    """What domains, by their ``documents.bin``, train on of a task; None where that is nothing.

    Raises:
        DataMissing: an index that cannot be read.
    """
    parts = [(number, part) for number, example in enumerate(examples) for part in _parts(example)]
    owners = np.array([number for number, _ in parts], int)
    digests = [document_digest(part) for _, part in parts]
    trained = {name: trained_on(index, digests) for name, index in sorted(indexes.items())}
    domains = {name: len(set(owners[found].tolist())) for name, found in trained.items() if found.any()}
    if not domains:
        return None
    anywhere = np.any(list(trained.values()), axis=0)
    shown = parts[int(np.argmax(anywhere))][1]
    return Contamination(
        len(examples), domains, len(set(owners[anywhere].tolist())), " ".join(shown.split())[:SHOWN]
    )


def _parts(example: TaskExample) -> Iterator[str]:
    for part in (example.context + example.continuation, example.context, example.continuation):
        if len(part) >= SHORTEST:
            yield part
