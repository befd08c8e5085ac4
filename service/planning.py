"""What is answered before anything is stored: fully open pools to start from, quality upsampling, export formats.

The first two are the mathematics of `mixing.pools` and `mixing.quality` over HTTP. A pool comes as a body of
``POST /v1/domain-sets``; a topic's quality buckets come back with their ratios, as shares of an optimization.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from mixing.errors import Infeasible, MixingError
from mixing.pools import POOLS, Pool, PoolSource
from mixing.quality import DISCARDED, LARGEST_FACTOR, QualityCurves, quality_curves
from service.domain_sets.repository import revision_of
from service.domain_sets.schemas import DomainName, DomainRequest, DomainSetRequest
from service.http.routes import ComputeDependency, SettingsDependency, ThreadRoute, slow
from service.http.schemas import Name, Page, RequestModel, view_of
from service.mixtures.exports import FormatView, list_formats
from service.optimizations.schemas import ShareRequest
from store.engine import database_for
from store.problems import Invalid, NotCounted, existing, invalid
from store.settings import Settings

router = APIRouter(prefix="/v1", tags=["planning"], route_class=ThreadRoute)

Tokens = Annotated[int, Field(gt=0, lt=2**63)]


class PoolSummary(BaseModel):
    """A published pool in a list."""

    name: str
    title: str
    trained: str = Field(description="What was trained on its mix.")
    domains: int
    tokens: int


class PoolSourceView(BaseModel):
    """A source: its tokens and natural weight, and its weight and epochs in the published mix, where printed."""

    name: str
    tokens: int
    natural: float
    weight: float | None
    epochs: float | None


class PoolView(PoolSummary):
    """A published pool; ``domain_set`` can be posted once its ``files`` are there, or name where the text is."""

    mix_tokens: int | None
    sources: list[PoolSourceView]
    domain_set: DomainSetRequest


class QualityTopic(RequestModel):
    """A topic whose text is sorted into buckets by quality."""

    topic: DomainName
    target_tokens: Tokens = Field(description="To be read of the topic in the training run.")
    buckets: list[DomainName] = Field(min_length=2, max_length=1000, description="Domains, the worst first.")


class QualityRequest(RequestModel):
    """Topics to upsample by quality: buckets of a domain set, or any with their tokens."""

    topics: list[QualityTopic] = Field(min_length=1, max_length=1000)
    domain_set: Name | None = None
    revision: int | None = Field(default=None, ge=1, lt=2**31, description="The latest when left out.")
    tokens: dict[DomainName, Tokens] | None = Field(default=None, description="Available, by bucket.")
    discarded: float = Field(
        default=DISCARDED, ge=0.0, lt=1.0, description="Share of a topic that may be left out as its worst."
    )
    largest_factor: float = Field(
        default=LARGEST_FACTOR,
        gt=0.0,
        le=1e6,
        description="How often the best bucket is read at most; no more than the repetition cap, to be within it.",
    )
    target_tokens: Tokens | None = Field(
        default=None, description="Length of the training run; with it the answer has weights and shares."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.domain_set is None) == (self.tokens is None):
            raise ValueError("give either a domain_set or the tokens of the buckets")
        if self.revision is not None and self.domain_set is None:
            raise ValueError("a revision is one of a domain_set")
        return self


class QualityBucket(BaseModel):
    """A bucket: read ``factor`` times, ``ratio`` of what is read of its topic, ``weight`` of the training run."""

    domain: str
    tokens: int
    factor: float
    read_tokens: float
    ratio: float
    weight: float | None


class QualityCurve(BaseModel):
    """f(x) = scale (x - start)^exponent exp(rate (x - start)) above ``start``, else 0; x the share that is worse."""

    topic: str
    tokens: int
    target_tokens: int
    start: float
    exponent: float
    rate: float
    scale: float
    buckets: list[QualityBucket]


class QualityView(BaseModel):
    """The curves, in the order of the request; ``shares`` pin the buckets in an optimization of the same run."""

    curves: list[QualityCurve]
    shares: list[ShareRequest]


@router.get("/pools", response_model=Page[PoolSummary])
def list_pools() -> dict[str, object]:
    """The fully open pools, as published."""
    return {"items": [_summary(pool) for pool in POOLS], "next": None}


@router.get("/export-formats", response_model=Page[FormatView])
def list_export_formats() -> dict[str, object]:
    """The formats a mixture can be exported in."""
    return {"items": list_formats(), "next": None}


@router.get("/pools/{name}", response_model=PoolView)
def get_pool(name: str, settings: SettingsDependency) -> PoolView:
    """One pool: its sources, its published mix, and a domain set of it to post."""
    pool = next((pool for pool in POOLS if pool.name == name), None)
    return describe_pool(existing(pool, "pool", name), settings)


@router.post("/quality-curves", response_model=QualityView)
@slow
def create_quality_curves(
    body: QualityRequest, settings: SettingsDependency, compute: ComputeDependency
) -> QualityView:
    """How often to read each quality bucket of some topics (Olmo 3's curve); nothing is stored."""
    return compute(curves_of, settings, body)


def curves_of(settings: Settings, body: QualityRequest) -> QualityView:
    """Run as a computation (`service.processes.computation`). Raises Invalid naming the bucket or topic at fault."""
    buckets = _check_buckets(body)
    counts = body.tokens if body.tokens is not None else _counted(settings, body)
    for name, field in buckets.items():
        if name not in counts:
            where = "tokens" if body.domain_set is None else f"domain set {body.domain_set!r}"
            raise Invalid("unknown_domain", f"{where} has no {name!r}.", field, names=[name])
    return _upsampled(body, counts)


def describe_pool(pool: Pool, settings: Settings) -> PoolView:
    """The pool with the body that makes a domain set of it, its files below the first data root."""
    mix = pool.mix or {}
    return PoolView(
        **_summary(pool).model_dump(),
        mix_tokens=None if pool.mix_tokens is None else round(pool.mix_tokens),
        sources=[
            PoolSourceView(
                name=source.name,
                tokens=round(source.tokens),
                natural=float(natural),
                weight=mix.get(source.name),
                epochs=_epochs(pool, source, mix),
            )
            for source, natural in zip(pool.sources, pool.domains.natural_weights, strict=True)
        ],
        domain_set=DomainSetRequest(
            name=pool.name,
            domains=[
                DomainRequest(
                    name=source.name,
                    files=[f"{settings.roots[0]}/{pool.name}/{source.name}/*"],
                    tokens=round(source.tokens),
                )
                for source in pool.sources
            ],
        ),
    )


def _summary(pool: Pool) -> PoolSummary:
    return view_of(PoolSummary, pool, domains=len(pool.sources), tokens=round(pool.domains.tokens.sum()))


def _epochs(pool: Pool, source: PoolSource, mix: Mapping[str, float]) -> float | None:
    """As printed, or else as the mix and its length have it."""
    if source.epochs is not None or pool.mix_tokens is None or source.name not in mix:
        return source.epochs
    return mix[source.name] * pool.mix_tokens / source.tokens


def _check_buckets(body: QualityRequest) -> dict[str, str]:
    """Where in the request each bucket is named. Raises Invalid for a bucket or a topic that is named twice."""
    topics = Counter(topic.topic for topic in body.topics)
    fields: dict[str, str] = {}
    for index, topic in enumerate(body.topics):
        if topics[topic.topic] > 1:
            raise Invalid("duplicate_topic", f"{topic.topic!r} is named twice.", f"topics[{index}].topic")
        for position, name in enumerate(topic.buckets):
            field = f"topics[{index}].buckets[{position}]"
            if name in fields:
                raise Invalid("duplicate_domain", f"{name!r} is named twice.", field, names=[name])
            fields[name] = field
    total = sum(topic.target_tokens for topic in body.topics)
    if body.target_tokens is not None and total > body.target_tokens:
        raise Invalid(
            "target_too_small",
            f"The topics' targets are {total:,} tokens together, more than the run's {body.target_tokens:,}.",
            "target_tokens",
        )
    return fields


def _counted(settings: Settings, body: QualityRequest) -> Mapping[str, int]:
    with database_for(settings.resolved_database_url) as database, database.read() as session:
        revision = revision_of(session, str(body.domain_set), body.revision)
        counts = {row.name: row.tokens for row in revision.domains}
    named = {name for topic in body.topics for name in topic.buckets}
    if missing := sorted(name for name, tokens in counts.items() if tokens is None and name in named):
        raise NotCounted("not_counted", f"{missing[0]!r} is still being counted; ask again.", "domain_set")
    return {name: tokens for name, tokens in counts.items() if tokens is not None}


def _upsampled(body: QualityRequest, counts: Mapping[str, int]) -> QualityView:
    width = max(len(topic.buckets) for topic in body.topics)
    tokens = np.zeros((len(body.topics), width))  # a topic of fewer buckets has empty ones below its worst
    for row, topic in zip(tokens, body.topics, strict=True):
        row[width - len(topic.buckets) :] = [counts[name] for name in topic.buckets]
    try:
        curves = quality_curves(
            [topic.topic for topic in body.topics],
            tokens,
            np.array([topic.target_tokens for topic in body.topics], float),
            body.discarded,
            body.largest_factor,
        )
    except Infeasible as error:
        index = next(i for i, topic in enumerate(body.topics) if topic.topic in error.names)
        raise Invalid(
            error.code,
            f"{error}.",
            f"topics[{index}].target_tokens",
            names=list(error.names),
            largest_target=error.largest_target,
        ) from error
    except MixingError as error:
        raise invalid(error) from error
    described = [_curve(body, counts, curves, index) for index in range(len(body.topics))]
    return QualityView(
        curves=described, shares=_shares([one for curve in described for one in curve.buckets])
    )


def _curve(
    body: QualityRequest, counts: Mapping[str, int], curves: QualityCurves, index: int
) -> QualityCurve:
    topic = body.topics[index]
    factors = curves.factors[index, -len(topic.buckets) :].tolist()
    buckets = []
    for name, factor in zip(topic.buckets, factors, strict=True):
        read = factor * counts[name]
        buckets.append(
            QualityBucket(
                domain=name,
                tokens=counts[name],
                factor=factor,
                read_tokens=read,
                ratio=read / topic.target_tokens,
                weight=None if body.target_tokens is None else read / body.target_tokens,
            )
        )
    return QualityCurve(
        topic=topic.topic,
        tokens=sum(counts[name] for name in topic.buckets),
        target_tokens=topic.target_tokens,
        start=curves.start[index],
        exponent=curves.exponent[index],
        rate=curves.rate[index],
        scale=curves.scale[index],
        buckets=buckets,
    )


def _shares(buckets: Sequence[QualityBucket]) -> list[ShareRequest]:
    return [
        ShareRequest(domains=[bucket.domain], minimum=bucket.weight, maximum=bucket.weight)
        for bucket in buckets
        if bucket.weight is not None
    ]
