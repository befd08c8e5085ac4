"""``python -m proxy_models.families.count_command``: an architecture's counts, for processes that have no torch.

Its checked settings come as JSON on standard input; the answer is one line of JSON, `CountsByVocabulary`, or
``{"problem", "field"}`` where its configuration or its empty model refuses the settings. A request may hold settings
that make the library work without end, so both its time and what it takes of memory on top of itself are limited:
beyond them the process fails.
"""

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any

import psutil

from proxy_models.errors import InvalidSpec
from proxy_models.families.architecture import Architecture
from proxy_models.families.counting import counted
from proxy_models.families.counts import CountsByVocabulary
from proxy_models.families.transformers_model import positions

VOCABULARIES = (1024, 2048, 4096)
MEMORY_BYTES = 2 * 2**30
"""An empty model has no numbers: OLMo 2's 32B takes 10 MB."""
CPU_SECONDS = 30


def main() -> None:
    """Answer for what standard input holds."""
    mine = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (mine, mine))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    print(json.dumps(count(json.load(sys.stdin))))


def count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The line of JSON. The third vocabulary proves what was concluded from two."""
    try:
        few, many, most = ((size, counted(Architecture(settings, size))) for size in VOCABULARIES)
        found = CountsByVocabulary.through(few, many, positions(Architecture(settings, most[0])))
        if found.over(most[0]) != most[1]:
            raise ValueError("more than tables grows with the vocabulary")
    except InvalidSpec as error:
        return {"problem": str(error), "field": error.field}
    except ValueError as error:
        return {"problem": str(error), "field": None}
    return found.to_dict()


if __name__ == "__main__":
    main()
