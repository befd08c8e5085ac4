"""What is said of very many domains is made outside the web process: the same words, and pages that end."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.domain_sets.repository import WIDE, describe_revision, revision_of
from service.processes import computation
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Launch, MixtureRow, Run
from tests.service.dashboard.store import TOKENS, evidence

DOMAINS = [f"web:topic-{index:04d}" for index in range(WIDE + 10)]


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@pytest.fixture
def wide(client: TestClient) -> dict[str, Any]:
    """A posted set that is wide; another that is not quite."""
    for name, domains in (("wide", DOMAINS), ("narrow", DOMAINS[: WIDE - 1])):
        sizes = [{"name": domain, "tokens": 1000 + index} for index, domain in enumerate(domains)]
        made = client.post("/v1/domain-sets", json={"name": name, "domains": sizes})
        assert made.status_code == 201, made.text
    return client.get("/v1/domain-sets/wide").json()


def beside(client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str) -> bool:
    """Whether its answer is made in another process."""
    started = []
    start = computation.Computations.start
    with monkeypatch.context() as patched:
        patched.setattr(
            computation.Computations, "start", lambda *given: (started.append(given), start(*given))[1]
        )
        assert client.get(path).status_code == 200
    return bool(started)


def test_a_wide_revision_is_the_same_document_made_elsewhere(
    client: TestClient, wide: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        here = describe_revision(session, revision_of(session, "wide")).model_dump(mode="json")
    database.close()
    assert client.get("/v1/domain-sets/wide/revisions/1").json() == wide == here
    places = (
        *("/v1/domain-sets/{}", "/v1/domain-sets/{}/revisions/1", "/domain-sets/{}"),
        "/v1/domain-sets/{}/record",
    )
    assert all(beside(client, monkeypatch, place.format("wide")) for place in places)
    assert not any(beside(client, monkeypatch, place.format("narrow")) for place in places)
    assert client.get("/v1/domain-sets/nothing").json()["code"] == "domain_set_not_found"


def test_every_domain_is_on_one_of_the_pages(client: TestClient, wide: dict[str, Any]) -> None:
    named, address = [], "/domain-sets/wide"
    while address:
        page = client.get(address).text
        shown = re.findall(r'<th scope="row">(web:topic-\d+)</th>', page)
        assert 0 < len(shown) <= WIDE
        named += shown
        following = re.search(r'href="(\?revision=1&amp;domains_after=[^"]+)">Next domains', page)
        address = following and "/domain-sets/wide" + following[1].replace("&amp;", "&")
    assert named == [domain["name"] for domain in wide["domains"]]


def test_a_launch_of_a_wide_mixture_is_held_against_its_evidence_elsewhere(
    client: TestClient, wide: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(settings.resolved_database_url)
    for name, domains, elsewhere in (("wide", DOMAINS, True), ("narrow", DOMAINS[: WIDE - 1], False)):
        weights = dict.fromkeys(domains, 1 / len(domains))
        asked = {"domain_set": name, "name": name, "weights": weights}
        mixture = client.post("/v1/mixtures", json=asked).json()["id"]
        with database.write() as session:
            launch = Launch(
                mixture_id=mixture, settings={"launcher": "theirs", "tokens": 1000, "tasks": [], "version": 1}
            )
            session.add(launch)
            session.flush()
            run = Run(launch_id=launch.id, position=0, weights={})
            session.add(run)
            session.flush()
            session.add(jobs.new_job(jobs.EXTERNAL_RUN, run.id, launch.id))
            identity = launch.id
        assert beside(client, monkeypatch, f"/v1/launches/{identity}/comparison") == elsewhere
    database.close()


def test_evidence_leaves_as_it_is_stored(
    client: TestClient, wide: dict[str, Any], settings: Settings
) -> None:
    weights = dict.fromkeys(DOMAINS, 1 / len(DOMAINS))
    made = client.post("/v1/mixtures", json={"domain_set": "wide", "name": "mine", "weights": weights})
    assert (made.status_code, made.headers["location"]) == (201, f"/v1/mixtures/{made.json()['id']}")
    assert made.json() == client.get(made.headers["location"]).json()
    assert made.json()["evidence"] is None
    assert made.json()["weights"] == pytest.approx(weights)
    shown = evidence(TOKENS)
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        session.get_one(MixtureRow, made.json()["id"]).evidence = shown
    database.close()
    assert client.get(made.headers["location"]).json() == {**made.json(), "evidence": shown}
