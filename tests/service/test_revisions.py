"""The next revision over HTTP: whole trees and patches, what they change, what is asked, and what is refused."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from proxy_models.text.corpus import read_documents
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Revision
from tests.content import content_key

Document = dict[str, Any]
Write = Callable[..., str]
REVISIONS = "/v1/domain-sets/pool/revisions"


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@pytest.fixture
def first(client: TestClient, write_corpus: Write) -> dict[str, Document]:
    """Revision 1 of three domains of equal size, posted; answers its domains by name."""
    domains = [{"name": name, "files": [write_corpus(name)]} for name in ("books", "code", "news")]
    body = {"name": "pool", "held_out_fraction": 0.1, "domains": domains}
    assert client.post("/v1/domain-sets", json=body).status_code == 201
    return {domain["name"]: domain for domain in domains}


@pytest.fixture
def count(client: TestClient, settings: Settings) -> Iterator[Callable[[int], None]]:
    """Count a revision as its jobs would: the tokens and the content of every domain's files."""
    database = Database(settings.resolved_database_url)

    def count(number: int) -> None:
        with database.write() as session:
            query = select(DomainRow).join(Revision).where(Revision.number == number)
            for row in session.scalars(query):
                documents = [text for path in row.files for text in read_documents(Path(path))]
                row.counted_tokens = sum(len(text) for text in documents)
                row.content_hash = content_key(documents)

    yield count
    database.close()


def changes(response: Any) -> Document:
    """The changes of an answer, without what is empty."""
    assert response.status_code in (200, 201), response.text
    return {name: value for name, value in response.json()["changes"].items() if value}


def refusal(client: TestClient, body: Mapping[str, Any]) -> tuple[int, str, str | None]:
    """Status, code and field of a refused revision, after checking that nothing was stored."""
    before = client.get(REVISIONS).json()
    response = client.post(REVISIONS, json=body)
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert client.get(REVISIONS).json() == before
    problem = response.json()
    return response.status_code, problem["code"], problem.get("field")


def halves(write: Write, first: Mapping[str, Document], name: str) -> list[Document]:
    """Two domains with half the documents of a domain each, a file of their own."""
    path = Path(first[name]["files"][0])
    lines = path.read_text().splitlines(keepends=True)
    parts = []
    for index in range(2):
        part = path.with_name(f"{name}-{index}.jsonl")
        part.write_text("".join(lines[index::2]))
        parts.append({"name": f"{name}:{index}", "files": [str(part)]})
    return parts


def test_a_patch_changes_what_it_names_and_leaves_the_rest(
    client: TestClient, first: dict[str, Document], write_corpus: Write
) -> None:
    patch = {
        "add": [{"name": "papers", "files": [write_corpus("papers")]}],
        "rename": {"news": "press"},
        "split": [{"domain": "books", "into": halves(write_corpus, first, "books")}],
    }
    answer = client.post(REVISIONS, json={"patch": patch})
    assert changes(answer) == {
        "added": ["papers"],
        "renamed": {"news": "press"},
        "split": {"books": ["books:0", "books:1"]},
        "kept": 2,
        "confirmed": {"books:0": None, "books:1": None, "papers": None},
    }
    body = answer.json()
    assert (body["parent"], body["number"]) == (1, 2)
    files = {domain["name"]: domain["files"] for domain in body["domains"]}
    assert files["press"] == first["news"]["files"]
    assert files["code"] == first["code"]["files"]
    assert set(files) == {"books:0", "books:1", "code", "papers", "press"}


def test_a_merged_domain_has_its_members_files(client: TestClient, first: dict[str, Document]) -> None:
    patch = {"merge": [{"into": "prose", "domains": ["books", "news"]}]}
    answer = client.post(REVISIONS, json={"patch": patch})
    assert changes(answer)["merged"] == {"prose": ["books", "news"]}
    (prose,) = (domain for domain in answer.json()["domains"] if domain["name"] == "prose")
    assert sorted(prose["files"]) == sorted([*first["books"]["files"], *first["news"]["files"]])


def test_what_counting_finds_confirms_what_was_said(
    client: TestClient, first: dict[str, Document], write_corpus: Write, count: Callable[[int], None]
) -> None:
    count(1)
    patch = {
        "split": [{"domain": "books", "into": halves(write_corpus, first, "books")}],
        "merge": [{"into": "rest", "domains": ["code", "news"]}],
    }
    assert set(changes(client.post(REVISIONS, json={"patch": patch}))["confirmed"].values()) == {None}
    count(2)
    found = changes(client.get(f"{REVISIONS}/2"))
    assert found == {
        "split": {"books": ["books:0", "books:1"]},
        "merged": {"rest": ["code", "news"]},
        "confirmed": {"books:0": True, "books:1": True, "rest": True},
    }


def test_a_split_that_does_not_add_up_is_reported_and_carries_nothing(
    client: TestClient, first: dict[str, Document], write_corpus: Write, count: Callable[[int], None]
) -> None:
    parts = halves(write_corpus, first, "books")
    with Path(parts[1]["files"][0]).open("a") as file:
        file.write('{"text": "one document more"}\n')
    client.post(REVISIONS, json={"patch": {"split": [{"domain": "books", "into": parts}]}})
    count(1)
    count(2)
    found = changes(client.get(f"{REVISIONS}/2"))
    assert (found["added"], found["removed"]) == (["books:0", "books:1"], ["books"])
    assert "split" not in found
    assert all("do not add up" in why for why in found["unconfirmed"].values())
    assert set(found["unconfirmed"]) == {"books:0", "books:1"}


def test_a_touched_file_with_the_same_text_turns_out_kept(
    client: TestClient, first: dict[str, Document], count: Callable[[int], None]
) -> None:
    count(1)
    os.utime(first["code"]["files"][0], ns=(1, 1))
    answer = client.post(REVISIONS, json={"domains": list(first.values())})
    assert changes(answer) == {"revised": ["code"], "kept": 2, "confirmed": {"code": None}}
    count(2)
    assert changes(client.get(f"{REVISIONS}/2")) == {"kept": 3}


def test_a_file_that_moved_with_its_text_turns_out_renamed(
    client: TestClient, first: dict[str, Document], count: Callable[[int], None]
) -> None:
    count(1)
    path = Path(first["code"]["files"][0])
    moved = {"name": "programs", "files": [str(path.rename(path.with_name("programs.jsonl")))]}
    answer = client.post(REVISIONS, json={"domains": [first["books"], first["news"], moved]})
    assert answer.status_code == 201, answer.text
    count(2)
    assert changes(client.get(f"{REVISIONS}/2")) == {"renamed": {"code": "programs"}, "kept": 3}


def test_an_unchanged_file_under_another_name_is_a_rename_at_once(
    client: TestClient, first: dict[str, Document]
) -> None:
    programs = {**first["code"], "name": "programs"}
    answer = client.post(REVISIONS, json={"domains": [first["books"], first["news"], programs]})
    assert changes(answer) == {"renamed": {"code": "programs"}, "kept": 3}


def test_an_ambiguous_change_is_asked_about_and_one_word_answers(
    client: TestClient, first: dict[str, Document], write_corpus: Write
) -> None:
    tree = [first["code"], first["news"], *halves(write_corpus, first, "books")]
    assert refusal(client, {"domains": tree}) == (409, "ambiguous_change", "said")
    (question,) = client.post(REVISIONS, json={"domains": tree}).json()["questions"]
    assert question["domain"] == "books"
    assert {one["word"] for one in question["candidates"]} == {"split", "separate"}
    assert all(one["means"] for one in question["candidates"])
    assert refusal(client, {"domains": tree, "said": {"books": "perhaps"}}) == (
        422,
        "invalid_answer",
        "said.books",
    )
    answer = client.post(REVISIONS, json={"domains": tree, "said": {"books": "split"}})
    assert changes(answer)["split"] == {"books": ["books:0", "books:1"]}
    assert answer.json()["said"] == {"books": "split"}


def test_a_dry_run_answers_the_changes_and_stores_nothing(
    client: TestClient, first: dict[str, Document]
) -> None:
    response = client.post(f"{REVISIONS}?dry_run=true", json={"patch": {"remove": ["news"]}})
    assert response.status_code == 200
    assert changes(response) == {"removed": ["news"], "kept": 2}
    assert (response.json()["number"], response.json()["parent"]) == (2, 1)
    assert len(client.get(REVISIONS).json()["items"]) == 1


def test_a_revision_can_change_an_older_one(client: TestClient, first: dict[str, Document]) -> None:
    client.post(REVISIONS, json={"patch": {"remove": ["news"]}})
    answer = client.post(REVISIONS, json={"parent": 1, "patch": {"remove": ["code"]}})
    assert (answer.json()["number"], answer.json()["parent"]) == (3, 1)
    assert changes(answer) == {"removed": ["code"], "kept": 2}
    assert refusal(client, {"parent": 9, "patch": {"remove": ["code"]}})[:2] == (404, "revision_not_found")


def test_the_same_key_makes_one_revision(client: TestClient, first: dict[str, Document]) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"patch": {"remove": ["news"]}}
    made = client.post(REVISIONS, json=body, headers=headers)
    assert client.post(REVISIONS, json=body, headers=headers).json() == made.json()
    assert len(client.get(REVISIONS).json()["items"]) == 2


def merge(*names: str) -> Document:
    return {"merge": [{"into": "all", "domains": list(names)}]}


@pytest.mark.parametrize(
    ("patch", "code", "field"),
    [
        ({"remove": ["nobody"]}, "unknown_domain", "patch.remove[0]"),
        ({"remove": ["books", "code"]}, "too_few_domains", "patch"),
        ({"rename": {"books": "news"}}, "duplicate_domain", "patch.rename.books"),
        ({"rename": {"books": "news:x"}}, "invalid_domain_name", None),
        ({"remove": ["books"], "rename": {"books": "prose"}}, "duplicate_domain", "patch.rename.books"),
        (merge("books", "nobody"), "unknown_domain", "patch.merge[0].domains[1]"),
        (merge("books", "books"), "duplicate_domain", "patch.merge[0].domains[1]"),
        (merge("books"), "invalid_request", "patch.merge[0].domains"),
        ({}, "invalid_request", "patch"),
        ({"move": []}, "invalid_request", "patch.move"),
    ],
)  # fmt: skip
def test_a_faulty_patch_is_named(
    client: TestClient, first: dict[str, Document], patch: Document, code: str, field: str | None
) -> None:
    _, found, at = refusal(client, {"patch": patch})
    assert found == code
    if field:
        assert at == field


def test_the_part_of_a_patch_whose_file_is_bad_is_named(
    client: TestClient, first: dict[str, Document]
) -> None:
    bad = {"name": "bad", "files": ["/etc/passwd"]}
    good = {"name": "good", "files": first["books"]["files"]}
    for patch, field in (
        ({"add": [good, bad]}, "patch.add[1].files[0]"),
        ({"revise": [bad]}, "patch.revise[0].files[0]"),
        ({"split": [{"domain": "books", "into": [good, bad]}]}, "patch.split[0].into[1].files[0]"),
    ):
        assert refusal(client, {"patch": patch}) == (422, "outside_data_roots", field)


def test_a_split_whose_declared_sizes_do_not_add_up_is_refused(
    client: TestClient, first: dict[str, Document], write_corpus: Write, count: Callable[[int], None]
) -> None:
    count(1)
    parts = [{**part, "tokens": 5} for part in halves(write_corpus, first, "books")]
    problem = refusal(client, {"patch": {"split": [{"domain": "books", "into": parts}]}})
    assert problem == (422, "split_mismatch", "patch.split[0].into")


def test_a_file_that_is_gone_from_a_domain_left_alone_is_named(
    client: TestClient, first: dict[str, Document]
) -> None:
    Path(first["code"]["files"][0]).unlink()
    response = client.post(REVISIONS, json={"patch": {"remove": ["news"]}})
    assert (response.status_code, response.json()["code"]) == (422, "no_such_file")
    assert "'code'" in response.json()["detail"]


def test_neither_both_nor_none_of_tree_and_patch(client: TestClient, first: dict[str, Document]) -> None:
    both = {"domains": list(first.values()), "patch": {"remove": ["news"]}}
    for body in ({}, both, {"patch": {"remove": ["news"]}, "said": {"news": "removed"}}):
        assert refusal(client, body)[:2] == (422, "invalid_request")
