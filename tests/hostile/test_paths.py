"""No spelling of a path reads or writes outside the data roots."""

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.files import resolve_files
from store.problems import Invalid
from store.settings import Settings
from tests.hostile.conftest import problem, still_answers

Document = dict[str, Any]

# Each stands for "../" in a path below the root.
STEPS_UP = [
    "../",
    "..//",
    "./../",
    "%2e%2e/",
    "%2e%2e%2f",
    "%252e%252e%252f",
    "..%c0%af",
    "..\\",
    "..%5c",
    "\uff0e\uff0e/",  # fullwidth full stops
    "\u2025/",  # two dot leader
    "..\u2215",  # division slash
    "..\u2044",  # fraction slash
    "..\uff0f",  # fullwidth slash
    ".\u200b./",  # a space of no width between
    "....//",
    "..;/",
    "..\x00/",
    "..\n/",
    "~/../",
]


@pytest.mark.usefixtures("untouched")
def test_no_spelling_of_a_step_up_leaves_the_roots(
    client: TestClient, settings: Settings, domain_set: Document
) -> None:
    root = settings.data_directory / "corpora"
    refused = ("outside_data_roots", "bad_path", "no_such_file", "bad_text")
    for step in STEPS_UP:
        path = f"{root}/{step}{step}outside/secret.jsonl"
        domain_set["domains"][0]["files"] = [path]
        assert problem(client.post("/v1/domain-sets", json=domain_set))["code"] in refused, path
        launch = {"mixture_id": "x", "size": "nano-0.1M", "tokens": 65536}
        problem(client.post("/v1/launches", json={**launch, "tasks": [{"name": "task", "path": path}]}))
        for path in (
            f"{root}/{step * 12}etc/passwd",
            f"{root}/{step}{step}outside/*.jsonl",
            f"{root}/*/{step}{step}outside/secret.jsonl",
            f"/{step}{root}/{step}x",
            f"{step}{step}outside/secret.jsonl",
        ):
            with pytest.raises(Invalid) as found:
                resolve_files(path, settings.roots, "files")
            assert found.value.code in refused, path
    still_answers(client)


@pytest.mark.parametrize(
    "pattern",
    [
        "/etc/passwd",
        "//etc/passwd",
        "/proc/self/environ",
        "/dev/stdin",
        "/dev/zero",
        "file:///etc/passwd",
        "http://127.0.0.1/x",
        "\\\\server\\share",
        "C:\\x",
        "~root/.ssh/id_rsa",
        "$HOME/x",
        "`id`",
        "/[e]tc/passwd",
        "/*/passwd",
        "/**",
        "{root}/**/**/x",
        "{root}/" + "a/" * 3000 + "x",
        "{root}/" + "x" * 5000,
        "{root}/" + "\U0001f600" * 100,
        "{root}",
        "{root}/.",
        "",
        " ",
    ],
)
@pytest.mark.usefixtures("untouched")
def test_no_other_address_of_a_file_is_read(
    client: TestClient, settings: Settings, domain_set: Document, pattern: str
) -> None:
    domain_set["domains"][0]["files"] = [pattern.replace("{root}", f"{settings.data_directory}/corpora")]
    assert problem(client.post("/v1/domain-sets", json=domain_set))["field"] == "domains[0].files[0]"
    domain_set["domains"][0]["files"] = domain_set["domains"][1]["files"]
    domain_set["tokenizer"] = {"huggingface": pattern or "/"}
    problem(client.post("/v1/domain-sets", json=domain_set))
    still_answers(client)


def test_no_kind_of_link_or_special_file_leads_out(
    client: TestClient, settings: Settings, domain_set: Document, outside: Path
) -> None:
    root = settings.data_directory / "corpora"
    (root / "file.jsonl").symlink_to(outside / "secret.jsonl")
    (root / "relative.jsonl").symlink_to("../../outside/secret.jsonl")
    (root / "folder").symlink_to(outside)
    (root / "second.jsonl").symlink_to(root / "file.jsonl")
    (root / "circle").symlink_to(root / "circle")
    (root / "gone.jsonl").symlink_to(root / "never-there")
    (root / "token.jsonl").symlink_to(settings.data_directory / "mixwright.db")
    os.mkfifo(root / "pipe.jsonl")
    for name in (
        "file.jsonl",
        "relative.jsonl",
        "folder/secret.jsonl",
        "folder/*.jsonl",
        "*/secret.jsonl",
        "**/secret.jsonl",
        "second.jsonl",
        "circle",
        "circle/x.jsonl",
        "gone.jsonl",
        "token.jsonl",
        "pipe.jsonl",
    ):
        domain_set["domains"][0]["files"] = [str(root / name)]
        assert problem(client.post("/v1/domain-sets", json=domain_set))["field"] == "domains[0].files[0]", (
            name
        )
    still_answers(client)


def test_addresses_of_the_service_are_no_addresses_of_files(client: TestClient) -> None:
    for step in (
        "..",
        "%2e%2e",
        "..%2f..",
        "%252e%252e",
        "..%5c..",
        "%00",
        "..;",
        "%c0%ae%c0%ae",
        "%ef%bc%8e",
    ):
        for path in (
            f"/static/{step}/app.py",
            f"/static/{step}/templates/base.html",
            f"/static/{step}%2fapp.py",
            f"/v1/runs/{step}",
            f"/v1/domain-sets/{step}/revisions/1",
            f"/v1/launches/{step}",
            f"/v1/mixtures/{step}/lineage",
            f"/v1/runs?swarm={step}",
            f"/v1/domain-sets?after={step}",
            f"//{step}/etc/passwd",
        ):
            answer = client.get(path)
            if answer.status_code != 200:
                problem(answer)
            else:
                assert answer.json()["items"] == [], path
    for address in ("/v1/domain-sets?after=%00", "/optimizations/%00", "/?after=%00", "/v1/runs/a%00b"):
        assert problem(client.get(address))["code"] == "bad_address"
    still_answers(client)


def test_identifiers_and_names_become_no_paths(client: TestClient, domain_set: Document) -> None:
    domain = domain_set["domains"][0]
    for name in ("../x", "/etc/x", "a/b", "..", ".", "", "x" * 256, "a\u2215b", "a b", "a\nb", "-rf"):
        assert problem(client.post("/v1/domain-sets", json={**domain_set, "name": name}))["field"] == "name"
        domains = [{**domain, "name": name}, *domain_set["domains"][1:]]
        problem(client.post("/v1/domain-sets", json={**domain_set, "domains": domains}))
    still_answers(client)
