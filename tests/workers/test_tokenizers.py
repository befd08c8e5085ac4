"""A revision never reads other tokens than its parent, whoever's tokenizer is made first."""

import hashlib
import json
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from mixing.change.revision import Changes
from proxy_models.stores.object_path import file_identity
from proxy_models.text.tokenizer import fetch_tokenizer, load_tokenizer, train_byte_level_bpe
from service.domain_sets.repository import describe_revision
from service.domain_sets.revisions import _definition_hash
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job, Revision
from tests.proxy_models.test_hub import NAME as HUB_NAME
from tests.proxy_models.test_hub import hub_of
from tests.workers.conftest import new_revision
from workers.claims.failures import JobError
from workers.jobs import prepare_tokenizer

Described = dict[str, object]


def add_domain(session: Session, revision: Revision, name: str) -> None:
    session.add(DomainRow(revision_id=revision.id, name=name, files=[f"/{name}.txt"]))
    session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
    session.flush()


@pytest.fixture
def chain(database: Database) -> tuple[str, str, str]:
    """Three revisions, each the next one's parent, none prepared; answers their ids."""
    with database.write() as session:
        first = new_revision(session)
        add_domain(session, first, "a")
        ids = [first.id]
        for number, name in ((2, "b"), (3, "c")):
            revision = Revision(
                domain_set_id=first.domain_set_id,
                number=number,
                parent_id=ids[-1],
                tokenizer=first.tokenizer,
                held_out_fraction=0.1,
                content_hash=str(number),
                changes=Changes().to_dict(),
            )
            session.add(revision)
            session.flush()
            add_domain(session, revision, name)
            ids.append(revision.id)
    return ids[0], ids[1], ids[2]


def described(database: Database, tmp_path: Path, revision_id: str, allow_hub: bool = False) -> Described:
    settings = Settings(data_directory=tmp_path, allow_hub=allow_hub)
    with database.read() as session:
        job = session.query(Job).filter_by(subject=revision_id).one()
        return prepare_tokenizer.describe(session, job, settings)


def test_a_successor_that_comes_first_makes_its_ancestors_tokenizer(
    database: Database, tmp_path: Path, chain: tuple[str, str, str]
) -> None:
    specs = [described(database, tmp_path, revision_id) for revision_id in chain]
    assert specs[0] == specs[1] == specs[2]
    assert specs[0]["files"] == {"a": ["/a.txt"]}


def test_a_successor_takes_what_its_parent_has_made_meanwhile(
    database: Database, tmp_path: Path, chain: tuple[str, str, str]
) -> None:
    with database.write() as session:
        session.get_one(Revision, chain[0]).tokenizer_path = "/made.json"
    assert described(database, tmp_path, chain[2])["existing"] == "/made.json"


def test_a_successor_of_one_that_failed_begins_anew(
    database: Database, tmp_path: Path, chain: tuple[str, str, str]
) -> None:
    with database.write() as session:
        session.query(Job).filter_by(subject=chain[0]).one().state = jobs.FAILED
    assert described(database, tmp_path, chain[2])["files"] == {"b": ["/b.txt"]}


def test_a_name_on_the_hub_is_fetched_where_that_is_allowed_and_told_by_its_commit(
    database: Database, tmp_path: Path, chain: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.write() as session:
        session.get_one(Revision, chain[0]).tokenizer = {"huggingface": HUB_NAME, "revision": "v1"}
    with pytest.raises(JobError, match="MIXWRIGHT_ALLOW_HUB"):
        described(database, tmp_path, chain[0])
    spec = described(database, tmp_path, chain[0], allow_hub=True)
    train_byte_level_bpe(["some text to learn from"] * 50, 300, tmp_path / "ours.json")
    with hub_of((tmp_path / "ours.json").read_bytes()) as hub:
        there = partial(fetch_tokenizer, endpoint=hub.address)
        monkeypatch.setattr("proxy_models.text.tokenizer.fetch_tokenizer", there)
        result = prepare_tokenizer.execute(spec, lambda progress: None)
    with database.write() as session:
        job = session.query(Job).filter_by(subject=chain[0]).one()
        prepare_tokenizer.store(session, job, result)
    with database.read() as session:
        made = session.get_one(Revision, chain[0])
        fetched = {"commit": "b" * 40, "address": f"{hub.address}/{HUB_NAME}/tree/{'b' * 40}"}
        assert made.tokenizer_path is not None
        loaded = load_tokenizer(made.tokenizer_path)
        asked = {"huggingface": HUB_NAME, "revision": "v1"}
        found = {"fetched": fetched, "fingerprint": loaded.fingerprint}
        assert made.tokenizer == {**asked, **found}
        assert _definition_hash(made.tokenizer, 0.1, []) == _definition_hash(asked, 0.1, []), (
            "the same revision"
        )
        assert loaded.vocabulary_size == made.vocabulary_size
    assert described(database, tmp_path, chain[1])["hub"] is None, "a successor takes what was fetched"


@pytest.mark.parametrize("broken", [None, b'{"text": "fine"}\n{"text": 1}\n'], ids=["deleted", "malformed"])
def test_a_domain_whose_files_are_gone_before_they_are_counted_fails_and_does_not_wait(
    sqlite: Database, tmp_path: Path, broken: bytes | None
) -> None:
    there, gone = tmp_path / "there.jsonl", tmp_path / "gone.jsonl"
    there.write_text('{"text": "some text"}\n')
    if broken is not None:
        gone.write_bytes(broken)
    with sqlite.write() as session:
        revision = new_revision(session)
        for name, path in (("gone", gone), ("there", there)):
            session.add(DomainRow(revision_id=revision.id, name=name, files=[str(path)]))
        session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
        session.flush()
        job = session.query(Job).one()
        spec = prepare_tokenizer.describe(session, job, Settings(data_directory=tmp_path))
        with pytest.raises(JobError, match=r"domain 'gone': .*gone\.jsonl") as raised:
            prepare_tokenizer.execute(spec, lambda progress: None)
        assert raised.value.code == ("data_missing" if broken is None else "corpus_error")
        assert not raised.value.retryable
        job.state, job.failure_code, job.failure_detail = jobs.FAILED, raised.value.code, raised.value.detail
        session.flush()
        rows = {row.name: row for row in describe_revision(session, revision).domains}
    assert rows["gone"].state == jobs.FAILED
    assert rows["gone"].failure is not None
    assert "gone.jsonl" in rows["gone"].failure.detail
    assert (rows["there"].state, rows["there"].failure) == (jobs.QUEUED, None)


def test_a_tokenizer_of_json_that_was_read_as_plain_text_is_not_found_again(tmp_path: Path) -> None:
    """Under the names of before lie one of a file that its suffix told right, and one of a file that it did not."""
    texts = [f"document {number} " + "a few words more " * 20 for number in range(100)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    older = train_byte_level_bpe([lines] * 3, 300, tmp_path / "older.json")
    for name, is_found in (("a.jsonl", True), ("a.json", False)):
        path = tmp_path / name
        path.write_text(lines)
        identity = {
            "files": {"d": [file_identity(path)]},
            "vocabulary_size": 300,
            "held_out_fraction": 0.1,
            "sample_bytes": prepare_tokenizer.SAMPLE_BYTES,
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        (tmp_path / f"{key}.json").write_bytes((tmp_path / "older.json").read_bytes())
        spec = {
            "existing": None,
            "vocabulary_size": 300,
            "files": {"d": [str(path)]},
            "held_out_fraction": 0.1,
            "directory": str(tmp_path),
        }
        made = load_tokenizer(prepare_tokenizer.execute(spec, lambda progress: None)["path"])
        assert (made.fingerprint == older.fingerprint) == is_found, name
