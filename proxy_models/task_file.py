"""Tasks as JSONL of ``{"context", "continuation"}``. Free of torch, so the service can check them."""

from dataclasses import dataclass
from pathlib import Path

from proxy_models.corpus import json_objects, text_field
from proxy_models.errors import CorpusError


@dataclass(frozen=True)
class TaskExample:
    """A context, possibly empty, and its gold continuation, scored as it stands, leading space included."""

    context: str
    continuation: str

    @property
    def continuation_bytes(self) -> int:
        """UTF-8 bytes of the continuation, the denominator of its BPB."""
        return len(self.continuation.encode())


def read_task(path: Path) -> tuple[TaskExample, ...]:
    """All examples of a task file (also ``.gz`` or ``.zst``).

    Raises `CorpusError` naming file and line: not JSON, a field missing or not a string, an empty
    continuation, or a file without examples. Other fields are ignored.
    """
    examples = []
    for number, record in json_objects(path):
        context = text_field(path, number, record, "context")
        continuation = text_field(path, number, record, "continuation")
        if not continuation:
            raise CorpusError(path, number, "its continuation is empty")
        examples.append(TaskExample(context, continuation))
    if not examples:
        raise CorpusError(path, None, "holds no examples")
    return tuple(examples)
