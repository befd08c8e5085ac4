"""Requests and the jobs they cause are spans that are found from each other; without the setting there is nothing."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.cli import sign_in_link
from service.http import app as web
from service.http.app import create_app
from store import jobs
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tracing import owner_context
from tests.service.conftest import TOKEN
from workers.claims.claim import claim
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What would be exported, of a provider that nobody else of the session sees."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setattr(web, "configure_tracing", lambda _part: provider)
    yield exporter
    provider.shutdown()


def test_a_request_is_linked_to_the_trace_of_the_jobs_it_causes(
    settings: Settings, domain_set: dict[str, Any], spans: InMemorySpanExporter
) -> None:
    upgrade(settings.resolved_database_url)
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-ID": "mine"}
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers=headers) as client:
        client.get(sign_in_link("", settings), follow_redirects=False)
        revision = client.post("/v1/domain-sets", json=domain_set).json()["id"]
    (request,) = spans.get_finished_spans()  # the visit, whose address has a code, is not one
    assert request.name == "POST /v1/domain-sets"
    assert (request.attributes or {})["mixwright.request_id"] == "mine"
    assert [link.context.trace_id for link in request.links] == [owner_context(revision).trace_id]

    database = Database(settings.resolved_database_url)
    claimed = claim(database, "tester", 60, kinds=[jobs.PREPARE_TOKENIZER])
    assert claimed is not None
    child = Child()
    try:
        run_claims(Worker(database, settings, threading.Event()), [claimed], child)
    finally:
        child.kill()
        database.close()
    (_, job) = spans.get_finished_spans()
    assert job.name == "job prepare_tokenizer"
    assert job.context is not None
    assert job.context.trace_id == owner_context(revision).trace_id
    about = job.attributes or {}
    assert about["mixwright.job_id"] == claimed.job_id
    assert (about["mixwright.attempt"], about["mixwright.worker"]) == (1, "tester")
    assert about["mixwright.outcome"] == "succeeded"


PROGRAM = """
import sys
from service.http.app import create_app
from store.settings import Settings
create_app(Settings())
import workers.execution.execute
wanted = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
print(any(name.startswith(wanted) for name in sys.modules))
"""


@pytest.mark.parametrize(("endpoint", "imported"), [(None, "False"), ("http://127.0.0.1:9", "True")])
def test_the_sdk_is_imported_only_when_traces_have_somewhere_to_go(
    tmp_path: Path, endpoint: str | None, imported: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment |= {"MIXWRIGHT_DATA_DIRECTORY": str(tmp_path), "MIXWRIGHT_TOKEN": TOKEN}
    if endpoint:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    command = [sys.executable, "-c", PROGRAM]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == imported, outcome.stderr
