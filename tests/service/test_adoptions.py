"""The mixture in use of a domain set: put into use, kept in a history, and said to be stale."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from benchmarks.api_store import Sizes, fill
from store.documents import OptimizationDocument
from store.engine import Database
from store.settings import Settings
from store.tables import Optimization, Revision


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@pytest.fixture
def mixtures(client: TestClient, settings: Settings) -> list[dict[str, Any]]:
    """Of two domain sets, newest first."""
    database = Database(settings.resolved_database_url)
    fill(database, Sizes(runs=2, optimizations=4, domain_sets=2))
    database.close()
    return client.get("/v1/mixtures").json()["items"]


def _of(mixtures: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [one for one in mixtures if one["domain_set"] == name]


def test_the_last_one_adopted_is_in_use_and_those_before_are_kept(
    client: TestClient, mixtures: list[dict[str, Any]]
) -> None:
    assert client.get("/v1/domain-sets/pool-0/adoptions").json() == {"items": [], "next": None}
    first, second = _of(mixtures, "pool-0")[:2]
    for mixture, why in ((first, "measured at 1B"), (second, "the new crawl")):
        body = {"mixture_id": mixture["id"], "why": why}
        made = client.post("/v1/domain-sets/pool-0/adoptions", json=body)
        assert made.status_code == 201, made.text
    items = client.get("/v1/domain-sets/pool-0/adoptions").json()["items"]
    assert [(one["mixture_id"], one["why"]) for one in items] == [
        (second["id"], "the new crawl"),
        (first["id"], "measured at 1B"),
    ]
    assert made.json() == items[0]
    assert items[0]["user"] == "operator"
    assert items[0]["revision"] == items[0]["latest_revision"] == 1
    assert client.get("/v1/domain-sets/pool-1/adoptions").json()["items"] == []


def test_one_key_adopts_once(client: TestClient, mixtures: list[dict[str, Any]]) -> None:
    body = {"mixture_id": _of(mixtures, "pool-0")[0]["id"], "why": "measured"}
    answers = [
        client.post("/v1/domain-sets/pool-0/adoptions", json=body, headers={"Idempotency-Key": "once"}).json()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert client.get("/v1/domain-sets/pool-0/adoptions").json()["items"] == answers[:1]


def test_a_revision_makes_it_stale(
    client: TestClient, settings: Settings, mixtures: list[dict[str, Any]]
) -> None:
    mixture = _of(mixtures, "pool-0")[0]["id"]
    client.post("/v1/domain-sets/pool-0/adoptions", json={"mixture_id": mixture, "why": "measured"})
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        parent = session.query(Revision).filter(Revision.domain_set.has(name="pool-0")).one()
        session.add(
            Revision(
                domain_set_id=parent.domain_set_id,
                number=2,
                parent_id=parent.id,
                tokenizer=parent.tokenizer,
                held_out_fraction=0.02,
                content_hash="1" * 64,
                changes=parent.changes,
            )
        )
    database.close()
    (found,) = client.get("/v1/domain-sets/pool-0/adoptions").json()["items"]
    assert (found["revision"], found["latest_revision"]) == (1, 2)


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("pool-0", {"mixture_id": "mix_none", "why": "x"}, 404, "mixture_not_found"),
        ("none", {"mixture_id": "own", "why": "x"}, 404, "domain_set_not_found"),
        ("pool-1", {"mixture_id": "own", "why": "x"}, 422, "other_domain_set"),
        ("pool-0", {"mixture_id": "own", "why": ""}, 422, "invalid_request"),
        ("pool-0", {"mixture_id": "own"}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_adopted_is_refused(
    name: str,
    body: dict[str, str],
    status: int,
    code: str,
    client: TestClient,
    mixtures: list[dict[str, Any]],
) -> None:
    own = _of(mixtures, "pool-0")[0]["id"]
    answer = client.post(
        f"/v1/domain-sets/{name}/adoptions",
        json={key: value.replace("own", own) for key, value in body.items()},
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_set_that_is_not_there_has_no_history(client: TestClient) -> None:
    assert client.get("/v1/domain-sets/none/adoptions").json()["code"] == "domain_set_not_found"


def test_the_mixture_in_use_can_be_preferred(
    client: TestClient, settings: Settings, mixtures: list[dict[str, Any]]
) -> None:
    body = {
        "domain_set": "pool-0",
        "target_tokens": 10**9,
        "trained": "elsewhere",
        "runs": 40,
        "tasks": [{"name": "mmlu"}],
        "reuse": "none",
        "prefer": "in_use",
    }
    refused = client.post("/v1/optimizations", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "none_in_use"), refused.text
    mixture = _of(mixtures, "pool-0")[0]
    client.post("/v1/domain-sets/pool-0/adoptions", json={"mixture_id": mixture["id"], "why": "measured"})
    made = client.post("/v1/optimizations", json=body)
    assert made.status_code == 202, made.text
    weights = client.get(f"/v1/mixtures/{mixture['id']}").json()["weights"]
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        document = OptimizationDocument.of(session.get_one(Optimization, made.json()["id"]))
        assert document.prefer == weights
    database.close()
    few = dict(list(weights.items())[1:])
    wrong = client.post("/v1/optimizations", json={**body, "prefer": few})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "prefer"), wrong.text
