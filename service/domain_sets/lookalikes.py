"""Names that a reader takes for others: refused, because weights travel by name.

Two rules, of Unicode Technical Standard 39: a name is in its normal form (NFKC), so that equal-looking forms of one
character are one, and no word mixes letters of Latin, Greek and Cyrillic, which share shapes. A word wholly of
another script may still look like a Latin one; people who write in that script need it.
"""

import re
import unicodedata
from collections.abc import Sequence

from mixing.errors import InvalidDomainName

_SHARED_SHAPES = ("LATIN", "GREEK", "CYRILLIC")
_WORD = re.compile(r"[^\W\d_]+")


def check_lookalikes(names: Sequence[str]) -> None:
    """Raises InvalidDomainName for the first name that breaks a rule."""
    for name in names:
        if name.isascii():
            continue
        normal = unicodedata.normalize("NFKC", name)
        if normal != name:
            raise InvalidDomainName(
                f"{name!r} has characters that stand for others; write {normal!r}", field="name", names=[name]
            )
        for word in _WORD.findall(name):
            scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in word} & {*_SHARED_SHAPES}
            if len(scripts) > 1:
                raise InvalidDomainName(
                    f"{name!r} mixes letters of {' and '.join(sorted(scripts)).title()} in one word, "
                    "which look alike",
                    field="name",
                    names=[name],
                )
