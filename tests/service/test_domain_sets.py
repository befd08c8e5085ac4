import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.domain_sets.revisions import check_first_domains
from service.domain_sets.schemas import DomainSetRequest
from service.http.app import create_app
from store.schema import upgrade
from store.settings import Settings
from tests.service.conftest import TOKEN

Document = dict[str, Any]

NOTHING_CHANGED: Document = {
    "added": [],
    "removed": [],
    "revised": [],
    "renamed": {},
    "split": {},
    "merged": {},
    "kept": 0,
    "confirmed": {},
    "unconfirmed": {},
}


def refused(client: TestClient, request: Document) -> Document:
    """The problem a request is answered with, after checking that it left nothing behind."""
    response = client.post("/v1/domain-sets", json=request)
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert client.get("/v1/domain-sets").json()["items"] == []
    return {"status": response.status_code, **response.json()}


def test_a_new_domain_set_is_revision_one_with_everything_added(
    client: TestClient, domain_set: Document
) -> None:
    response = client.post("/v1/domain-sets", json=domain_set)
    assert response.status_code == 201
    body = response.json()
    assert response.headers["location"] == "/v1/domain-sets/pool/revisions/1"
    assert client.get(response.headers["location"]).json() == body
    assert body["changes"] == {
        **NOTHING_CHANGED,
        "added": ["books", "web:forums", "web:news"],
        "confirmed": {"books": None, "web:forums": None, "web:news": None},
    }
    assert body["tokens"] == 1_110_000
    assert body["state"] == "queued"
    assert body["created_at"].endswith("Z")


def test_a_revision_says_what_changed(
    client: TestClient, domain_set: Document, write_corpus: Callable[..., str]
) -> None:
    client.post("/v1/domain-sets", json=domain_set)
    news, forums, _books = domain_set["domains"]
    papers = {"name": "papers", "files": [write_corpus("papers")]}
    response = client.post(
        "/v1/domain-sets/pool/revisions", json={"domains": [papers, {**forums, "tokens": 5}, news]}
    )
    assert response.status_code == 201, response.text
    assert response.json()["number"] == 2
    assert response.json()["parent"] == 1
    # More tokens of the same files are the same text.
    assert response.json()["changes"] == {
        **NOTHING_CHANGED,
        "added": ["papers"],
        "removed": ["books"],
        "kept": 2,
        "confirmed": {"papers": None},
    }
    same = client.post(
        "/v1/domain-sets/pool/revisions", json={"domains": [news, papers, {**forums, "tokens": 5}]}
    )
    assert (same.status_code, same.json()["code"]) == (409, "revision_unchanged")


def test_the_same_idempotency_key_makes_one_domain_set(client: TestClient, domain_set: Document) -> None:
    headers = {"Idempotency-Key": "first"}
    first = client.post("/v1/domain-sets", json=domain_set, headers=headers)
    second = client.post("/v1/domain-sets", json=domain_set, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    other = client.post("/v1/domain-sets", json={**domain_set, "name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    without_key = client.post("/v1/domain-sets", json=domain_set)
    assert (without_key.status_code, without_key.json()["code"]) == (409, "domain_set_exists")


def test_a_duplicated_domain_is_named(client: TestClient, domain_set: Document) -> None:
    domain_set["domains"][2]["name"] = "web:news"
    problem = refused(client, domain_set)
    assert (problem["status"], problem["code"], problem["field"]) == (
        422,
        "duplicate_domain",
        "domains[2].name",
    )
    assert "web:news" in problem["detail"]


@pytest.mark.parametrize("name", ["", "a:b:c:d", "a::b", " web", "web\n", "a:" + "x" * 300])
def test_a_bad_domain_name_is_named(client: TestClient, domain_set: Document, name: str) -> None:
    domain_set["domains"][1]["name"] = name
    problem = refused(client, domain_set)
    assert problem["status"] == 422
    assert problem["field"] == "domains[1].name"


def test_a_domain_inside_another_is_refused(client: TestClient, domain_set: Document) -> None:
    domain_set["domains"][2]["name"] = "web"
    problem = refused(client, domain_set)
    assert (problem["code"], problem["field"]) == ("invalid_domain_name", "domains[2].name")
    assert "'web'" in problem["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/etc/*",
        "{root}/../../../../etc/passwd",
        "{root}/%2e%2e/x",
        "corpora/news.jsonl",
        "~/x",
        "",
    ],
)
def test_a_path_outside_the_data_roots_is_refused(
    client: TestClient, settings: Settings, domain_set: Document, path: str
) -> None:
    domain_set["domains"][0]["files"] = [path.format(root=settings.data_directory / "corpora")]
    problem = refused(client, domain_set)
    assert problem["status"] == 422
    assert problem["field"] == "domains[0].files[0]"
    assert problem["code"] in ("outside_data_roots", "bad_path", "no_such_file")


def test_a_link_that_leaves_the_data_roots_is_refused(
    client: TestClient, settings: Settings, domain_set: Document, tmp_path: Path
) -> None:
    outside = tmp_path / "secret.jsonl"
    outside.write_text('{"text": "secret"}\n')
    root = settings.data_directory / "corpora"
    (root / "link.jsonl").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    for pattern in (
        root / "link.jsonl",
        root / "li*.jsonl",
        root / "folder" / "secret.jsonl",
        root / "**" / "s*",
    ):
        domain_set["domains"][0]["files"] = [str(pattern)]
        assert refused(client, domain_set)["code"] in ("outside_data_roots", "no_such_file")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "pyproject.toml", "a/b/c", "~/x", "a/../b", "tests"])
def test_a_tokenizer_outside_the_data_roots_is_refused(
    client: TestClient, domain_set: Document, name: str
) -> None:
    problem = refused(client, {**domain_set, "tokenizer": {"huggingface": name}})
    assert (problem["status"], problem["field"]) == (422, "tokenizer.huggingface")


def test_a_name_on_the_hub_goes_nowhere_unless_the_operator_allows_it(
    settings: Settings, domain_set: Document
) -> None:
    tokenizer = {"huggingface": "gpt2", "revision": "main"}
    for allowed, status in ((False, 422), (True, 201)):
        upgrade(settings.resolved_database_url)
        app = create_app(settings.model_copy(update={"allow_hub": allowed}))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with TestClient(app, base_url="http://127.0.0.1", headers=headers) as client:
            answer = client.post("/v1/domain-sets", json={**domain_set, "tokenizer": tokenizer})
        assert answer.status_code == status
        if not allowed:
            assert (answer.json()["code"], answer.json()["field"]) == (
                "hub_not_allowed",
                "tokenizer.huggingface",
            )
            assert "MIXWRIGHT_ALLOW_HUB" in answer.json()["detail"]
    assert answer.json()["tokenizer"] == tokenizer


@pytest.mark.parametrize("tokenizer", [{"vocabulary_size": 512}, {"huggingface": "/data/t"}])
def test_a_revision_is_of_a_name_on_the_hub(
    client: TestClient, domain_set: Document, tokenizer: Document
) -> None:
    problem = refused(client, {**domain_set, "tokenizer": {**tokenizer, "revision": "main"}})
    assert (problem["status"], problem["field"]) == (422, "tokenizer")


def test_a_tokenizer_below_the_data_roots_is_kept_with_links_resolved(
    client: TestClient, settings: Settings, domain_set: Document
) -> None:
    folder = settings.data_directory / "corpora" / "tokenizer"
    folder.mkdir()
    link = settings.data_directory / "corpora" / "link"
    link.symlink_to(folder)
    response = client.post("/v1/domain-sets", json={**domain_set, "tokenizer": {"huggingface": str(link)}})
    assert response.status_code == 201
    assert response.json()["tokenizer"] == {"huggingface": str(folder)}


def test_a_directory_in_place_of_a_pattern_is_told_which_pattern_names_its_files(
    client: TestClient, settings: Settings, domain_set: Document, write_corpus: Callable[..., str]
) -> None:
    folder = settings.data_directory / "corpora" / "shelf"
    (folder / "old").mkdir(parents=True)
    for place in (folder, folder / "old"):
        Path(write_corpus("books")).rename(place / "books.jsonl")
    for pattern in (f"{folder}", f"{folder.parent}/sh*"):
        domain_set["domains"][2]["files"] = [pattern]
        problem = refused(client, domain_set)
        assert (problem["code"], problem["field"]) == ("no_such_file", "domains[2].files[0]")
        for suffix, files in (("/*", 1), ("/", 2)):
            advised = pattern.rstrip("/") + suffix
            assert f"'{advised}'" in problem["detail"]
            body = {**domain_set, "name": f"pool-{files}"}
            body["domains"][2]["files"] = [advised]
            checked = check_first_domains(DomainSetRequest.model_validate(body), settings)
            assert len(checked[2].files) == files


def test_an_empty_file_is_named(client: TestClient, settings: Settings, domain_set: Document) -> None:
    empty = settings.data_directory / "corpora" / "empty.jsonl"
    empty.touch()
    domain_set["domains"][1]["files"] = [str(empty)]
    problem = refused(client, domain_set)
    assert problem["field"] == "domains[1].files"
    assert "empty.jsonl" in problem["detail"]
    assert "web:forums" in problem["detail"]


@pytest.mark.parametrize("bad_line", ['{"txt": "no text"}', "not json", '{"text": 7}'])
def test_an_unreadable_line_is_named_with_its_file(
    client: TestClient, settings: Settings, domain_set: Document, bad_line: str
) -> None:
    good = json.dumps({"text": "good " * 100})
    broken = settings.data_directory / "corpora" / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress("\n".join([good, good, bad_line, good]).encode()))
    domain_set["domains"][0]["files"] = [str(broken)]
    problem = refused(client, domain_set)
    assert problem["status"] == 422
    assert "broken.jsonl.gz, line 3" in problem["detail"]


def test_a_few_long_documents_are_enough(
    client: TestClient, settings: Settings, domain_set: Document
) -> None:
    """2% of 26 documents rounds to none; 508 kB have room for a slice."""
    path = settings.data_directory / "corpora" / "long.jsonl"
    texts = (f"long document {index} " * 1000 for index in range(26))
    path.write_text("".join(json.dumps({"text": text[:19_550]}) + "\n" for text in texts))
    domain_set["domains"][2]["files"] = [str(path)]
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    patch = {"patch": {"add": [{"name": "plays", "files": [str(path)]}]}}
    assert client.post("/v1/domain-sets/pool/revisions", json=patch).status_code == 201


def test_a_body_over_the_limit_is_refused_before_it_is_read(client: TestClient, domain_set: Document) -> None:
    domain_set["name"] = "x" * 2**20
    problem = refused(client, domain_set)
    assert (problem["status"], problem["code"]) == (413, "body_too_large")


def test_an_unknown_member_is_named(client: TestClient, domain_set: Document) -> None:
    problem = refused(client, {**domain_set, "domians": []})
    assert (problem["status"], problem["field"]) == (422, "domians")


def test_a_missing_domain_set_is_not_found(client: TestClient) -> None:
    response = client.get("/v1/domain-sets/nobody")
    assert (response.status_code, response.json()["code"]) == (404, "domain_set_not_found")


def test_pages_hold_every_domain_set_once(client: TestClient, domain_set: Document) -> None:
    names = [f"pool-{index}" for index in range(5)]
    for name in names:
        assert client.post("/v1/domain-sets", json={**domain_set, "name": name}).status_code == 201
    seen: list[str] = []
    after: str | None = None
    while True:
        parameters: dict[str, Any] = {"limit": 2, **({"after": after} if after else {})}
        page = client.get("/v1/domain-sets", params=parameters).json()
        seen += [item["name"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert sorted(seen) == names
    assert client.get("/v1/domain-sets", params={"limit": 201}).status_code == 422


def test_bad_lines_within_their_budget_and_a_split_of_its_own_are_said_with_the_domain(
    client: TestClient, domain_set: Document, write_corpus: Callable[..., str]
) -> None:
    path = Path(write_corpus("bad"))
    path.write_text(path.read_text() + '{"text": null}\n')
    domain_set["domains"][0]["files"] = [str(path)]
    problem = refused(client, domain_set)
    assert problem["code"] == "corpus_error"
    assert "line 401" in problem["detail"]
    reading = {"bad_lines": {"at_most": 0.01}, "held_out_fraction": 0.2}
    domain_set["domains"][0]["reading"] = {**reading, "bad_lines": {"at_most": 0.001}}
    assert "1 of 401 lines are no documents" in refused(client, domain_set)["detail"]
    domain_set["domains"][0]["reading"] = reading
    created = client.post("/v1/domain-sets", json=domain_set)
    assert created.status_code == 201, created.text
    (news,) = [domain for domain in created.json()["domains"] if domain["name"] == "web:news"]
    assert news["reading"] == {"bad_lines": 0.01, "held_out_fraction": 0.2}
    again = {**domain_set["domains"][0], "reading": news["reading"], "name": "copied"}
    patch = {"patch": {"add": [again]}}
    assert client.post("/v1/domain-sets/pool/revisions", json=patch).status_code == 201


def test_a_number_of_5000_digits_is_refused_with_its_line(
    client: TestClient, domain_set: Document, settings: Settings
) -> None:
    path = settings.data_directory / "corpora" / "long.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "fine", "id": ' + "1" * 5000 + "}\n")
    domain_set["domains"][0]["files"] = [str(path)]
    problem = refused(client, domain_set)
    assert (problem["code"], problem["field"]) == ("corpus_error", "domains[0].files")
    assert "long.jsonl, line 2: not JSON" in problem["detail"]


def test_tasks_are_named_with_a_domain_set_and_kept_by_its_revisions(
    client: TestClient, settings: Settings, domain_set: dict[str, Any]
) -> None:
    path = settings.data_directory / "corpora" / "quiz.json"
    path.write_text(json.dumps([{"q": "2 + 2 =", "a": 4}]))
    task: Document = {"name": "quiz", "path": str(path)}
    refused = client.post("/v1/domain-sets", json={**domain_set, "tasks": [task]})
    assert (refused.status_code, refused.json()["field"]) == (422, "tasks[0].path")
    task["fields"] = {"context": "q", "continuation": "a"}
    made = client.post("/v1/domain-sets", json={**domain_set, "tasks": [task]})
    assert made.status_code == 201, made.json()
    assert (made.json()["tasks"], made.json()["shared_text"]) == (["quiz"], None)
    patch = {"patch": {"rename": {"books": "library"}}}
    assert client.post("/v1/domain-sets/pool/revisions", json=patch).json()["tasks"] == ["quiz"]
