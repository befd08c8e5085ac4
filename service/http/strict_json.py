"""Bodies that two readers would read differently are refused before anything reads them.

JSON leaves open what a member named twice means, and Python's reader keeps the last: a weight given twice would be
taken for the other one. It also reads nestings that no request has. NaN and Infinity are refused where they stand, by
the request's model, which knows what they were meant for.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from store.problems import Invalid

DEEPEST = 32
"""Levels of nesting; requests need five."""
_NO_TEXT = re.compile(rb"\\u(0000|[dD][89a-fA-F])")
INLINE_BYTES = 2**16
"""Longer bodies are read in a thread, so that the others do not wait."""


class JsonRequest(Request):
    """A request whose JSON body is read here, once, or refused."""

    async def json(self) -> Any:
        """The document of the body. Raises Invalid naming the member at fault, ValueError for what is no JSON."""
        if not hasattr(self, "_document"):
            body = await self.body()
            is_long = len(body) > INLINE_BYTES
            self._document = await run_in_threadpool(read_json, body) if is_long else read_json(body)
        return self._document


def read_json(body: bytes) -> Any:
    """The document; raises Invalid for what is read in more than one way, ValueError for what is no JSON at all."""
    try:
        document = json.loads(body, object_pairs_hook=_object)
        _check_depth(document)
        if _NO_TEXT.search(body):
            _check_text(document)
        return document
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        if "digits" in str(error):  # Python's own limit of 4300 digits a number
            raise Invalid("bad_number", "The body holds a number of thousands of digits.") from error
        raise


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        shown = name[:200].encode("utf-8", "backslashreplace").decode()
        raise Invalid("duplicate_member", f"The member {shown!r} is given twice.", shown)
    return members


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_text(value: Any, field: str = "") -> None:
    """Raise Invalid naming the member whose text or name has a NUL or half a surrogate pair: no store keeps them."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Invalid("bad_text", f"{value[:200]!a} holds a NUL or half a surrogate pair.", field or None)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, field)
            _check_text(inner, f"{field}.{name[:200]}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_text(inner, f"{field}[{index}]")


def _too_deep() -> Invalid:
    return Invalid("too_deep", f"The body is nested over {DEEPEST} levels deep.")
