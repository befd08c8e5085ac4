"""Four entropies of a domain's tokens, and the mixtures they give (BiMix, arXiv 2405.14908).

All in bits. With P(x, y) the frequency of the adjacent pair x y and p its marginals:

- Shannon: of single tokens, -sum p log2 p.
- joint: of adjacent pairs, -sum P log2 P. Independent tokens have twice the Shannon entropy.
- conditional: of a token once the one before it is known, joint minus that of the first token of a pair.
- von Neumann: -tr(rho log2 rho) of a density matrix. Ours needs no model: rho = (D + A) / tr(D + A), where
  A = (P + P^T) / 2 is the symmetrised bigram frequency and D the diagonal of its row sums. As a matrix that is
  diagonally dominant rho is positive semidefinite (the signless counterpart of the graph Laplacian of Braunstein,
  Ghosh and Severini, 2006, with which a self-loop would vanish). It is log2(V + 1) - 2 / (V + 1) for V tokens in
  every pairing equally often, and 0 for one token or for two that alternate. The eigenvalues of a
  whole vocabulary are out of reach, so the most frequent tokens are states of their own and all others one.

A mixture's weights are the softmax of one of the entropies, to the base 2: proportional to the perplexity 2^H.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from mixing.errors import InvalidSetting, InvalidTokens, MissingDomain, UnknownDomain
from mixing.swarm.space import SwarmSpace, into_space

VON_NEUMANN_STATES = 512
"""Tokens with a state of their own; a symmetric matrix of that size takes about 0.05 s."""


@dataclass(frozen=True)
class Entropies:
    """A domain's entropies in bits; see the module for what each is."""

    shannon: float
    joint: float
    conditional: float
    von_neumann: float


def entropies(
    tokens: np.ndarray | Iterable[np.ndarray], vocabulary_size: int, states: int = VON_NEUMANN_STATES
) -> Entropies:
    """The four entropies of a domain's token shards.

    Args:
        tokens: one shard or several, (n,) integers from 0 to `vocabulary_size` - 1 each. A pair never spans two
            shards.
        vocabulary_size: number of token ids.
        states: most frequent tokens that are states of the density matrix.

    Raises:
        InvalidTokens: a token outside the vocabulary, or no shard with two tokens.
        InvalidSetting: fewer than one state.
    """
    if states < 1:
        raise InvalidSetting(f"states is {states}; it must be at least 1", field="states")
    shards = [tokens] if isinstance(tokens, np.ndarray) else list(tokens)
    shards = [_checked(shard, vocabulary_size) for shard in shards]
    counts = sum(
        (np.bincount(shard, minlength=vocabulary_size) for shard in shards), np.zeros(vocabulary_size, int)
    )
    codes = [shard[:-1] * vocabulary_size + shard[1:] for shard in shards if len(shard) > 1]
    if not codes:
        raise InvalidTokens("entropies need a shard of at least two tokens", field="tokens")
    pairs, often = np.unique(np.concatenate(codes), return_counts=True)
    first = np.bincount(pairs // vocabulary_size, weights=often)
    joint = _entropy(often)
    return Entropies(
        shannon=_entropy(counts),
        joint=joint,
        conditional=max(joint - _entropy(first), 0.0),
        von_neumann=_von_neumann(pairs, often, counts, states),
    )


def _checked(shard: np.ndarray, vocabulary_size: int) -> np.ndarray:
    shard = np.asarray(shard).ravel()
    if not np.issubdtype(shard.dtype, np.integer):
        raise InvalidTokens(f"tokens are {shard.dtype}; they must be integers", field="tokens")
    if len(shard) and not (shard.min() >= 0 and shard.max() < vocabulary_size):
        raise InvalidTokens(
            f"tokens reach from {shard.min()} to {shard.max()}, outside a vocabulary of {vocabulary_size}",
            field="tokens",
        )
    return shard.astype(np.int64)


def _entropy(frequencies: np.ndarray) -> float:
    positive = frequencies[frequencies > 0]
    shares = positive / positive.sum()
    return max(float(-(shares * np.log2(shares)).sum()), 0.0)


def _von_neumann(pairs: np.ndarray, often: np.ndarray, counts: np.ndarray, states: int) -> float:
    present = np.flatnonzero(counts)
    frequent = present[np.argsort(-counts[present], kind="stable")][:states]
    state = np.full(len(counts), len(frequent))
    state[frequent] = np.arange(len(frequent))
    size = len(frequent) + 1
    code = state[pairs // len(counts)] * size + state[pairs % len(counts)]
    adjacency = np.bincount(code, weights=often, minlength=size * size).reshape(size, size)
    adjacency = (adjacency + adjacency.T) / 2
    density = adjacency + np.diag(adjacency.sum(1))
    return _entropy(np.maximum(np.linalg.eigvalsh(density / np.trace(density)), 0.0))


def entropy_weighted(
    space: SwarmSpace, measured: Mapping[str, Entropies], generator: np.random.Generator
) -> np.ndarray:
    """(4, m) mixtures with weights proportional to 2^H, one row for each entropy in the order of `Entropies`.

    Brought into the space; the generator only decides which domains enter where caps make room for others.

    Raises:
        MissingDomain, UnknownDomain: `measured` lacks a domain that is drawn, or has one that the space has not.
    """
    names = space.domains.names
    if unknown := sorted(set(measured) - set(names)):
        raise UnknownDomain(f"entropies of unknown domains: {', '.join(unknown)}", names=unknown)
    drawn = np.flatnonzero(space.drawn)
    if missing := [names[column] for column in drawn if names[column] not in measured]:
        raise MissingDomain(f"no entropies were measured for {', '.join(missing)}", names=missing)
    weights = np.zeros((len(fields(Entropies)), len(names)))
    for row, kind in enumerate(fields(Entropies)):
        bits = np.array([getattr(measured[names[column]], kind.name) for column in drawn], float)
        weights[row, drawn] = np.exp2(bits - bits.max(initial=-np.inf))
    return into_space(space, weights, generator)
