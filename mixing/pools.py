"""Fully open pools as they were published: their sources, token counts and mixes.

They serve as examples to start from, and a domain set with the sources of one is recognised by its names and counts.
Counts and percentages are as printed, to three digits or so; they stand in `pools.json`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixing.document import from_document
from mixing.domains import Domains, Mixture, parse_name

COUNT_TOLERANCE = 0.01
"""A count printed as 101B is off by up to half a percent; sets differ by more than one."""


@dataclass(frozen=True)
class PoolSource:
    """One source of a pool.

    Attributes:
        name: as a domain.
        tokens: available.
        percent: of the published mix, where there is one.
        epochs: times it is read in the published mix, where that is stated.
        aliases: other names it goes by.
    """

    name: str
    tokens: float
    percent: float | None = None
    epochs: float | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """A published pool.

    Attributes:
        name: as it is asked for.
        title: as it is shown.
        trained: what was trained on the mix.
        mix_tokens: tokens of the published mix, where stated.
        sources: sorted by name.
    """

    name: str
    title: str
    trained: str
    mix_tokens: float | None
    sources: tuple[PoolSource, ...]

    @property
    def domains(self) -> Domains:
        """The sources with their token counts."""
        return Domains.of({source.name: source.tokens for source in self.sources})

    @property
    def mix(self) -> Mixture | None:
        """The published mix, its printed percentages divided by their sum; None where there is none."""
        percents = {source.name: source.percent for source in self.sources if source.percent is not None}
        if not percents:
            return None
        whole = sum(percents.values())
        return Mixture.of({name: percent / whole for name, percent in percents.items()})


_PUBLISHED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
POOLS = tuple(from_document(Pool, pool) for pool in _PUBLISHED)


def recognise(domains: Domains) -> Pool | None:
    """The pool whose sources these are, each of one pool and none besides, or None.

    A source may be split into topics and qualities, whose tokens are added up. Names are compared without case and
    punctuation, counts to within 1%.
    """
    totals: dict[str, float] = {}
    for name, tokens in zip(domains.names, domains.tokens.tolist(), strict=True):
        source = _plain(parse_name(name)[0])
        totals[source] = totals.get(source, 0.0) + tokens
    return next((pool for pool in POOLS if _matches(pool, totals)), None)


def _matches(pool: Pool, totals: Mapping[str, float]) -> bool:
    left = dict(totals)
    for source in pool.sources:
        called = {_plain(name) for name in (source.name, *source.aliases)} & set(left)
        if len(called) != 1:
            return False
        if abs(left.pop(called.pop()) / source.tokens - 1) > COUNT_TOLERANCE:
            return False
    return not left


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
