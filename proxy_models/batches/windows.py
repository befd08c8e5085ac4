"""Cuts scored texts into windows a model can take. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """``tokens`` go in but the last; the last ``scored`` of them are predicted, for the document ``document``."""

    document: int
    tokens: tuple[int, ...]
    scored: int


def whole_text_windows(document: int, text: Sequence[int], end_of_text: int, length: int) -> list[Window]:
    """Windows that score every token of a text once, up to ``length`` at a time, without overlap.

    The first token is predicted from end-of-text, as in training; the first of each later window from one token.
    """
    tokens = (end_of_text, *text)
    return [
        Window(document, part, len(part) - 1)
        for start in range(0, len(text), length)
        if len(part := tokens[start : start + length + 1]) > 1
    ]


def continuation_windows(
    document: int, context: Sequence[int], continuation: Sequence[int], length: int
) -> list[Window]:
    """Windows that score every token of the continuation once, with up to ``length`` tokens going in.

    The context (not empty: end-of-text at least) is cut on the left. A continuation longer than half of ``length``
    is scored half a window at a time, so that each of its tokens has at least the other half before it.
    """
    tokens = (*context, *continuation)
    part = max(1, length // 2)
    windows = []
    for start in range(len(context), len(tokens), part):
        end = min(start + part, len(tokens))
        windows.append(Window(document, tokens[max(0, end - 1 - length) : end], end - start))
    return windows
