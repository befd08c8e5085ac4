from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from service.client import ApiError, Client, Unreachable

Handler = httpx.MockTransport


def client_over(handler: httpx.MockTransport, patience: float = 60.0) -> Client:
    return Client("http://127.0.0.1", "token", transport=handler, patience=patience)


def test_a_problem_becomes_an_error_with_its_parts() -> None:
    problem = {"code": "too_few_runs", "detail": "needs 6", "field": "runs", "needed": 6}
    client = client_over(Handler(lambda request: httpx.Response(422, json=problem)))
    with pytest.raises(ApiError, match="needs 6") as caught:
        client.create_optimization({})
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "too_few_runs", "runs")
    assert caught.value.problem["needed"] == 6


def test_a_create_whose_answer_was_lost_is_sent_again_under_the_same_key() -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.RemoteProtocolError("the web process was killed")
        return httpx.Response(503) if len(keys) == 2 else httpx.Response(201, json={"id": "one"})

    assert client_over(Handler(answer)).create_mixture({}) == {"id": "one"}
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_service_that_stays_away_is_unreachable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match="refused"):
        client_over(Handler(refuse), patience=0.0).optimization("opt")


def test_pages_are_read_to_the_end() -> None:
    pages = {None: {"items": [1, 2], "next": "b"}, "b": {"items": [3], "next": None}}
    handler = Handler(lambda request: httpx.Response(200, json=pages[request.url.params.get("after")]))
    assert list(client_over(handler).pages("/v1/runs")) == [1, 2, 3]


class LosesFirstAnswers(httpx.BaseTransport):
    """The service itself, behind a connection that breaks once after each write was done."""

    def __init__(self, service: TestClient) -> None:
        self._service = service
        self._lost: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._service.request(
            request.method, request.url.raw_path.decode(), content=request.read(), headers=request.headers
        )
        if request.method == "POST" and request.url.path not in self._lost:
            self._lost.add(request.url.path)
            raise httpx.ReadError("the connection broke after the request was done")
        return httpx.Response(answer.status_code, content=answer.content)


def test_cancel_and_retry_whose_answers_were_lost_are_done_once(
    client: TestClient, optimization: dict[str, Any]
) -> None:
    token = client.headers["Authorization"].removeprefix("Bearer ")
    with Client("http://127.0.0.1", token, LosesFirstAnswers(client)) as remote:
        made = remote.create_optimization(optimization)
        assert len(list(remote.pages("/v1/optimizations"))) == 1
        assert remote.cancel_optimization(made["id"])["state"] == "cancelled"
        assert remote.retry_optimization(made["id"])["state"] == "queued"
        with pytest.raises(ApiError) as caught:
            remote.retry_optimization(made["id"])
        assert caught.value.code == "not_ended", "another retry is another request"
        mixture = client.post(
            "/v1/mixtures",
            json={
                "domain_set": "pool",
                "name": "mine",
                "weights": {"web:news": 0.5, "web:forums": 0.25, "books": 0.25},
            },
        ).json()["id"]
        launch = remote.create_launch({"mixture_id": mixture, "size": "nano-0.1M", "tokens": 65_536})["id"]
        assert client.post(f"/v1/launches/{launch}:cancel").json()["state"] == "cancelled"
        assert remote.retry_launch(launch)["state"] == "queued"
