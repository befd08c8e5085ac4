"""Clients that send a byte now and then, or open connections without end, cost nobody else theirs."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
import uvicorn

from service.http import guards
from service.http.app import create_app
from service.processes import web
from service.processes.web import server_config
from store.schema import upgrade
from store.settings import Settings
from tests.service.conftest import TOKEN

SECONDS = 240.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    return Settings(data_directory=tmp_path / "data", token=TOKEN, client_connections=3)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(guards, "BODY_SECONDS", 0.2)


@pytest.fixture
def connect(settings: Settings) -> Iterator[Callable[[], socket.socket]]:
    """Opens a connection to the real server."""
    upgrade(settings.resolved_database_url)
    server = uvicorn.Server(server_config(create_app(settings), settings))
    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def connect() -> socket.socket:
            opened.append(socket.create_connection(listener.getsockname(), timeout=SECONDS))
            return opened[-1]

        yield connect
        for one in opened:
            one.close()
        server.should_exit = True
        thread.join()


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    pieces = []
    try:
        while piece := connection.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def ask(connection: socket.socket) -> int:
    """The status of an answer, after which the connection stays open."""
    client = HTTPConnection("127.0.0.1")
    client.sock = connection
    client.request("GET", "/healthz", headers={"Host": "127.0.0.1"})
    answer = client.getresponse()
    answer.read()
    return answer.status


@pytest.mark.parametrize(
    "sent", [b"", b"GET /v1/runs HT", b"GET /v1/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: 1"]
)
def test_a_head_that_does_not_come_ends_its_connection(
    impatient: None, connect: Callable[[], socket.socket], sent: bytes
) -> None:
    connection = connect()
    connection.sendall(sent)
    assert everything(connection) == b""


def test_a_second_head_that_does_not_come_ends_it_too(
    connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect()
    assert ask(connection) == 200
    monkeypatch.setattr(web, "HEAD_SECONDS", 0.2)
    connection.sendall(b"GET /v1/runs HT")
    assert everything(connection) == b""


def test_a_body_that_does_not_come_is_refused(impatient: None, connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    head = "POST /v1/optimizations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Authorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n{{".encode())
    said = everything(connection)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_too_slow"' in said


def test_nobody_waits_for_the_body_of_who_may_not_ask(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    head = "POST /v1/mixtures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    refusal = HTTPResponse(connection)
    refusal.begin()
    assert (refusal.status, b"unauthorized" in refusal.read()) == (401, True)
    connection.sendall(b" " * 99)  # which is passed over
    assert ask(connection) == 200


def test_a_client_has_so_many_connections_and_those_it_closes_it_may_open_again(
    connect: Callable[[], socket.socket],
) -> None:
    held = [connect() for _ in range(3)]
    assert [ask(one) for one in held] == [200, 200, 200]
    said = everything(connect())
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in said
    held[0].close()
    statuses = []
    while 200 not in statuses:
        try:
            statuses.append(ask(connect()))
        except OSError:
            statuses.append(0)


def test_the_connections_of_a_trusted_proxy_are_not_one_clients(settings: Settings) -> None:
    kind = web.bounded(settings.model_copy(update={"trusted_proxies": "10.0.0.0/8, 127.0.0.1"}))
    assert [kind._is_trusted(kind, address) for address in ("10.1.2.3", "127.0.0.1", "192.0.2.1", "")] == [  # pyright: ignore
        *(True, True, False, False)
    ]
