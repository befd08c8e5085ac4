"""What the benchmark on real text asks of the service: revisions, plans, mixtures and launches, each only once.

Every create has a key made of what is asked, so that a benchmark started again goes on with what is there. A plan
tells of the runs there are when it is asked for; so the first answer is kept in a file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.cli import follow
from service.client import Client
from service.demo.demo import EVALUATION_BYTES, HELD_OUT_FRACTION, VOCABULARY_SIZE, DemoSettings

Document = dict[str, Any]

DOMAIN_SET = "reuse-real-text"
METHOD = "mixwright"
ENDED_BADLY = ("failed", "cancelled")


class BenchmarkFailed(Exception):
    """A stage ended without its result; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one service for everything.

    Attributes:
        client: of the service.
        settings: proxies and larger models, the demo's.
        launch_tokens: that a larger model is trained on.
        tasks: file by task, the same throughout.
        answers: directory of the plans' first answers.
    """

    client: Client
    settings: DemoSettings
    launch_tokens: int
    tasks: Mapping[str, Path]
    answers: Path

    def first_revision(self, domains: Sequence[Document]) -> Document:
        """Revision 1, prepared."""
        request = {
            "name": DOMAIN_SET,
            "tokenizer": {"vocabulary_size": VOCABULARY_SIZE},
            "held_out_fraction": HELD_OUT_FRACTION,
            "evaluation_bytes": EVALUATION_BYTES,
            "domains": list(domains),
        }
        return self._prepared(self.client.create_domain_set(request, _key("set", request)))

    def patched(self, chain: str, parent: int, patch: Document) -> Document:
        """The revision that a patch makes of ``parent``, prepared; every chain has its own.

        Runs count along the parents of a revision, so chains that branch off never see each other's.
        """
        request = {"patch": patch, "parent": parent}
        return self._prepared(self.client.create_revision(DOMAIN_SET, request, _key(chain, request)))

    def question(self, revision: int, reuse: Document | str | None) -> Document:
        """The request of an optimization; all have everything but these two in common."""
        settings = self.settings
        return {
            "domain_set": DOMAIN_SET,
            "revision": revision,
            "method": METHOD,
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
            "tasks": [{"name": name, "path": str(path)} for name, path in sorted(self.tasks.items())],
            **({} if reuse is None else {"reuse": reuse}),
        }

    def plan(self, question: Document) -> Document:
        """What a dry run answered when it was first asked. Raises ApiError."""
        path = self.answers / f"{_key('plan', question)}.json"
        if not path.exists():
            self.answers.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(".scratch")
            scratch.write_text(json.dumps(self.client.plan_optimization(question)))
            scratch.replace(path)
        return json.loads(path.read_text())

    def optimized(self, title: str, question: Document) -> Document:
        """The question's optimization, when it has succeeded."""
        optimization = self.client.create_optimization(question, _key("optimization", question))
        if optimization["state"] in ENDED_BADLY:
            self.client.retry_optimization(optimization["id"])
        return _require(dict(follow(self.client.events(optimization["id"]))), title)

    def launched(self, mixture_ids: Sequence[str], seeds: Sequence[int]) -> list[list[Document]]:
        """By mixture, the launches of a larger model with each seed, when all have succeeded."""
        launches = [self._launch(mixture, seed)["id"] for mixture in mixture_ids for seed in seeds]
        trained = (
            _require(dict(follow(self.client.events(launch))), f"Launch {launch}") for launch in launches
        )
        return [[next(trained) for _ in seeds] for _ in mixture_ids]

    def _prepared(self, revision: Document) -> Document:
        name, number = revision["domain_set"], revision["number"]
        if revision["state"] in ENDED_BADLY:
            self.client.retry_revision(name, number)
        return _require(dict(follow(self.client.preparation(name, number))), f"Revision {number}")

    def _launch(self, mixture_id: str, seed: int) -> Document:
        request = {
            "mixture_id": mixture_id,
            "size": self.settings.launch_size,
            "tokens": self.launch_tokens,
            "sequence_length": self.settings.sequence_length,
            "batch_rows": self.settings.launch_batch_rows,
            "seed": seed,
        }
        launch = self.client.create_launch(request, _key("launch", request))
        if launch["state"] in ENDED_BADLY:
            return self.client.retry_launch(launch["id"])
        return launch


def _key(prefix: str, request: Mapping[str, Any]) -> str:
    return f"{prefix}-{hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()}"


def _require(document: Document, what: str) -> Document:
    if document["state"] != "succeeded":
        failure = document["failure"] or {"code": document["state"], "detail": ""}
        raise BenchmarkFailed(f"{what} {document['state']}: {failure['code']}: {failure['detail']}")
    return document
