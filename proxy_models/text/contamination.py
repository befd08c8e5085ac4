"""Which examples of tasks are trained on: those of which half the tokens stand in the training text, 13 in a row.

N-grams of 13 are those of GPT-3 (arXiv 2005.14165, appendix C); of tokens, and by the share of an example's tokens
that lie in any of them, as in Llama 2 (2307.09288, A.6); half of them as in Tulu 3 (2411.15124, 3.2). So a question
that is quoted within a page is found, a phrase that many texts have is not, nor is the same text in other words,
another case or other spaces. An example of fewer than 13 tokens says too little to be looked for.

The n-grams of the tasks are kept, 8 bytes each, and the tokens of every domain are read once. Free of torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from proxy_models.text.task_file import TaskExample
from proxy_models.text.token_shard import TokenShard
from proxy_models.text.tokenizer import EXAMPLE_CHARACTERS, TextTokenizer

TOKENS = 13
"""Of an n-gram."""
SHARE = 0.5
"""Of an example's tokens, or of its continuation's, from which on it counts."""
_STRETCH = 2**15
"""Tokens at a time: what is computed of them stays in a processor's own memory."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Contamination:
    """Of one task.

    Attributes:
        examples: how many it has.
        short: of these too short to be looked for.
        domains: `{domain: examples that it trains on}`, where there are any.
        total: examples that any domain trains on.
        shown: the beginning of the first; empty where there is none.
    """

    examples: int
    short: int
    domains: Mapping[str, int]
    total: int
    shown: str


def contamination(
    tasks: Mapping[str, Sequence[TaskExample]], shards: Mapping[str, TokenShard], tokenizer: TextTokenizer
) -> dict[str, Contamination]:
    """What the shards, prepared with the tokenizer, train on of each task."""
    keys = np.random.Generator(np.random.PCG64(0)).integers(0, 2**64, tokenizer.vocabulary_size, np.uint64)
    asked = {name: [*_asked(examples, tokenizer, keys)] for name, examples in tasks.items()}
    hashes = [one.hashes for examples in asked.values() for one in examples]
    wanted = np.unique(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)
    trained = {name: _among(wanted, shard.tokens, keys) for name, shard in sorted(shards.items())}
    return {name: _told(examples, asked[name], wanted, trained) for name, examples in tasks.items()}


@dataclass(frozen=True)
class _Asked:
    """The n-grams of an example, one at each of its tokens but the last 12, and how many tokens are what follows."""

    hashes: np.ndarray
    continuation: int

    def is_trained_on(self, wanted: np.ndarray, found: np.ndarray) -> bool:
        if not len(self.hashes):
            return False
        here = found[np.searchsorted(wanted, self.hashes)]
        lies_in = (
            np.convolve(here, np.ones(TOKENS)) > 0.5
        )  # a token lies in the n-grams at it and the 12 before it
        behind = lies_in[-self.continuation :] if self.continuation >= TOKENS else lies_in
        return bool(max(lies_in.mean(), behind.mean()) >= SHARE)


def _asked(examples: Sequence[TaskExample], tokenizer: TextTokenizer, keys: np.ndarray) -> Iterator[_Asked]:
    contexts = tokenizer.encode_batch([example.context for example in examples])
    continuations = tokenizer.encode_batch([example.continuation for example in examples])
    for context, continuation in zip(contexts, continuations, strict=True):
        yield _Asked(_hashes(np.array([*context, *continuation], int), keys), len(continuation))


def _hashes(tokens: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n - 12,) uint64 of n tokens: sum_i key_i B^(12 - i) of each n-gram, put together of those of fewer tokens."""
    if len(tokens) < TOKENS:
        return np.empty(0, np.uint64)
    one = keys[tokens]
    two = _joined(one, one, 1, 1)
    four = _joined(two, two, 2, 2)
    eight = _joined(four, four, 4, 4)
    return _joined(_joined(eight, four, 8, 4), one, 12, 1)


def _joined(first: np.ndarray, second: np.ndarray, width: int, further: int) -> np.ndarray:
    """Of n-grams of ``width`` tokens, and those of ``further`` ones behind each."""
    behind = second[width:]
    joined = first[: len(behind)] * _BASE ** np.uint64(further)
    joined += behind
    return joined


def _among(wanted: np.ndarray, tokens: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(k,) which of the sorted n-grams are among those of (n,) tokens."""
    found = np.zeros(len(wanted), bool)
    bits = min(26, max(16, (32 * len(wanted)).bit_length()))  # a sieve that lets 1 in 32 or fewer through
    shift = np.uint64(64 - bits)
    sieve = np.zeros(2**bits, bool)
    sieve[wanted >> shift] = True
    for begin in range(0, len(tokens) if len(wanted) else 0, _STRETCH):
        hashes = _hashes(tokens[begin : begin + _STRETCH + TOKENS - 1], keys)
        maybe = hashes[sieve[hashes >> shift]]
        at = np.minimum(np.searchsorted(wanted, maybe), len(wanted) - 1)
        found[at[wanted[at] == maybe]] = True
    return found


def _told(
    examples: Sequence[TaskExample],
    asked: Sequence[_Asked],
    wanted: np.ndarray,
    trained: Mapping[str, np.ndarray],
) -> Contamination:
    by_domain = {
        name: np.array([one.is_trained_on(wanted, found) for one in asked], bool)
        for name, found in trained.items()
    }
    anywhere = np.any([*by_domain.values()], axis=0) if by_domain else np.zeros(len(asked), bool)
    first = examples[int(np.argmax(anywhere))] if anywhere.any() else None
    text = "" if first is None else first.context + first.continuation
    return Contamination(
        examples=len(examples),
        short=sum(not len(one.hashes) for one in asked),
        domains={name: int(found.sum()) for name, found in by_domain.items() if found.any()},
        total=int(anywhere.sum()),
        shown=" ".join(text.split())[:EXAMPLE_CHARACTERS],
    )
