"""``/metrics`` says of jobs what the store says, whoever did them, and of requests never what a client wrote."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from service.http.app import create_app
from store import jobs
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import Job
from tests.service.conftest import TOKEN
from workers.claims.claim import LeaseLost, claim, fail, finish, reap, release
from workers.claims.failures import Failure

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


def scrape(settings: Settings) -> Samples:
    """What a fresh web process says: nothing in it counted the jobs."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        return samples(client)


def samples(client: TestClient) -> Samples:
    response = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(response.text)
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((f"mixwright_{name}", tuple(sorted(labels.items()))), 0.0)


def add_jobs(database: Database, *subjects: str) -> None:
    with database.write() as session:
        session.add_all(jobs.new_job(jobs.PROXY_RUN, subject, "opt") for subject in subjects)


def test_queue_depth_is_by_kind_and_state(settings: Settings, database: Database) -> None:
    add_jobs(database, "a", "b", "c")
    assert claim(database, "w", 60) is not None
    found = scrape(settings)
    assert value(found, "jobs", kind="proxy_run", state="queued") == 2
    assert value(found, "jobs", kind="proxy_run", state="claimed") == 1
    assert value(found, "jobs", kind="solve", state="queued") == 0
    assert ("mixwright_jobs", (("kind", "solve"), ("state", "queued"))) in found, (
        "a zero is shown, not left out"
    )
    assert value(found, "runs", state="queued") == 2
    assert value(found, "oldest_waiting_job_seconds", kind="proxy_run") > 0


def test_every_attempt_is_counted_once_however_it_ends(settings: Settings, database: Database) -> None:
    add_jobs(database, "a", "b", "c")
    first = claim(database, "w", 60)
    assert first is not None
    fail(database, first, Failure("io_error", "disk", retryable=True))
    second = claim(database, "w", 60)
    assert second is not None
    fail(database, second, Failure("diverged", "NaN", retryable=False))
    third = claim(database, "w", 60)
    assert third is not None
    release(database, third)
    fourth = claim(database, "w", 60)
    assert fourth is not None
    finish(database, fourth, lambda session, job: None)
    with pytest.raises(LeaseLost):
        finish(database, fourth, lambda session, job: None)

    found = scrape(settings)
    counted = {key: number for key, number in found.items() if key[0] == "mixwright_job_attempts_total"}
    assert sum(counted.values()) == 4
    for outcome, code in (
        ("retried", "io_error"),
        ("failed", "diverged"),
        ("released", ""),
        ("succeeded", ""),
    ):
        labels = {"kind": "proxy_run", "outcome": outcome, "code": code, "reaped": "false"}
        assert value(found, "job_attempts_total", **labels) == 1, outcome
        seconds = {"kind": "proxy_run", "outcome": outcome}
        assert value(found, "job_attempt_seconds_count", **seconds) == 1
        assert value(found, "job_attempt_seconds_bucket", le="+Inf", **seconds) == 1
        assert 0 <= value(found, "job_attempt_seconds_sum", **seconds) < 60


def test_an_expired_lease_is_seen_before_and_after_it_is_taken_back(
    settings: Settings, database: Database
) -> None:
    add_jobs(database, "a")
    assert claim(database, "w", lease_seconds=-5.0) is not None
    assert value(scrape(settings), "expired_leases") == 1
    assert len(reap(database)) == 1
    found = scrape(settings)
    assert value(found, "expired_leases") == 0
    assert value(found, "lease_expiries_total", kind="proxy_run") == 1
    labels = {"kind": "proxy_run", "outcome": "retried", "code": "worker_lost", "reaped": "true"}
    assert value(found, "job_attempts_total", **labels) == 1


def test_a_retry_takes_nothing_back_from_a_counter(settings: Settings, database: Database) -> None:
    add_jobs(database, "a")
    held = claim(database, "w", 60)
    assert held is not None
    fail(database, held, Failure("diverged", "NaN", retryable=False))
    with database.write() as session:
        jobs.requeue_jobs(session, "opt")
    with database.read() as session:
        assert session.query(Job).one().attempt == 0
    labels = {"kind": "proxy_run", "outcome": "failed", "code": "diverged", "reaped": "false"}
    assert value(scrape(settings), "job_attempts_total", **labels) == 1


def test_requests_are_counted_by_route_and_never_by_path(settings: Settings, database: Database) -> None:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/v1/runs/run_1", "/v1/runs/run_2", "/secret-path", "/v1/runs?limit=1", "/static/x.css"):
            client.get(path, headers=headers)
        found = samples(client)
        text = client.get("/metrics", headers=headers).text
    count = "http_request_seconds_count"
    assert value(found, count, method="GET", route="/v1/runs/{run_id}", status="404") == 2
    assert value(found, count, method="GET", route="/v1/runs", status="200") == 1
    assert value(found, count, method="GET", route="(none)", status="404") == 2
    for word in ("run_1", "secret-path", "limit", "x.css", TOKEN):
        assert word not in text
    assert value(found, "database_connections", state="in_use") >= 0
    assert value(found, "database_connections_max") >= 1


def test_metrics_want_the_token_unless_they_are_public(settings: Settings, database: Database) -> None:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        refused = client.get("/metrics")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    public = settings.model_copy(update={"metrics_public": True})
    with TestClient(create_app(public), base_url="http://127.0.0.1") as client:
        assert client.get("/metrics").status_code == 200


def test_a_launch_under_way_tells_its_speed_and_what_is_left(settings: Settings, database: Database) -> None:
    with database.write() as session:
        job = jobs.new_job(jobs.FULL_RUN, "run_1", "launch_1")
        job.state = jobs.RUNNING
        job.progress = {"done": 250, "total": 1000, "tokens_per_second": 50.0, "loss": 3.5, "mfu": 0.25}
        done = jobs.new_job(jobs.FULL_RUN, "run_2", "launch_2")
        done.state, done.progress = jobs.SUCCEEDED, job.progress
        session.add_all([job, done])
    found = scrape(settings)
    expected = {"tokens": 250, "tokens_to_train": 1000, "tokens_per_second": 50, "loss": 3.5}
    for name, number in {**expected, "model_flops_utilization": 0.25, "seconds_left": 15}.items():
        assert value(found, f"launch_{name}", launch="launch_1") == number, name
    assert not [labels for _, labels in found if ("launch", "launch_2") in labels]
