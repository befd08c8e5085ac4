"""Byte-level BPE a word at a time: a text is split where GPT-2 splits it, and each different word is encoded once.

Merges do not cross words, so the ids are those of the whole text; most words of a text have been seen before, and
looking one up takes a fraction of merging its bytes again. The split is that of GPT-2 (``encoder.py`` of
openai/gpt-2), which the `ByteLevel` pre-tokenizer has too. Which characters are letters, numbers and spaces differs
between versions of Unicode; a text with a character that version 3.2, which Python keeps, does not have or has as
something else is left to the tokenizer itself.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

import tokenizers
from tokenizers import models, pre_tokenizers

MOST_WORDS = 2**17
"""That are remembered; then all are forgotten."""
LONGEST_WORD = 64
"""Characters of a word that is remembered; longer ones hardly come again."""


class WordEncoder:
    """Encodes with a byte-level BPE tokenizer, and remembers words."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        self.ids: dict[str, list[int]] = {}

    @staticmethod
    def encodes(backend: tokenizers.Tokenizer) -> bool:
        """Whether a tokenizer is one of these: nothing else is done to its text, and no draw decides its merges."""
        before, model = backend.pre_tokenizer, backend.model
        return (
            backend.normalizer is None
            and isinstance(before, pre_tokenizers.ByteLevel)
            and before.use_regex
            and not before.add_prefix_space
            and isinstance(model, models.BPE)
            and model.dropout is None
            and all(token.special for token in backend.get_added_tokens_decoder().values())
        )

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; special tokens in it are text."""
        split, foreign = _patterns()
        words = [None if foreign.search(text) else split.findall(text) for text in texts]
        whole = iter(self._encoded(text for text, parts in zip(texts, words, strict=True) if parts is None))
        different = set(chain.from_iterable(filter(None, words)))
        if len(self.ids) + len(different) > MOST_WORDS:
            self.ids = {}
        missing = [*different.difference(self.ids)]
        self.ids.update(zip(missing, self._encoded(missing), strict=True))
        ids_of = self.ids.__getitem__
        encoded = [
            next(whole) if parts is None else list(chain.from_iterable(map(ids_of, parts))) for parts in words
        ]
        for word in missing:
            if len(word) > LONGEST_WORD:
                del self.ids[word]
        return encoded

    def _encoded(self, texts: Iterable[str]) -> list[list[int]]:
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What a word is, and a character of which versions of Unicode may say different things."""
    then = [unicodedata.ucd_3_2_0.category(chr(code))[0] for code in range(2**16)]
    now = [unicodedata.category(chr(code))[0] for code in range(2**16)]
    kinds: dict[str, list[int]] = {"L": [], "N": [], "Z": [*range(9, 14), 0x85], "": []}
    for code, (before, after) in enumerate(zip(then, now, strict=True)):
        told = before == after and unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")
        if (kind := before if told else "") in kinds:
            kinds[kind].append(code)
    letter, number, space, foreign = (_ranges(sorted(kinds[kind])) for kind in ("L", "N", "Z", ""))
    word = (
        f"'s|'t|'re|'ve|'m|'ll|'d| ?[{letter}]+| ?[{number}]+| ?[^{space}{letter}{number}]+"
        f"|[{space}]+(?![^{space}])|[{space}]+"
    )
    return re.compile(word), re.compile(f"[{foreign}\U00010000-\U0010ffff]")


def _ranges(codes: Sequence[int]) -> str:
    """Rising code points as the inside of a class of a regular expression."""
    starts = [code for at, code in enumerate(codes) if not at or codes[at - 1] != code - 1]
    ends = [code for at, code in enumerate(codes) if at + 1 == len(codes) or codes[at + 1] != code + 1]
    return "".join(f"\\u{start:04x}-\\u{end:04x}" for start, end in zip(starts, ends, strict=True))
