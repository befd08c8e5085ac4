"""What the page offers to send is accepted as it stands, over a store as workers leave it."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.dashboard.evidence import Evidence
from service.dashboard.next_steps import Answered, next_steps
from store.documents import OptimizationDocument
from store.engine import Database
from store.settings import Settings
from tests.service.dashboard.store import TOKENS, evidence
from tests.service.test_reuse import NAMES, PROXY, Workers


@pytest.fixture
def trained(client: TestClient, settings: Settings, write_corpus: Callable[..., str]) -> dict[str, Any]:
    """An optimization with 12 finished runs."""
    domains = [{"name": name, "files": [write_corpus(name)]} for name in NAMES]
    assert client.post("/v1/domain-sets", json={"name": "pool", "domains": domains}).status_code == 201
    database = Database(settings.resolved_database_url)
    workers = Workers(database)
    workers.count(1)
    share = {"domains": ["code"], "maximum": 0.6}
    rail = {"task": "held-out/code", "worse_than_natural": 0.5}
    body = {"domain_set": "pool", "target_tokens": 60_000, "shares": [share], "guard_rails": [rail]}
    made = client.post(
        "/v1/optimizations", json={**body, "method": "olmix", "proxy": PROXY, "runs": 12}
    ).json()
    workers.train(made["id"])
    database.close()
    return client.get(f"/v1/optimizations/{made['id']}").json()


def test_every_question_that_is_offered_is_accepted(client: TestClient, trained: dict[str, Any]) -> None:
    document = evidence(TOKENS)
    document["tasks"][0].update(name="held-out/books", gain=-0.1, gain_interval=[-0.2, -0.05])
    by_hand = {"domain_set": "pool", "name": "mine", "weights": dict.fromkeys(NAMES, 1 / len(NAMES))}
    mixture = client.post("/v1/mixtures", json=by_hand).json()["id"]
    answered = Answered(
        optimization_id=trained["id"],
        domain_set="pool",
        revision=1,
        settings=OptimizationDocument.from_dict(trained["settings"]),
        swarm_id=trained["swarm_id"],
        mixture_id=mixture,
        natural_mixture_id=mixture,
    )
    steps = {step.name: step for step in next_steps(answered, Evidence.model_validate(document))}
    assert list(steps) == [
        "launch-proposed",
        "launch-natural",
        "guard-rail",
        "solve-again",
        "more-runs",
        "adopt",
    ]
    for name in ("launch-proposed", "launch-natural", "guard-rail", "solve-again"):
        answer = client.post(f"{steps[name].path}?dry_run=true", json=steps[name].body)
        assert answer.status_code == 200, (name, answer.text)
    rails = [rail["task"] for rail in steps["guard-rail"].body["guard_rails"]]
    assert rails == ["held-out/code", "held-out/books"], "those there were stay"
    assert steps["solve-again"].body["shares"][0]["maximum"] == 0.6
    assert (steps["more-runs"].path, steps["more-runs"].body) == (
        f"/v1/optimizations/{trained['id']}:extend",
        {"runs": 3, "rounds": 1},
    )
    given = replace(answered, settings=replace(answered.settings, swarms=("swarm_1",)))
    assert "more-runs" not in [step.name for step in next_steps(given, Evidence.model_validate(document))]
    assert client.post(steps["adopt"].path, json=steps["adopt"].body).status_code == 201


def test_the_page_of_what_is_in_use_says_so_and_offers_it_no_more(client: TestClient, store: Any) -> None:
    found = store.optimization(store.domain_set(), "succeeded", ["succeeded"] * 3, proposal=evidence(TOKENS))
    before = client.get(f"/optimizations/{found}").text
    assert 'id="step-adopt"' in before
    mixture = client.get(f"/v1/optimizations/{found}").json()["mixture_id"]
    body = {"mixture_id": mixture, "why": "<b>measured</b>"}
    assert client.post("/v1/domain-sets/library/adoptions", json=body).status_code == 201
    page = client.get(f"/optimizations/{found}").text
    assert 'id="step-adopt"' not in page
    for shown in (page, client.get("/domain-sets/library").text):
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", shown))
        assert "the proposed mixture of revision 1, since" in words
        assert "by operator: &lt;b&gt;measured&lt;/b&gt;" in words
        assert "stale" not in words
