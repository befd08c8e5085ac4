import httpx
import pytest

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
