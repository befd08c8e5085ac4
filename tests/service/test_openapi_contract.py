"""The published OpenAPI document is what a served application does: every answer to generated requests is in it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from benchmarks.api import TOKEN, served
from benchmarks.api_store import DOMAINS, Sizes, Stored, fill
from store import jobs
from store.engine import Database
from store.revisions.token_files import TokenFiles
from store.schema import upgrade
from store.settings import Settings
from store.tables import Job, Launch, MixtureRow, Optimization, Revision, Run, Submission, Swarm, WorkerRow
from tests.hostile.test_links import tokenizer_file
from tests.servers import scratch_database
from tests.service.test_families import save_ours

Document = dict[str, Any]
SEED = "1"
EXAMPLES = "5"
"""A generated request an operation; the boundary cases of the coverage phase come on top."""
PROXY = {"size": "nano-0.1M", "tokens": 65_536}
SUBMISSION = "mixwright-launch-1"
STREAMS = "events$"
"""What ends with what it is about has tests of its own (`test_events`, `test_changes`); so has what needs more."""
NEVER_GOOD = {
    "GET /v1/events",
    "GET /v1/optimizations/{optimization_id}/events",
    "GET /v1/launches/{launch_id}/events",
    "POST /v1/mixtures:evaluate",
    "GET /v1/optimizations/{optimization_id}/held-out",
}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    # Generated bodies may be long, and 413 is no answer to whether one fits the schema; nor is
    # 429 to whether a wrong token is refused.
    settings = Settings(data_directory=tmp_path, token=TOKEN, body_limit_bytes=2**26, wrong_tokens=10_000)
    if request.param == "sqlite":
        yield settings
    else:
        with scratch_database(request.getfixturevalue("postgres_server")) as url:
            yield settings.model_copy(update={"database_url": url})


def fill_store(settings: Settings) -> dict[str, Document]:
    """A store with something in it for every request to be good about: by operation, what makes it so."""
    upgrade(settings.resolved_database_url)
    with closing(Database(settings.resolved_database_url)) as database:
        stored = fill(database, Sizes(runs=12, optimizations=4, domain_sets=2))
        with database.write() as session:
            parameters = _special(session, stored, settings)
    corpora = settings.data_directory / "corpora"
    corpora.mkdir(parents=True)
    texts = []
    for name in ("a", "b", "c"):
        path = corpora / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{name} {line} " * 40}) + "\n" for line in range(400)))
        texts.append({"name": name, "files": [str(path)]})
    weights = dict.fromkeys(DOMAINS, 1 / len(DOMAINS))
    question = {"domain_set": "pool-0", "target_tokens": 24_000_000, "repetition_cap": 4, "proxy": PROXY}
    topic = {"topic": "web", "target_tokens": 2_000_000, "buckets": ["web:0", "web:1", "web:2"]}
    bodies = {
        "POST /v1/domain-sets": {"name": "new", "domains": texts},
        "POST /v1/domain-sets/{name}/revisions": {"patch": {"add": [{**texts[0], "name": "d"}]}},
        "POST /v1/optimizations": question,
        "POST /v1/optimizations/{optimization_id}:extend": {"runs": 4},
        "POST /v1/domain-sets/{name}/adoptions": {"mixture_id": stored.mixtures[0], "why": "measured"},
        "POST /v1/mixtures": {"domain_set": "pool-0", "name": "mine", "weights": weights},
        "POST /v1/mixtures/{mixture_id}/token-files": {"format": "olmo-core"},
        "POST /v1/mixtures:schedule": {
            "format": "csv",
            "phases": [{"mixture_id": stored.mixtures[0], "tokens": 10_000}] * 2,
            "repetition_cap": 1000.0,
        },
        "POST /v1/launches": {"mixture_id": stored.mixtures[0], **PROXY},
        "POST /v1/launches/{launch_id}/state": {"submission": SUBMISSION, "state": "running"},
        "POST /v1/launches/{launch_id}/metrics": {"final": {"arc": 0.5}},
        "POST /v1/swarms": {
            "domain_set": "pool-0",
            "runs": [{"id": "r0", "weights": weights, "metrics": {"loss": 2.0}}],
        },
        "POST /v1/swarms/{swarm_id}/results": {"results": [{"run": "r0", "metrics": {"loss": 2.0}}]},
        "POST /v1/quality-curves": {"domain_set": "pool-0", "target_tokens": 24_000_000, "topics": [topic]},
    }
    return {
        operation: {"body": bodies.get(operation), "parameters": parameters.get(operation, {})}
        for operation in {*bodies, *parameters}
    }


def _elsewhere(session: Session, stored: Stored) -> tuple[str, str]:
    """A swarm that was brought, and an optimization that waits for results; ids of both."""
    like = session.get_one(Optimization, stored.optimizations[0])
    swarm = Swarm(revision_id=like.revision_id, brought={})
    settings = {**like.settings, "trained": "elsewhere", "proxy": None, "rounds": [1], "minimum_runs": 0}
    waiting = Optimization(
        revision_id=like.revision_id, method=like.method, seed=0, settings=settings, state=jobs.RUNNING
    )
    session.add_all([swarm, waiting])
    session.flush()
    run = Run(swarm_id=swarm.id, name="r0", position=0, weights=dict.fromkeys(DOMAINS, 1 / len(DOMAINS)))
    session.add(run)
    session.flush()
    job = jobs.new_job(jobs.PROXY_RUN, run.id, swarm.id)
    job.state = jobs.WAITING
    session.add(job)
    return swarm.id, waiting.id


def _special(session: Session, stored: Stored, settings: Settings) -> dict[str, Document]:
    """What can be cancelled, tried again, fetched, paused."""
    launches = []
    for state in (jobs.QUEUED, jobs.FAILED, jobs.CLAIMED):
        launch = Launch(
            mixture_id=stored.mixtures[0], settings=session.get_one(Launch, stored.launches[0]).settings
        )
        session.add(launch)
        session.flush()
        run = Run(launch_id=launch.id, position=0, seed=3, weights=dict.fromkeys(DOMAINS, 1 / len(DOMAINS)))
        session.add(run)
        session.flush()
        kind = jobs.SCHEDULED_RUN if state == jobs.CLAIMED else jobs.FULL_RUN
        job = jobs.new_job(kind, run.id, launch.id)
        job.state = state
        session.add(job)
        launches.append(launch.id)
    session.flush()
    session.add(Submission(job_id=job.id, number=1, launcher="ours", name=SUBMISSION))
    (settings.artifacts / "launches" / launches[2]).mkdir(parents=True)
    (settings.artifacts / "launches" / launches[2] / "log").write_text("a line\n")
    theirs = Launch(
        mixture_id=stored.mixtures[0],
        settings={"launcher": "theirs", "tokens": 1000, "tasks": [{"name": "arc", "metric": "accuracy"}]},
    )
    session.add(theirs)
    session.flush()
    run = Run(launch_id=theirs.id, position=0, weights={})
    session.add(run)
    session.flush()
    session.add(jobs.new_job(jobs.EXTERNAL_RUN, run.id, theirs.id))
    session.execute(
        update(Optimization).where(Optimization.id == stored.optimizations[0]).values(state=jobs.FAILED)
    )
    of_first = (Job.owner == stored.optimizations[0], Job.kind == jobs.SOLVE)
    session.execute(update(Job).where(*of_first).values(state=jobs.FAILED))
    second = session.scalars(select(Revision).order_by(Revision.id.desc())).first()
    assert second is not None
    failed = (Job.owner == second.id, Job.kind == jobs.PREPARE_DOMAIN)
    session.execute(update(Job).where(*failed).values(state=jobs.FAILED))
    for revision in session.scalars(select(Revision)):
        revision.tokenizer_path = str(settings.artifacts / "tokenizers" / "ours.json")
    tokenizer_file(settings.artifacts / "tokenizers" / "ours.json", "some text")
    save_ours(settings.artifacts / "runs" / stored.runs[0] / "model", learning_rate=1e-4, tokens=9)
    files = TokenFiles("olmo-core", session.get_one(MixtureRow, stored.mixtures[0]).revision_id)
    session.add(jobs.new_job(jobs.TOKEN_FILES, files.subject, stored.mixtures[0]))
    machine = {"host": "one", "device": "cpu", "process": 1, "versions": {}}
    rows = [WorkerRow(name=f"one/{number}", **machine) for number in range(2)]
    session.add_all(rows)
    session.flush()
    worker = {"worker_id": rows[0].id}
    swarm, waiting = _elsewhere(session, stored)
    return {
        "GET /v1/domain-sets/{name}": {"name": "pool-0"},
        "GET /v1/domain-sets/{name}/revisions": {"name": "pool-0"},
        "GET /v1/domain-sets/{name}/adoptions": {"name": "pool-0"},
        "GET /v1/domain-sets/{name}/record": {"name": "pool-0"},
        "POST /v1/domain-sets/{name}/adoptions": {"name": "pool-0"},
        "GET /v1/domain-sets/{name}/revisions/{number}": {"name": "pool-0", "number": 1},
        "POST /v1/domain-sets/{name}/revisions": {"name": "real"},
        "POST /v1/domain-sets/{name}/revisions/{number}:retry": {"name": "pool-1", "number": 1},
        "GET /v1/mixtures/{mixture_id}/export": {
            "mixture_id": stored.mixtures[0],
            "format": "csv",
            "repetition_cap": 1000.0,
        },
        "GET /v1/swarms/{swarm_id}/export": {"swarm_id": stored.swarms[0], "format": "csv"},
        "POST /v1/swarms/{swarm_id}/results": {"swarm_id": swarm},
        "POST /v1/optimizations/{optimization_id}:finish": {"optimization_id": waiting},
        "GET /v1/mixtures/{mixture_id}/token-files": {
            "mixture_id": stored.mixtures[0],
            "format": "olmo-core",
        },
        "POST /v1/mixtures/{mixture_id}/token-files": {"mixture_id": stored.mixtures[0]},
        "GET /v1/runs/{run_id}/model": {"run_id": stored.runs[0]},
        "GET /v1/runs/{run_id}/metrics": {"run_id": stored.runs[0]},
        "POST /v1/optimizations/{optimization_id}:cancel": {"optimization_id": stored.optimizations[-1]},
        "POST /v1/optimizations/{optimization_id}:retry": {"optimization_id": stored.optimizations[0]},
        "POST /v1/optimizations/{optimization_id}:extend": {"optimization_id": stored.optimizations[1]},
        "POST /v1/launches/{launch_id}:cancel": {"launch_id": launches[0]},
        "POST /v1/launches/{launch_id}:retry": {"launch_id": launches[1]},
        "GET /v1/launches/{launch_id}/log": {"launch_id": launches[2]},
        "POST /v1/launches/{launch_id}/state": {"launch_id": launches[2]},
        "POST /v1/launches/{launch_id}/metrics": {"launch_id": theirs.id},
        "GET /v1/launches/{launch_id}/metrics": {"launch_id": launches[0]},
        "GET /v1/workers/{worker_id}": worker,
        "POST /v1/workers/{worker_id}:pause": worker,
        "POST /v1/workers/{worker_id}:resume": worker,
        "POST /v1/workers/{worker_id}:drain": worker,
    }


def with_examples(document: Document, good: dict[str, Document]) -> Document:
    """The published document, with a good request for what this store holds: a schema cannot know it."""
    for operation, given in good.items():
        method, _, path = operation.partition(" ")
        published = document["paths"][path][method.lower()]
        if given["body"] is not None:
            published["requestBody"]["content"]["application/json"]["example"] = given["body"]
        for parameter in published.get("parameters", ()):
            if parameter["name"] in given["parameters"]:
                parameter["example"] = given["parameters"][parameter["name"]]
    return document


def never_good(document: Document, log: Path) -> set[str]:
    """The operations that no request of the log was answered 2xx by."""
    patterns = {
        f"{method.upper()} {path}": re.compile(re.sub(r"\\{\w+\\}", "[^/:]+", re.escape(path)))
        for path, item in document["paths"].items()
        for method in item
    }
    seen = {
        operation
        for entry in json.loads(log.read_text())["log"]["entries"]
        if 200 <= entry["response"]["status"] < 300
        for operation, pattern in patterns.items()
        if operation.startswith(f"{entry['request']['method']} ")
        and pattern.fullmatch(urlsplit(entry["request"]["url"]).path)
    }
    return patterns.keys() - seen


def test_every_answer_is_as_published_and_every_operation_is_reached(
    settings: Settings, tmp_path: Path
) -> None:
    """Every check of Schemathesis but one, on good requests, boundary cases, random requests and sequences of them.

    Left out is that what the schema allows is accepted: a schema cannot say that a file exists or that weights sum
    to one. Such a request is refused with a problem document, which the other checks look at.
    """
    good = fill_store(settings)
    with served(settings, workers=1) as web:
        published = httpx.get(f"{web.url}/v1/openapi.json", timeout=120).json()
        real = {**good["POST /v1/domain-sets"]["body"], "name": "real"}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        asked = {"json": real, "headers": headers, "timeout": 120}
        assert httpx.post(f"{web.url}/v1/domain-sets", **asked).status_code == 201
        (tmp_path / "openapi.json").write_text(json.dumps(with_examples(published, good)))
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            str(tmp_path / "openapi.json"),
            "--no-color",
        ]
        command += ["--url", web.url, "--header", f"Authorization: Bearer {TOKEN}", "--seed", SEED]
        # What is asked is what is answered, not how soon: a busy machine takes over ten seconds for a lineage.
        command += ["--request-timeout", "120"]
        command += [
            "--max-examples",
            EXAMPLES,
            "--report",
            "har",
            "--report-har-path",
            str(tmp_path / "log.har"),
        ]
        command += [
            "--exclude-path-regex",
            STREAMS,
            "--checks",
            "all",
            "--exclude-checks",
            "positive_data_acceptance",
        ]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert never_good(published, tmp_path / "log.har") == NEVER_GOOD
