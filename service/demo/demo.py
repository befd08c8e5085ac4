"""The whole job on real text, over HTTP: domain set, swarm, mixture, and a larger model to see if it was right."""

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from rich.console import Console

from service.client import ApiError, Client
from service.demo.corpora import DemoCorpora, prepare_corpora
from service.demo.report import (
    Status,
    follow,
    gain_table,
    meter,
    print_evidence,
    rate_and_eta,
    result_document,
    verdict,
)
from service.processes.serving import LocalService


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """One size of the demo. Tokens are tokens of the demo's own tokenizer."""

    strengths: tuple[float, float]
    """Closer to the natural distribution than Olmix's 0.1 to 5. With those, proxies this small learn mostly that a
    model trained on one domain is bad at everything else, and the law is flat where the answer lies."""
    proxy_size: str
    proxy_tokens: int
    launch_size: str
    """At least 8 times the proxy's non-embedding parameters."""
    target_tokens: int
    """What the launch trains on, and the R of the repetition caps."""
    batch_rows: int
    launch_batch_rows: int
    sequence_length: int
    repetition_cap: float
    seed: int


FULL = DemoSettings(
    strengths=(3.0, 30.0),
    proxy_size="nano-0.1M",
    proxy_tokens=128_000,
    launch_size="nano-1M",
    target_tokens=1_600_000,
    batch_rows=8,
    launch_batch_rows=16,
    sequence_length=64,
    repetition_cap=4.0,
    seed=0,
)

Document = Mapping[str, Any]

DOMAIN_SET = "demo"
VOCABULARY_SIZE = 4096
HELD_OUT_FRACTION = 0.05
"""More than usual: the smallest domain has 80 documents, and its slice should not be one of them."""
EVALUATION_BYTES = 12_288
"""Enough to see what a mixture does to a domain, at a quarter of the usual cost."""
ENDED = ("succeeded", "failed", "cancelled")


class DemoFailed(Exception):
    """A stage ended without its result; the message says why and how to go on."""


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """Where the demo works and what it asks for."""

    data_directory: Path
    port: int
    settings: DemoSettings


@dataclass(slots=True)
class Demo:
    """One run of the demo: what it has started and what it has learned."""

    request: DemoRequest
    console: Console
    service: LocalService | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """All stages; answers the ``--json`` document. The service stays up until ``stop``.

        Raises DemoFailed, ApiError, Unreachable and what fetching and starting raise.
        """
        with ExitStack() as stack:
            memory = stack.enter_context(PeakMemory())
            corpora = self._fetch()
            self.service = LocalService.start(self.request.data_directory, self.request.port)
            self.console.print(f"Service: {self.service.url}  data: {self.request.data_directory}")
            client = stack.enter_context(Client(self.service.url, self.service.token))
            revision = self._prepare(client, corpora)
            optimization = self._optimize(client, corpora, revision)
            evidence = client.mixture(optimization["mixture_id"])["evidence"]
            print_evidence(self.console, optimization, evidence)
            natural, proposed = self._launch(client, optimization)
            self.console.print(gain_table(evidence, natural, proposed))
            self.console.print(verdict(evidence, natural, proposed), style="bold", highlight=False)
        return {
            **result_document(optimization, evidence, natural, proposed),
            "seconds": {stage: round(seconds, 2) for stage, seconds in self.seconds.items()},
            "peak_memory_bytes": memory.peak_bytes,
        }

    def stop(self) -> None:
        """Stop the service, if it was started here."""
        if self.service is not None:
            self.service.stop()

    def _fetch(self) -> DemoCorpora:
        started = time.monotonic()
        corpora = prepare_corpora(
            self.request.data_directory, lambda line: self.console.print(line, highlight=False)
        )
        self.seconds["fetch"] = time.monotonic() - started
        return corpora

    def _prepare(self, client: Client, corpora: DemoCorpora) -> Document:
        domains = [{"name": name, "files": [str(path)]} for name, path in sorted(corpora.domains.items())]
        revision = self._ensure_revision(client, domains, corpora.content_hash)
        if revision["state"] in ("failed", "cancelled"):
            revision = client.retry_revision(revision["domain_set"], revision["number"])
        with meter(self.console, "Preparing domains") as shown:
            revision = follow(
                lambda: client.revision(revision["domain_set"], revision["number"]),
                lambda document: document["state"] in ENDED,
                lambda document: shown.show(
                    Status(document["progress"]["done"], document["progress"]["total"], "tokenized and split")
                ),
            )
        return _require(revision, "The preparation")

    def _ensure_revision(self, client: Client, domains: list[dict[str, Any]], key: str) -> Document:
        request = {
            "name": DOMAIN_SET,
            "tokenizer": {"vocabulary_size": VOCABULARY_SIZE},
            "held_out_fraction": HELD_OUT_FRACTION,
            "evaluation_bytes": EVALUATION_BYTES,
            "domains": domains,
        }
        try:
            return client.create_domain_set(request, f"demo-set-{key}")
        except ApiError as error:
            if error.code != "domain_set_exists":
                raise
        # The demo's text changed since this data directory was made (another version of Mixwright).
        request = {"domains": domains}
        try:
            try:
                return client.create_revision(DOMAIN_SET, request, f"demo-revision-{key}")
            except ApiError as error:
                if error.code != "ambiguous_change":
                    raise
                said = _all_new(error.problem["questions"])
                return client.create_revision(DOMAIN_SET, {**request, "said": said}, f"demo-said-{key}")
        except ApiError as error:
            if error.code != "revision_unchanged":
                raise
            return client.revision(DOMAIN_SET)

    def _optimize(self, client: Client, corpora: DemoCorpora, revision: Document) -> Document:
        request = self._optimization_request(corpora, revision)
        optimization = client.create_optimization(request, _key("demo-optimization", request))
        if optimization["state"] in ("failed", "cancelled"):
            optimization = client.retry_optimization(optimization["id"])
        with meter(self.console, "Training the swarm") as shown:
            optimization = follow(
                lambda: client.optimization(optimization["id"]),
                lambda document: document["state"] in ENDED,
                lambda document: shown.show(_swarm_status(document)),
            )
        self.seconds |= {stage["name"]: stage["seconds"] for stage in optimization["progress"]["stages"]}
        return _require(optimization, "The optimization")

    def _optimization_request(self, corpora: DemoCorpora, revision: Document) -> dict[str, Any]:
        settings = self.request.settings
        return {
            "domain_set": DOMAIN_SET,
            "revision": revision["number"],
            "seed": settings.seed,
            "target_tokens": settings.target_tokens,
            "repetition_cap": settings.repetition_cap,
            "strengths": list(settings.strengths),
            "proxy": {
                "size": settings.proxy_size,
                "tokens": settings.proxy_tokens,
                "sequence_length": settings.sequence_length,
                "batch_rows": settings.batch_rows,
            },
            "tasks": [{"name": name, "path": str(path)} for name, path in sorted(corpora.tasks.items())],
            # A demo is the whole job, also where an older one has left runs behind.
            **({"reuse": {"kind": "none", "runs": False}} if revision["parent"] else {}),
        }

    def _launch(self, client: Client, optimization: Document) -> tuple[Document, Document]:
        launches = [
            self._start_launch(client, optimization[f"{kind}mixture_id"]) for kind in ("natural_", "")
        ]

        def fetch() -> dict[str, Any]:
            return {"launches": [client.launch(launch["id"]) for launch in launches]}

        with meter(self.console, "Training the larger model twice") as shown:
            last = follow(
                fetch,
                lambda document: all(launch["state"] in ENDED for launch in document["launches"]),
                lambda document: shown.show(_launch_status(document["launches"])),
            )
        natural, proposed = (_require(launch, "A launch") for launch in last["launches"])
        self.seconds["launch"] = max(natural["seconds"], proposed["seconds"])
        return natural, proposed

    def _start_launch(self, client: Client, mixture_id: str) -> Document:
        settings = self.request.settings
        request = {
            "mixture_id": mixture_id,
            "size": settings.launch_size,
            "tokens": settings.target_tokens,
            "sequence_length": settings.sequence_length,
            "batch_rows": settings.launch_batch_rows,
            "seed": settings.seed,
        }
        launch = client.create_launch(request, _key("demo-launch", request))
        if launch["state"] in ("failed", "cancelled"):
            launch = client.retry_launch(launch["id"])
        return launch


def _key(prefix: str, request: Mapping[str, Any]) -> str:
    """The same request has the same key: asking again goes on with what is there."""
    return f"{prefix}-{hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()}"


def _require(document: Document, what: str) -> Document:
    if document["state"] != "succeeded":
        failure = document["failure"] or {"code": document["state"], "detail": ""}
        raise DemoFailed(f"{what} {document['state']}: {failure['code']}: {failure['detail']}")
    return document


def _all_new(questions: list[Document]) -> dict[str, str]:
    """Nothing is what it was: the demo trains its whole swarm whatever there was before."""
    return {one["domain"]: one["candidates"][-1]["word"] for one in questions}


def _swarm_status(optimization: Document) -> Status:
    progress = optimization["progress"]
    runs = progress["runs"]
    remark = rate_and_eta(progress)
    if optimization["stage"] != "train":
        remark = f"stage: {optimization['stage']}"
    if runs["failed"]:
        remark += f", {runs['failed']} failed"
    return Status(runs["succeeded"] + runs["failed"], runs["total"], f"runs  {remark}")


def _launch_status(launches: list[Document]) -> Status:
    done = total = 0
    rate = 0.0
    for launch in launches:
        planned = launch["tokens"] or launch["settings"]["tokens"]
        progress = launch["progress"] or {}
        total += planned
        done += planned if launch["state"] == "succeeded" else progress.get("done", 0)
        rate += progress.get("tokens_per_second") or 0.0
    eta = (total - done) / rate if rate else None
    return Status(done, total, "tokens  " + rate_and_eta({"tokens_per_second": rate, "eta_seconds": eta}))


SAMPLE_SECONDS = 2.0


class PeakMemory:
    """Samples this process and its descendants while the block runs; ``peak_bytes`` is the largest sum seen.

    Shared pages are counted once (proportional set size) where the system tells, else once a process.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while True:
            total = sum(_held(process) for process in (own, *own.children(recursive=True)))
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(SAMPLE_SECONDS):
                return


def _held(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return getattr(full, "pss", full.rss)
    except psutil.Error:
        return 0  # it ended, or is not ours to look into
