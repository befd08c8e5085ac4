"""Planning what to reuse over HTTP, and the lineage: the store as workers leave it, without any training."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from proxy_models.text.corpus import read_documents
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Job, MixtureRow, Optimization, Revision, Run, Swarm
from tests.content import content_key

Document = dict[str, Any]
Write = Callable[..., str]
NAMES = ("books", "code", "news")
PROXY = {"size": "nano-0.1M", "tokens": 65_536}
RUNS = 12
SECONDS = 30.0


def question(**further: Any) -> Document:
    asked = {"domain_set": "pool", "method": "olmix", "target_tokens": 60_000, "repetition_cap": 4}
    return {**asked, "proxy": PROXY, **further}


class Workers:
    """Leaves in the store what the workers would."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def count(self, number: int) -> None:
        with self.database.write() as session:
            revision = session.scalars(select(Revision).where(Revision.number == number)).one()
            revision.tokenizer_path = "/tokenizer.json"
            for row in revision.domains:
                documents = [text for path in row.files for text in read_documents(Path(path))]
                row.counted_tokens = sum(map(len, documents))
                row.content_hash = content_key(documents)
            for job in session.scalars(select(Job).where(Job.owner == revision.id)):
                job.state = jobs.SUCCEEDED

    def train(self, optimization_id: str) -> str:
        """Run all its runs and propose a mixture; answers the mixture's id."""
        generator = np.random.default_rng(0)
        with self.database.write() as session:
            row = session.get_one(Optimization, optimization_id)
            names = [domain.name for domain in row.revision.domains]
            swarm = Swarm(optimization_id=row.id, revision_id=row.revision_id)
            session.add(swarm)
            session.flush()
            for position in range(row.settings["runs"]):
                weights = dict(zip(names, generator.dirichlet(np.ones(len(names))).tolist(), strict=True))
                metrics = {f"held-out/{name}": 2 - weight for name, weight in weights.items()}
                run = Run(
                    swarm_id=swarm.id,
                    position=position,
                    seed=row.seed,
                    weights=weights,
                    result={"final": metrics, "noise": {}},
                )
                session.add(run)
                session.flush()
                job = jobs.new_job(jobs.PROXY_RUN, run.id, row.id, position)
                job.state, job.busy_seconds = jobs.SUCCEEDED, SECONDS
                session.add(job)
            row.state = jobs.SUCCEEDED
            weights = {name: (index + 1) / 6 for index, name in enumerate(names)}
            mixture = MixtureRow(
                revision_id=row.revision_id,
                optimization_id=row.id,
                kind="proposed",
                weights=weights,
                evidence={},
            )
            session.add(mixture)
            session.flush()
            return mixture.id


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@pytest.fixture
def workers(client: TestClient, settings: Settings) -> Iterator[Workers]:
    database = Database(settings.resolved_database_url)
    yield Workers(database)
    database.close()


@pytest.fixture
def mixture(client: TestClient, write_corpus: Write, workers: Workers) -> str:
    """A proposed mixture of revision 1, and revision 2 with a domain more, counted."""
    domains = [{"name": name, "files": [write_corpus(name)]} for name in NAMES]
    body = {"name": "pool", "held_out_fraction": 0.1, "domains": domains}
    assert client.post("/v1/domain-sets", json=body).status_code == 201
    workers.count(1)
    made = client.post("/v1/optimizations", json=question(runs=RUNS))
    assert made.status_code == 202, made.text
    assert made.json()["settings"]["reuse"] is None, "there was nothing to reuse"
    mixture = workers.train(made.json()["id"])
    add(client, write_corpus, "papers")
    workers.count(2)
    return mixture


def add(client: TestClient, write: Write, name: str) -> None:
    patch = {"add": [{"name": name, "files": [write(name)]}]}
    made = client.post("/v1/domain-sets/pool/revisions", json={"patch": patch})
    assert made.status_code == 201, made.text


def plan(client: TestClient, **further: Any) -> Document:
    response = client.post("/v1/optimizations?dry_run=true", json=question(**further))
    assert response.status_code == 200, response.text
    return response.json()


def refusal(client: TestClient, body: Mapping[str, Any]) -> tuple[int, str, str | None]:
    before = client.get("/v1/optimizations").json()
    response = client.post("/v1/optimizations", json=body)
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert client.get("/v1/optimizations").json() == before
    return response.status_code, response.json()["code"], response.json().get("field")


def test_a_plan_says_what_is_kept_what_counts_and_what_it_costs(client: TestClient, mixture: str) -> None:
    found = plan(client, reuse="full")
    assert found["mixture_id"] == mixture
    (ratios,) = found["plan"]["groups"].values()
    assert ratios == pytest.approx({"books": 1 / 6, "code": 2 / 6, "news": 3 / 6})
    assert found["plan"]["recomputed"] == ["papers"]
    assert len(found["plan"]["reused"]) == RUNS
    assert found["plan"]["set_aside"] == {}
    assert found["hours"]["new"] == pytest.approx(found["plan"]["new_runs"] * SECONDS / 3600)
    assert found["hours"]["recompute"] > found["hours"]["new"]
    assert any("papers" in sentence for sentence in found["sentences"])
    assert len(client.get("/v1/optimizations").json()["items"]) == 1, "a dry run stores nothing"


def test_what_is_stored_is_what_the_dry_run_said(client: TestClient, mixture: str) -> None:
    found = plan(client, reuse="full")["plan"]
    made = client.post("/v1/optimizations", json=question(reuse="full")).json()
    assert made["settings"]["reuse"]["plan"] == found
    assert made["settings"]["reuse"]["runs"] == sorted(found["reused"])
    assert made["settings"]["reuse"]["mixture"] == mixture
    assert made["settings"]["runs"] == sum(made["settings"]["rounds"]) == found["new_runs"]


def test_a_successor_goes_on_from_its_ancestors_mixture_without_a_word(
    client: TestClient, mixture: str
) -> None:
    made = client.post("/v1/optimizations", json=question()).json()
    assert made["settings"]["reuse"]["asked"]["kind"] == "auto"
    assert made["settings"]["reuse"]["mixture"] == mixture


def test_nothing_is_reused_where_that_was_asked(client: TestClient, mixture: str) -> None:
    found = plan(client, reuse={"kind": "none", "runs": False})["plan"]
    assert (found["groups"], found["reused"]) == ({}, {})
    assert found["new_runs"] == found["recompute_runs"]


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ({**PROXY, "tokens": 131_072}, "tokens 65536 instead of 131072"),
        ({**PROXY, "size": "nano-0.2M"}, "size nano-0.1M instead of nano-0.2M"),
        ({**PROXY, "learning_rate": 0.001}, "learning_rate the default instead of 0.001"),
    ],
)
def test_runs_of_another_proxy_do_not_count(
    client: TestClient, mixture: str, proxy: Document, said: str
) -> None:
    found = client.post("/v1/optimizations?dry_run=true", json={**question(reuse="full"), "proxy": proxy})
    assert found.json()["plan"]["reused"] == {}
    assert all(said in why for why in found.json()["plan"]["set_aside"].values())
    assert found.json()["hours"] == {"new": None, "recompute": None}


def test_runs_that_read_another_tokenizers_tokens_do_not_count(
    client: TestClient, mixture: str, workers: Workers
) -> None:
    with workers.database.write() as session:
        session.scalars(select(Revision).where(Revision.number == 2)).one().tokenizer_path = "/other.json"
    aside = plan(client, reuse="full")["plan"]["set_aside"]
    assert set(aside.values()) == {"it read the tokens of another tokenizer"}
    assert len(aside) == RUNS


def test_an_uncounted_revision_says_when_to_come_back(
    client: TestClient, mixture: str, write_corpus: Write
) -> None:
    add(client, write_corpus, "letters")
    response = client.post("/v1/optimizations", json=question())
    assert (response.status_code, response.json()["code"]) == (409, "not_counted")
    assert int(response.headers["retry-after"]) > 0
    waits = client.post("/v1/optimizations", json=question(reuse={"kind": "none", "runs": False}))
    assert waits.status_code == 202, waits.text


@pytest.mark.parametrize(
    ("reuse", "code", "field"),
    [
        ("most", "invalid_request", "reuse.kind"),
        ({"kind": "partial"}, "nothing_to_free", "reuse.free"),
        ({"kind": "partial", "free": ["nobody"]}, "unknown_domain", "reuse.free[0]"),
        ({"kind": "partial", "free": ["code"], "most_coupled": 1}, "two_ways_to_free", "reuse.free"),
        ({"kind": "full", "free": ["code"]}, "not_partial", "reuse.free"),
        ({"kind": "auto", "most_coupled": 2}, "not_partial", "reuse.most_coupled"),
        ({"kind": "full", "mixture": "mix_nobody"}, "mixture_not_found", None),
    ],
)
def test_a_faulty_reuse_is_named(
    client: TestClient, mixture: str, reuse: Document, code: str, field: str | None
) -> None:
    assert refusal(client, question(reuse=reuse))[1:] == (code, field)


def test_a_removed_domain_cannot_be_freed(client: TestClient, mixture: str, workers: Workers) -> None:
    client.post("/v1/domain-sets/pool/revisions", json={"patch": {"remove": ["code"]}})
    workers.count(3)
    body = question(reuse={"kind": "partial", "free": ["news", "code"]})
    assert refusal(client, body) == (422, "removed_domain", "reuse.free[1]")


def test_a_mixture_of_another_lineage_is_refused(
    client: TestClient, mixture: str, write_corpus: Write
) -> None:
    domains = [{"name": name, "files": [write_corpus(name)], "tokens": 1000} for name in ("a", "b")]
    client.post("/v1/domain-sets", json={"name": "other", "held_out_fraction": 0.1, "domains": domains})
    weights = {"domain_set": "other", "name": "hand", "weights": {"a": 0.5, "b": 0.5}}
    other = client.post("/v1/mixtures", json=weights).json()["id"]
    assert refusal(client, question(reuse={"kind": "full", "mixture": other})) == (
        422,
        "other_lineage",
        "reuse.mixture",
    )


def test_a_method_that_trains_nothing_reuses_nothing(client: TestClient, mixture: str) -> None:
    body = {"domain_set": "pool", "method": "natural", "target_tokens": 10_000, "reuse": "auto"}
    assert refusal(client, body) == (422, "nothing_is_trained", "reuse")


def test_removing_a_domain_trains_nothing(client: TestClient, mixture: str, workers: Workers) -> None:
    client.post("/v1/domain-sets/pool/revisions", json={"parent": 1, "patch": {"remove": ["code"]}})
    workers.count(3)
    found = plan(client, reuse="full")["plan"]
    assert (found["new_runs"], found["recomputed"]) == (0, [])
    made = client.post("/v1/optimizations", json=question(reuse="full")).json()
    assert made["settings"]["rounds"] == []


def test_a_revision_that_was_never_counted_is_passed_over(
    client: TestClient, mixture: str, workers: Workers, write_corpus: Write
) -> None:
    """Its files were bad, the next revision put that right, and the runs of the first still count."""
    add(client, write_corpus, "letters")
    patch = {"remove": ["letters"], "add": [{"name": "notes", "files": [write_corpus("notes")]}]}
    client.post("/v1/domain-sets/pool/revisions", json={"patch": patch})
    workers.count(4)
    found = plan(client, reuse="full")["plan"]
    assert len(found["reused"]) == RUNS
    assert found["recomputed"] == ["notes", "papers"]


def test_the_lineage_goes_down_to_every_run(client: TestClient, mixture: str, workers: Workers) -> None:
    made = client.post("/v1/optimizations", json=question(reuse="full")).json()
    second = workers.train(made["id"])
    lineage = client.get(f"/v1/mixtures/{second}/lineage").json()
    newest, oldest = lineage["revisions"]
    assert (newest["number"], newest["parent"], oldest["parent"]) == (2, 1, None)
    assert newest["map"] == [{"domain": "papers", "change": "added", "comes_from": {}}]
    (own,), (earlier,) = newest["optimizations"], oldest["optimizations"]
    assert all(run["counted"] for run in (*own["runs"], *earlier["runs"]))
    assert len(earlier["runs"]) == RUNS
    assert lineage["starts"][0]["mixture"]["id"] == mixture
    first = client.get(f"/v1/mixtures/{mixture}/lineage").json()
    assert [one["number"] for one in first["revisions"]] == [1]
    assert first["starts"] == []
    assert client.get("/v1/mixtures/mix_nobody/lineage").status_code == 404


def test_the_pages_say_what_is_reused_and_where_it_comes_from(
    client: TestClient, mixture: str, workers: Workers
) -> None:
    made = client.post("/v1/optimizations", json=question(reuse="full")).json()
    page = client.get(f"/optimizations/{made['id']}")
    assert page.status_code == 200
    assert "What is reused" in page.text
    assert f"/mixtures/{mixture}/lineage" in page.text
    lineage = client.get(f"/mixtures/{mixture}/lineage")
    assert lineage.status_code == 200
    assert "12 of the 12 runs of its lineage counted for it" in lineage.text
    assert client.get("/mixtures/mix_nobody/lineage").status_code == 404
