"""Guessing is slow, and slows nobody down who does not guess."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.http.auth import MOST_ADDRESSES, REFILL_SECONDS, USUAL_FAILURES, FailedAttempts
from tests.service.conftest import TOKEN


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(attempts: FailedAttempts, address: str, times: int = USUAL_FAILURES) -> None:
    for _ in range(times):
        attempts.failed(address)


def test_an_address_waits_after_ten_wrong_tokens_and_then_has_one_a_refill(clock: Clock) -> None:
    attempts = FailedAttempts(clock)
    fail(attempts, "192.0.2.1", USUAL_FAILURES - 1)
    assert attempts.wait_seconds("192.0.2.1", "x") == 0
    attempts.failed("192.0.2.1")
    assert attempts.wait_seconds("192.0.2.1", "x") == REFILL_SECONDS
    assert attempts.wait_seconds("192.0.2.2", "x") == 0
    clock.now += REFILL_SECONDS / 2
    assert attempts.wait_seconds("192.0.2.1", "x") == REFILL_SECONDS / 2
    clock.now += REFILL_SECONDS / 2
    assert attempts.wait_seconds("192.0.2.1", "x") == 0
    attempts.failed("192.0.2.1")
    assert attempts.wait_seconds("192.0.2.1", "x") == REFILL_SECONDS


def test_a_token_that_was_good_there_goes_on_working(clock: Clock) -> None:
    attempts = FailedAttempts(clock)
    attempts.succeeded("192.0.2.1", "good")
    fail(attempts, "192.0.2.1")
    assert attempts.wait_seconds("192.0.2.1", "good") == 0
    assert attempts.wait_seconds("192.0.2.1", "other") > 0
    assert attempts.wait_seconds("192.0.2.1", "goo") > 0


def test_the_addresses_of_one_ipv6_network_are_one_client(clock: Clock) -> None:
    attempts = FailedAttempts(clock)
    for index in range(USUAL_FAILURES):
        attempts.failed(f"2001:db8::{index:x}")
    assert attempts.wait_seconds("2001:db8::ffff", "x") > 0
    assert attempts.wait_seconds("2001:db8:0:1::1", "x") == 0


def test_the_memory_is_bounded(clock: Clock) -> None:
    attempts = FailedAttempts(clock)
    for index in range(MOST_ADDRESSES + 50):
        attempts.failed(f"client-{index}")
        attempts.succeeded(f"client-{index}", "x")
    assert len(attempts._failures) == len(attempts._good) == MOST_ADDRESSES


@pytest.mark.parametrize("way", ["api", "form", "link"])
def test_the_service_answers_429_with_the_time_to_wait(
    client: TestClient, run_tokens: Callable[..., str], way: str
) -> None:
    secret = run_tokens("create", "late")
    assert client.get("/v1/domain-sets").status_code == 200  # the operator's token, good from this address
    ways = {
        "api": lambda token: client.get("/v1/runs", headers={"Authorization": f"Bearer {token}"}),
        "form": lambda token: client.post("/login", data={"token": token}, follow_redirects=False),
        "link": lambda token: client.get("/", params={"code": token}, follow_redirects=False),
    }
    answers = [ways[way](f"guess-{index}").status_code for index in range(USUAL_FAILURES)]
    assert answers == [401] * USUAL_FAILURES
    for other in ways.values():
        refused = other(secret)
        assert refused.status_code == 429, "a good token is not even looked at"
        assert 0 < int(refused.headers["retry-after"]) <= REFILL_SECONDS
        assert "set-cookie" not in refused.headers
    assert client.get("/v1/domain-sets").status_code == 200
    assert client.post("/login", data={"token": TOKEN}, follow_redirects=False).status_code == 303


def test_no_token_and_an_old_cookie_are_no_attempts(client: TestClient) -> None:
    client.headers["Authorization"] = ""
    for _ in range(2 * USUAL_FAILURES):
        assert client.get("/v1/runs").status_code == 401
        assert client.get("/v1/runs", headers={"Cookie": "mixwright_session=old"}).status_code == 401
    assert client.get("/v1/runs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
