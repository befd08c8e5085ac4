"""``mixwright demo``: the whole job on real text, over HTTP.

Domain set, swarm, mixture, and a larger model to see if it was right.
"""

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil

from exchange.text import summary
from proxy_models.storage import write_atomically
from service.cli import BAD_ENDS, follow, shown_link, table
from service.client import ApiError, Client, Unreachable
from service.dashboard.formatting import bpb, decimals, interval, signed
from service.dashboard.sentences import measured_verdict, target_sentences
from service.demo.corpora import DemoCorpora, prepare_corpora
from service.demo.packages import CorporaError
from service.launches.comparison import Comparison, compare_pair
from service.processes.serving import LocalService, StartFailed
from store.settings import Settings


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """One size of the demo. Tokens are tokens of the demo's own tokenizer."""

    strengths: tuple[float, float] = (3.0, 30.0)
    """Closer to the natural distribution than Olmix's 0.1 to 5. With those, proxies this small learn mostly that a
    model trained on one domain is bad at everything else, and the law is flat where the answer lies."""
    proxy_size: str = "nano-0.1M"
    proxy_tokens: int = 128_000
    launch_size: str = "nano-1M"
    """At least 8 times the proxy's non-embedding parameters."""
    target_tokens: int = 1_600_000
    """What the launch trains on, and the R of the repetition caps."""
    batch_rows: int = 8
    launch_batch_rows: int = 16
    sequence_length: int = 64
    repetition_cap: float = 4.0
    seed: int = 0


FULL = DemoSettings()

Document = Mapping[str, Any]

VOCABULARY_SIZE = 4096
HELD_OUT_FRACTION = 0.05
"""More than usual: the smallest domain has 80 documents, and its slice should not be one of them."""
EVALUATION_BYTES = 12_288
"""Enough to see what a mixture does to a domain, at a quarter of the usual cost."""
LAUNCHER = "several-processes"


class DemoFailed(Exception):
    """A stage ended without its result; the message says why and how to go on."""


@dataclass(slots=True)
class Demo:
    """One run of the demo over a data directory: what it has started and what it has learned."""

    data_directory: Path
    port: int
    processes: int = 1
    """That train each of the larger models."""
    service: LocalService | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """All stages; answers the ``--json`` document. The service stays up until ``stop``.

        Raises DemoFailed, ApiError, Unreachable and what fetching and starting raise.
        """
        with ExitStack() as stack:
            memory = stack.enter_context(peak_memory())
            corpora = self._fetch()
            self._configure()
            self.service = LocalService.start(self.data_directory, self.port)
            click.echo(f"Service: {self.service.url}  data: {self.data_directory}")
            client = stack.enter_context(Client(self.service.url, self.service.token))
            revision = self._prepare(client, corpora)
            optimization = self._optimize(client, corpora, revision)
            evidence = client.mixture(optimization["mixture_id"])["evidence"]
            click.echo(answer_text(optimization, evidence))
            comparison = compare_pair(evidence, *self._launch(client, optimization))
            click.echo(f"{gain_table(comparison)}\n\n{measured_verdict(comparison).words}")
        return {
            **result_document(optimization, evidence, comparison),
            "seconds": {stage: round(seconds, 2) for stage, seconds in self.seconds.items()},
            "peak_memory_bytes": memory.peak_bytes,
        }

    def stop(self) -> None:
        """Stop the service, if it was started here."""
        if self.service is not None:
            self.service.stop()

    def _configure(self) -> None:
        """A launcher for several processes; the service reads of it as it reads all settings."""
        if self.processes > 1:
            file = self.data_directory / "demo-launchers.toml"
            write_atomically(file, f"[launchers.{LAUNCHER}]\nprocesses = {self.processes}\n".encode())
            os.environ["MIXWRIGHT_LAUNCHERS"] = str(file)

    def _fetch(self) -> DemoCorpora:
        started = time.monotonic()
        corpora = prepare_corpora(self.data_directory, click.echo)
        self.seconds["fetch"] = time.monotonic() - started
        return corpora

    def _prepare(self, client: Client, corpora: DemoCorpora) -> Document:
        request = {
            "tokenizer": {"vocabulary_size": VOCABULARY_SIZE},
            "held_out_fraction": HELD_OUT_FRACTION,
            "evaluation_bytes": EVALUATION_BYTES,
            "domains": [
                {"name": name, "files": [str(path)]} for name, path in sorted(corpora.domains.items())
            ],
        }
        # Another text (of another version of Mixwright) is another domain set, not a change of it.
        key = _key({**request, "text": corpora.content_hash})
        revision = client.create_domain_set({**request, "name": key[:13]}, key)
        name, number = revision["domain_set"], revision["number"]
        if revision["state"] in BAD_ENDS:  # what ended badly before is tried once more, here and below
            client.retry_revision(name, number)
        return _succeeded(follow(client.preparation(name, number)))

    def _optimize(self, client: Client, corpora: DemoCorpora, revision: Document) -> Document:
        request = _optimization_request(corpora, revision)
        optimization = client.create_optimization(request, _key(request))
        if optimization["state"] in BAD_ENDS:
            client.retry_optimization(optimization["id"])
        optimization = _succeeded(follow(client.events(optimization["id"])))
        self.seconds |= {stage["name"]: stage["seconds"] for stage in optimization["progress"]["stages"]}
        return optimization

    def _launch(self, client: Client, optimization: Document) -> tuple[Document, Document]:
        """The larger model on the natural distribution and on the proposed mixture."""
        mixtures = [optimization[name] for name in ("natural_mixture_id", "mixture_id")]
        requests = [_launch_request(mixture, self.processes) for mixture in mixtures]
        made = [client.create_launch(request, _key(request)) for request in requests]
        for launch in made:
            if launch["state"] in BAD_ENDS:
                client.retry_launch(launch["id"])
        natural, proposed = (_succeeded(follow(client.events(launch["id"]))) for launch in made)
        self.seconds["launch"] = max(natural["seconds"], proposed["seconds"])
        return natural, proposed


def _succeeded(document: Document) -> Document:
    if document["state"] != "succeeded":
        failure = document["failure"] or {"code": document["state"], "detail": ""}
        raise DemoFailed(f"{document['id']} {document['state']}: {failure['code']}: {failure['detail']}")
    return document


def _optimization_request(corpora: DemoCorpora, revision: Document) -> dict[str, Any]:
    return {
        "domain_set": revision["domain_set"],
        "revision": revision["number"],
        "seed": FULL.seed,
        "target_tokens": FULL.target_tokens,
        "target": {"size": FULL.launch_size, "tokens": FULL.target_tokens},
        "repetition_cap": FULL.repetition_cap,
        "strengths": list(FULL.strengths),
        "proxy": {
            "size": FULL.proxy_size,
            "tokens": FULL.proxy_tokens,
            "sequence_length": FULL.sequence_length,
            "batch_rows": FULL.batch_rows,
        },
        "tasks": [{"name": name, "path": str(path)} for name, path in sorted(corpora.tasks.items())],
    }


def _launch_request(mixture_id: str, processes: int) -> dict[str, Any]:
    together = {"launcher": LAUNCHER, "engine": {"sharding": "fsdp"}} if processes > 1 else {}
    return {
        **together,
        "mixture_id": mixture_id,
        "size": FULL.launch_size,
        "tokens": FULL.target_tokens,
        "sequence_length": FULL.sequence_length,
        "batch_rows": FULL.launch_batch_rows,
        "seed": FULL.seed,
    }


def _key(request: Mapping[str, Any]) -> str:
    """The same request has the same key: asking again goes on with what is there."""
    return f"demo-{hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()}"


def answer_text(optimization: Document, evidence: Document) -> str:
    """The whole answer of an optimization: mixture, regression by task, constraints, warnings, lost runs."""
    tasks = sorted(evidence["tasks"], key=lambda task: not task["weight"])
    rows = [
        (
            task["name"],
            decimals(task["rank_correlation"], 3),
            bpb(task["mae"]),
            bpb(task["noise"]),
            signed(task["gain"]),
            interval(task["gain_interval"]),
        )
        for task in tasks
    ]
    titles = ("TASK", "RANK CORR. ON UNSEEN RUNS", "ABS. ERROR", "NOISE", "GAIN (BPB)", "90% INTERVAL")
    lost = [f"Lost: {run['run_id']}: {run['reason']}" for run in optimization["lost_runs"]]
    target = target_sentences(evidence, optimization["to_know"])
    return "\n".join(["", summary(evidence), "", table(titles, rows), "", *lost, *target])


def gain_table(comparison: Comparison) -> str:
    """The predicted gain against the gain measured on the larger model, which is the one that was planned."""
    rows = [
        (
            gain.name,
            signed(gain.predicted),
            interval(gain.interval),
            signed(gain.measured),
            bpb(gain.natural),
            bpb(gain.proposed),
        )
        for gain in (*comparison.tasks, comparison.objective)
    ]
    return "\n" + table(("GAIN (BPB)", "PREDICTED", "90% INTERVAL", "MEASURED", "NATURAL", "PROPOSED"), rows)


def result_document(optimization: Document, evidence: Document, comparison: Comparison) -> dict[str, Any]:
    """The ``--json`` document, but for the seconds and the memory, which only the demo itself can know."""
    objective, measured = evidence["objective"], comparison.objective
    trained = sum(launch["tokens"] or 0 for launch in (comparison.natural, comparison.proposed))
    return {
        "domains": len(evidence["domains"]),
        "runs": optimization["progress"]["runs"]["total"],
        "tokens_trained": optimization["progress"]["tokens_trained"] + trained,
        "held_out_rank_correlation": evidence["held_out_rank_correlation"],
        "predicted": {"natural": objective["natural"], "proposed": objective["proposed"]},
        "measured": {"natural": measured.natural, "proposed": measured.proposed},
        "target": {
            "predicted_gain": measured.predicted,
            "interval": list(measured.interval or ()),
            "measured_gain": measured.measured,
            "tasks_inside": sum(bool(task.is_inside) for task in comparison.tasks),
        },
    }


SAMPLE_SECONDS = 2.0


@dataclass(slots=True)
class PeakMemory:
    """The largest sum of the memory that this process and its descendants held."""

    peak_bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Sample the memory while the block runs.

    Shared pages are counted once (proportional set size) where the system tells, else once a process.
    """
    memory, is_over = PeakMemory(), threading.Event()

    def sample() -> None:
        own = psutil.Process()
        while True:
            total = sum(_held(process) for process in (own, *own.children(recursive=True)))
            memory.peak_bytes = max(memory.peak_bytes, total)
            if is_over.wait(SAMPLE_SECONDS):
                return

    thread = threading.Thread(target=sample, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        is_over.set()
        thread.join()


def _held(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return getattr(full, "pss", full.rss)
    except psutil.Error:
        return 0  # it ended, or is not ours to look into


def run_demo(settings: Settings, json_file: Path | None, processes: int = 1) -> None:
    """The command: run the demo, then write its result or keep the service up."""
    run = Demo(settings.data_directory, settings.port, processes)
    # Asked to stop is asked to stop, by whatever means.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = run.run()
        if json_file is not None:
            json_file.write_text(json.dumps(result, indent=2) + "\n")
        else:
            assert run.service is not None
            _stay(shown_link(run.service.url, settings))
    except KeyboardInterrupt:
        click.echo("\nStopped. Run the same command again to go on from here.")
        raise SystemExit(130) from None
    except (ApiError, CorporaError, DemoFailed, StartFailed, Unreachable) as error:
        raise click.ClickException(
            f"{error}\nNothing is lost: run the same command again to go on."
        ) from error
    finally:
        run.stop()


def _stay(link: str) -> None:
    click.echo(f"\nDashboard: {link}\nCtrl-C stops the service; `make serve` opens the same data again.")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("\nStopped.")
