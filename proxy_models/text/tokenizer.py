"""Byte-level BPE: training our own, and loading it or any fast Hugging Face tokenizer."""

import hashlib
import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from proxy_models.errors import TokenizerError
from proxy_models.storage import new_directory, write_atomically
from proxy_models.stores.current import is_here
from proxy_models.text.data_roots import held_folder, open_data
from proxy_models.text.token_files import (
    END_OF_TEXT,
    KNOWN_END_OF_TEXT,
    LARGEST_TOKENIZER,
    TOKENIZER_FILES,
)

SMALLEST_VOCABULARY = 257  # the bytes and end-of-text


class TextTokenizer:
    """Text to ids and back.

    ``vocabulary_size`` is one more than the largest id, ``end_of_text`` the id between documents, and
    ``fingerprint`` a SHA-256 of the whole definition. Special tokens spelled out in a text are encoded as text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, end_of_text: int) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend = backend
        self.end_of_text = end_of_text
        self.vocabulary_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        definition = f"{backend.to_str()}\n{end_of_text}"
        self.fingerprint = hashlib.sha256(definition.encode()).hexdigest()
        self.words = WordEncoder(backend) if WordEncoder.encodes(backend) else None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without any token added around it."""
        if self.words is not None:
            return self.words.encode_batch(texts)
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of some ids, special tokens included."""
        return self.backend.decode([int(token) for token in ids], skip_special_tokens=False)

    @cached_property
    def unknown(self) -> int | None:
        """The id of what the vocabulary has no id for; None where it has one for everything."""
        model = json.loads(self.backend.to_str())["model"]
        if isinstance(model.get("unk_token"), str):
            return self.backend.token_to_id(model["unk_token"])
        return model.get("unk_id")

    def lost(self, text: str) -> tuple[int, int]:
        """How many of a text's characters do not come back from its ids, and how many it has; spaces aside."""
        before, after = (Counter("".join(side.split())) for side in (text, self._given_back(text)))
        return (before - after).total(), before.total()

    def lost_spaces(self, text: str) -> tuple[int, int]:
        """How many of the spaces and line ends inside a text do not come back from its ids, and how many it has."""
        before, after = (sum(map(str.isspace, side.strip())) for side in (text, self._given_back(text)))
        return max(0, before - after), before

    def _given_back(self, text: str) -> str:
        return self.decode([token for token in self.encode(text) if token != self.unknown])

    def unknown_among(self, ids: Sequence[int]) -> tuple[int, int]:
        """How many of some ids are the unknown one, and how many there are."""
        unknown = self.unknown
        return 0 if unknown is None else list(ids).count(unknown), len(ids)


MOST_LOST = 0.01
"""Of a text's characters: bits per byte divides by the bytes of all of it, and what is lost costs next to nothing."""


def check_lossless(lost: int, total: int, what: str) -> None:
    """Raise `TokenizerError` where of a text (``what`` it is) so much is lost that its bits per byte mean nothing."""
    if lost > MOST_LOST * total:
        raise TokenizerError(
            f"the tokenizer loses {100 * lost / total:.0f}% {what}: what it has no ids for does not come back, so"
            " bits per byte would look far too good; take a tokenizer with an id for every byte"
        )


def example_text(
    tokenizer: TextTokenizer, tokens: Sequence[int] | np.ndarray, begin: int, length: int
) -> str:
    """The beginning of a training document, of ``length`` tokens with its end-of-text, in a line."""
    shown = tokenizer.decode(tokens[begin : begin + min(length - 1, EXAMPLE_TOKENS)])
    return " ".join(shown.split())[:EXAMPLE_CHARACTERS]


EXAMPLE_TOKENS, EXAMPLE_CHARACTERS = 60, 120


def train_byte_level_bpe(documents: Iterable[str], vocabulary_size: int, path: Path) -> TextTokenizer:
    """Train byte-level BPE of exactly or at most ``vocabulary_size`` ids and write it to ``path`` (atomically).

    The same documents in the same order give the same bytes. Too small a text gives fewer merges, and so fewer
    ids. Raises `TokenizerError` for a vocabulary without room for the 256 bytes and end-of-text.
    """
    if not SMALLEST_VOCABULARY <= vocabulary_size <= 2**20:
        raise TokenizerError(
            f"a byte-level vocabulary has {SMALLEST_VOCABULARY} to {2**20} ids, not {vocabulary_size}"
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(documents, trainer)
    write_atomically(path, backend.to_str().encode())
    return load_tokenizer(path)


def load_tokenizer(spec: str | Path) -> TextTokenizer:
    """A tokenizer from a ``tokenizer.json``, a Hugging Face folder, or a hub name that this machine has fetched.

    Nothing is fetched, and no code that ships with a tokenizer is run. Raises `TokenizerError` saying what failed,
    and `CorpusError` for what leads outside the data roots.
    """
    path = Path(spec)
    if path.is_dir():
        with held_folder(path, (*TOKENIZER_FILES, "config.json")) as held:
            return _from_hugging_face(str(held), str(spec))
    try:
        return _from_file(path)
    except FileNotFoundError:
        return _from_hugging_face(str(spec), str(spec))
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror or error}") from error


def _from_file(path: Path) -> TextTokenizer:
    with open_data(path) as stream:
        content = stream.read(LARGEST_TOKENIZER + 1)
    if len(content) > LARGEST_TOKENIZER:
        raise TokenizerError(f"{path} is longer than {LARGEST_TOKENIZER} bytes")
    try:
        backend = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the bindings raise bare Exception for a file they cannot parse
        raise TokenizerError(f"{path} is not a tokenizer.json: {error}") from error
    for name in KNOWN_END_OF_TEXT:
        if (end_of_text := backend.token_to_id(name)) is not None:
            return TextTokenizer(backend, end_of_text)
    raise TokenizerError(
        f"{path} has none of the end-of-text tokens {', '.join(KNOWN_END_OF_TEXT)}; "
        "give the Hugging Face folder that names it"
    )


def _from_hugging_face(place: str, name: str) -> TextTokenizer:
    from transformers import AutoTokenizer  # seconds to import, and needed for these only

    try:
        loaded = AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TokenizerError(
            f"{name!r} is neither a tokenizer.json, a Hugging Face folder nor a hub name known here: {reason}"
        ) from error
    backend = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise TokenizerError(f"{name!r} has no fast tokenizer (tokenizer.json)")
    if not isinstance(loaded.eos_token_id, int):
        raise TokenizerError(f"{name!r} names no end-of-text token")
    return TextTokenizer(backend, loaded.eos_token_id)


# A tokenizer of the Hugging Face hub: fetched once, at one commit, and from then on an artifact like one of ours.

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class FetchedTokenizer:
    """The folder it is kept in, the commit it is of, and where that is shown."""

    directory: Path
    commit: str
    address: str


def fetch_tokenizer(
    name: str, revision: str | None, directory: Path, endpoint: str | None = None
) -> FetchedTokenizer:
    """Fetch the tokenizer of a hub name into ``directory``, unless that commit of it is there or in the store.

    ``revision`` is a commit, a branch or a tag; None is the main branch. What it names now is the commit that counts
    from here on. ``endpoint`` is the hub's address, if not the usual one. Raises `TokenizerError` where the hub does
    not have it or does not answer.
    """
    from huggingface_hub import HfApi, snapshot_download

    hub = HfApi(endpoint=endpoint)
    try:
        pinned = revision is not None and _COMMIT.fullmatch(revision)
        commit = str(revision if pinned else hub.model_info(name, revision=revision).sha)
        kept = directory / f"{name.replace('/', '--')}@{commit}"
        if is_here(kept):
            return FetchedTokenizer(kept, commit, f"{hub.endpoint}/{name}/tree/{commit}")
        files = [*TOKENIZER_FILES, "config.json"]
        with TemporaryDirectory(prefix="mixwright-hub-") as cache:
            fetched = snapshot_download(
                name, revision=commit, allow_patterns=files, cache_dir=cache, endpoint=hub.endpoint
            )
            with new_directory(kept) as made:
                for file in Path(fetched).iterdir():
                    shutil.copyfile(file, made / file.name)
    except (OSError, ValueError) as error:  # the hub's own errors are OSErrors
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TokenizerError(f"{name!r} cannot be fetched from the hub: {reason}") from error
    return FetchedTokenizer(kept, commit, f"{hub.endpoint}/{name}/tree/{commit}")


# Byte-level BPE a word at a time: a text is split where GPT-2 splits it, and each different word is encoded once.
#
# Merges do not cross words, so the ids are those of the whole text; most words of a text have been seen before, and
# looking one up takes a fraction of merging its bytes again. The split is that of GPT-2 (``encoder.py`` of
# openai/gpt-2), which the `ByteLevel` pre-tokenizer has too. Which characters are letters, numbers and spaces differs
# between versions of Unicode; a text with a character that version 3.2, which Python keeps, does not have or has as
# something else is left to the tokenizer itself.

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
