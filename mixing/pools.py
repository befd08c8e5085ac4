"""Fully open pools as they were published: their sources, token counts and mixes.

They serve as examples to start from, and a domain set with the sources of one is recognised by its names and counts.
Counts and percentages are as printed, to three digits or so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

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


_WIKIPEDIA = ("wiki", "wikipedia_wikibooks", "wikipedia_and_wikibooks")
_CODE = ("starcoder_data", "starcoderdata")
_STACK_EXCHANGE = ("stack_exchange", "se")

POOLS: tuple[Pool, ...] = (
    Pool(
        "dolma3",
        "Dolma 3",
        "Olmo 3, 6T tokens",
        6e12,
        (
            PoolSource("arxiv", 21.4e9, 0.86),
            PoolSource("common_crawl", 8.14e12, 76.1, aliases=("cc", "commoncrawl")),
            PoolSource("finemath", 34.1e9, 2.56, aliases=("finemath3", "finemath_3plus", "finemath3+")),
            PoolSource(
                "olmocr_pdfs", 972e9, 13.6, aliases=("olmocr", "olmocr_science_pdfs", "pdfs", "s2pdf")
            ),
            PoolSource("stack_edu", 137e9, 6.89, aliases=("stackedu",)),
            PoolSource("wikipedia", 3.69e9, 0.04, aliases=_WIKIPEDIA),
        ),
    ),
    Pool(
        "olmoe_mix",
        "OLMoE-mix",
        "OLMoE",
        None,
        (
            PoolSource("algebraic_stack", 12.6e9, aliases=("algebraicstack",)),
            PoolSource("arxiv", 21.1e9),
            PoolSource("dclm", 3860e9, aliases=("dclm_baseline",)),
            PoolSource("open_web_math", 12.7e9, aliases=("openwebmath",)),
            PoolSource("pes2o", 57.2e9),
            PoolSource("starcoder", 101e9, aliases=_CODE),
            PoolSource("wikipedia", 3.69e9, aliases=_WIKIPEDIA),
        ),
    ),
    Pool(
        "dolmino_olmoe",
        "Dolmino for OLMoE-0125",
        "OLMoE-0125, second stage",
        None,
        (
            PoolSource("dclm", 752e9, 50.2, 0.0685, ("dclm_baseline",)),
            PoolSource("flan", 17.0e9, 16.7, 1.0),
            PoolSource("math", 10.7e9, 17.5, 2.0, ("dolmino_math",)),
            PoolSource("pes2o", 58.6e9, 9.52, 0.167),
            PoolSource("stackexchange", 1.26e9, 2.47, 2.0, _STACK_EXCHANGE),
            PoolSource("wikipedia", 3.70e9, 3.57, 1.0, _WIKIPEDIA),
        ),
    ),
)


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
