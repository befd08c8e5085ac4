"""OpenTelemetry traces, when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set and ``mixwright[otel]`` is installed.

Requests and jobs are spans of different processes and minutes apart, so nothing is passed from one to the other: the
trace of an optimization, a launch or a revision is known from its id. Every job that works for it is a span of that
trace, and the request that made it is linked to it.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"

_log = logging.getLogger("mixwright.tracing")


def is_configured() -> bool:
    """Whether the operator named a place to send traces to."""
    return bool(os.environ.get(TRACES_ENDPOINT) or os.environ.get(ENDPOINT))


def configure_tracing(part: str) -> "TracerProvider | None":
    """Send this process's spans as service ``mixwright-<part>``; None, and nothing imported, when not asked for.

    Without the extra it says so and goes on: traces are worth less than the service.
    """
    if not is_configured():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        _log.warning("%s is set, but no traces are sent: pip install 'mixwright[otel]' (%s)", ENDPOINT, error)
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": f"mixwright-{part}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def owner_context(owner: str) -> SpanContext:
    """The trace of what works for ``owner`` (a revision, an optimization, a launch), the same in every process."""
    digest = hashlib.sha256(f"mixwright owner {owner}".encode()).digest()
    return SpanContext(
        trace_id=int.from_bytes(digest[:16], "big"),
        span_id=int.from_bytes(digest[16:24], "big"),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def link_to_owner(owner: str) -> None:
    """Link the request's span to the trace of the resource it made."""
    span = trace.get_current_span()
    if span.is_recording():
        span.add_link(owner_context(owner), {"mixwright.owner": owner})


@contextmanager
def job_span(kind: str, owner: str, attributes: Mapping[str, Any]) -> Iterator[trace.Span]:
    """A span of ``owner``'s trace around the execution of one job; free when traces are not configured."""
    parent = trace.set_span_in_context(NonRecordingSpan(owner_context(owner)))
    named = {f"mixwright.{name}": value for name, value in attributes.items() if value is not None}
    tracer = trace.get_tracer("mixwright")
    with tracer.start_as_current_span(
        f"job {kind}", context=parent, kind=SpanKind.CONSUMER, attributes=named
    ) as span:
        yield span
