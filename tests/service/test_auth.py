import stat
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.http.app import create_app
from service.http.auth import COOKIE
from service.processes.address import UnprotectedBind, load_token, token_file
from store.settings import Settings
from tests.service.conftest import TOKEN


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_nothing_is_answered_without_the_token(client: TestClient, header: str) -> None:
    for path in ("/v1/domain-sets", "/v1/optimizations", "/v1/runs", "/v1/mixtures", "/v1/launches"):
        response = client.get(path, headers={"Authorization": header})
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        scheme, _, secret = header.partition(" ")
        expected = "does not know the token" if scheme == "Bearer" and secret else "Send the token"
        assert expected in response.json()["detail"]


def test_a_browser_session_writes_only_from_the_services_own_pages(
    client: TestClient, domain_set: dict[str, Any]
) -> None:
    client.headers["Authorization"] = ""
    client.post("/login", data={"token": TOKEN})
    assert client.cookies[COOKIE]
    assert client.get("/v1/domain-sets").status_code == 200
    for headers in (
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8080"},
    ):
        refused = client.post("/v1/domain-sets", json=domain_set, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_origin"), headers
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1"}
    assert client.post("/v1/domain-sets", json=domain_set, headers=own).status_code == 201


def test_another_site_cannot_write(client: TestClient, domain_set: dict[str, Any]) -> None:
    response = client.post("/v1/domain-sets", json=domain_set, headers={"Origin": "http://evil.example"})
    assert (response.status_code, response.json()["code"]) == (403, "cross_origin")


def test_another_host_name_is_refused(client: TestClient) -> None:
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "127.0.0.1:80:80",
        "[",
    ):
        response = client.get("/v1/domain-sets", headers={"Host": host})
        assert (response.status_code, response.json()["code"]) == (400, "unknown_host")
    for host in ("localhost", "LOCALHOST:8321", "127.0.0.1:99"):
        assert client.get("/v1/domain-sets", headers={"Host": host}).status_code == 200


def test_the_first_start_makes_a_token_only_its_owner_can_read(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path / "new")
    token = load_token(settings)
    assert len(token) >= 32
    assert stat.S_IMODE(token_file(settings).stat().st_mode) == 0o600
    assert load_token(settings) == token


def test_a_bind_beyond_this_machine_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(UnprotectedBind, match="MIXWRIGHT_TOKEN"):
        create_app(Settings(data_directory=tmp_path, host="0.0.0.0"))
    assert not (tmp_path / "token").exists()
    assert load_token(Settings(data_directory=tmp_path, host="0.0.0.0", token=TOKEN)) == TOKEN
