"""What a revision is told of its domains' text: from files to the caps, on both databases."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixing.limits import Limits
from service.domain_sets.repository import describe_revision
from service.mixtures.service import check_repetition
from store import jobs
from store.documents import LaunchDocument, TaskDocument
from store.engine import Database
from store.problems import Invalid
from store.question import JobQuestion
from store.revisions.shared_text import (
    asked_of,
    counted_domains,
    plan_warnings,
    text_warnings,
    uncompared_warnings,
)
from store.settings import Settings
from store.tables import Job, MixtureRow, Optimization, Revision
from tests.mixing.test_warnings import fields, is_shown, numbers
from tests.workers.conftest import prepare, write_texts
from workers.jobs import compare_domains, sample_swarm

TEXTS = [f"document {number} of the shared text, " + f"word{number} " * 30 for number in range(150)]
OTHERS = [f"another document {number}, " + f"thing{number} " * 30 for number in range(150)]


@pytest.fixture
def prepared(database: Database, tmp_path: Path) -> str:
    """A revision of four counted domains, two of which hold the same text and one of which holds some of it twice."""
    settings = Settings(data_directory=tmp_path)
    files = {
        "books": write_texts(tmp_path / "books.jsonl", OTHERS),
        "copy": write_texts(tmp_path / "copy.jsonl", TEXTS),
        "twice": write_texts(tmp_path / "twice.jsonl", [*TEXTS[:50], *TEXTS[:50], *OTHERS[:1]]),
        "web": write_texts(tmp_path / "web.jsonl", TEXTS),
    }
    return prepare(database, settings, files)


def test_copies_are_told_by_revision_plan_and_evidence_and_share_a_cap(
    database: Database, prepared: str
) -> None:
    with database.read() as session:
        revision = session.get_one(Revision, prepared)
        view = describe_revision(session, revision)
        assert view.state == jobs.SUCCEEDED
        rows = {domain.name: domain for domain in view.domains}
        assert rows["twice"].documents == 101
        assert rows["twice"].repeated_documents == 50
        assert rows["web"].repeated_documents == 0
        assert rows["web"].unique_tokens == rows["web"].counted_tokens == rows["web"].tokens
        assert view.shared_text is not None
        sets = {tuple(text["domains"]): text for text in view.shared_text["texts"]}  # type: ignore[attr-defined]
        assert sets["copy", "twice", "web"]["documents"] == 50
        assert sets["copy", "web"]["documents"] == 100
        assert sets["books", "twice"]["documents"] == 1
        assert any(text.startswith(sets["copy", "web"]["examples"][0][:20]) for text in TEXTS)
        domains = counted_domains(revision)
        assert domains.shared[0] == ("copy", "twice", "web")
        limits, halves = Limits(domains, 7.2 * domains.tokens[1], 4.0), np.array([0, 0.5, 0, 0.5])
        read = dict(zip(domains.names, limits.epochs(halves), strict=True))
        assert read["copy"] + read["web"] == pytest.approx(7.2)
        assert limits.exceeded(halves).tolist() == [False, True, False, True]
        said = " ".join(text_warnings(revision, ()))
        assert "Domain twice: 50 of its 101 documents are copies" in said
        assert "copy and twice and web share 50 documents" in said


@pytest.mark.parametrize("backwards", [False, True])
def test_what_a_domain_leaves_to_others_is_counted_there_alone_whatever_is_counted_first(
    sqlite: Database, tmp_path: Path, backwards: bool
) -> None:
    """The small one keeps what two that give share, and whoever gives nothing keeps all of its own."""
    settings = Settings(data_directory=tmp_path)
    held = {"copy": TEXTS, "small": [*TEXTS[:40], *TEXTS[:40]], "web": [*OTHERS, *TEXTS], "wiki": OTHERS[:60]}
    giving = ("copy", "small", "web")
    names = sorted(held, reverse=backwards)
    files = {name: write_texts(tmp_path / f"{name}.jsonl", held[name]) for name in names}
    readings: dict[str, dict[str, object]] = {name: {"copies": "drop_shared"} for name in giving}
    identity = prepare(sqlite, settings, files, readings)
    with sqlite.read() as session:
        revision = session.get_one(Revision, identity)
        counted = {row.name: row for row in revision.domains}
        documents = {name: row.documents for name, row in counted.items()}
        assert documents == {"copy": 110, "small": 40, "web": 90, "wiki": 60}
        assert revision.shared_text == {"texts": [], "not_compared": [], "tasks": {}}
        view = describe_revision(session, revision)
        said = {domain.name: " ".join(domain.warnings) for domain in view.domains}
        assert "40 documents that it or another domain has were left out" in said["copy"]
        assert "210 documents" in said["web"]
        tokens = {name: row.counted_tokens for name, row in counted.items()}
    alone = {"copy": TEXTS[40:], "small": TEXTS[:40], "web": OTHERS[60:], "wiki": OTHERS[:60]}
    again = prepare(
        sqlite,
        settings,
        {name: write_texts(tmp_path / f"{name}-alone.jsonl", texts) for name, texts in alone.items()},
        name="alone",
        tokenizer=revision.tokenizer_path,
    )
    with sqlite.read() as session:
        rows = session.get_one(Revision, again).domains
        assert {row.name: row.counted_tokens for row in rows} == tokens
        assert {row.content_hash for row in rows} == {row.content_hash for row in counted.values()}


def test_a_launch_that_reads_shared_text_more_often_than_its_cap_is_refused(
    database: Database, prepared: str
) -> None:
    with database.read() as session:
        revision = session.get_one(Revision, prepared)
        tokens = next(row.tokens for row in revision.domains if row.name == "web")
        assert tokens is not None
        mixture = MixtureRow(revision=revision, weights={"books": 0.0, "copy": 0.5, "twice": 0.0, "web": 0.5})
        launch = LaunchDocument(tokens=round(7.2 * tokens), repetition_cap=4.0)
        with pytest.raises(Invalid, match=r"hold the same text, which .* read 7\.20 times") as refused:
            check_repetition(mixture, launch.tokens, launch.repetition_cap)
        assert refused.value.field == "repetition_cap"
        check_repetition(mixture, round(3.9 * tokens), 4.0)


def test_tasks_that_are_trained_on_are_told_by_plan_evidence_and_the_next_counting(
    database: Database, prepared: str, tmp_path: Path
) -> None:
    task = tmp_path / "task.jsonl"
    parts = [
        {"context": f"Go on: {text[:60]}", "continuation": text[60:]}
        for text in [*TEXTS[:20], "never written " * 9]
    ]
    task.write_text("".join(json.dumps(part) + "\n" for part in parts))
    settings = Settings(data_directory=tmp_path)
    with database.write() as session:
        revision = session.get_one(Revision, prepared)
        optimization = Optimization(
            revision_id=revision.id,
            method="mixwright",
            seed=0,
            settings={
                "target_tokens": 1000,
                "tasks": [{"name": "quiz", "path": str(task), "digest": "0"}],
                "proxy": {"tokens": 65_536},
            },
        )
        session.add(optimization)
        session.flush()
        asked = JobQuestion.of(session, optimization).document.tasks
        assert "is looked for when the swarm is sampled" in [*plan_warnings(revision, asked)][-1]
        job = jobs.new_job(jobs.SAMPLE_SWARM, optimization.id, optimization.id)
        found = sample_swarm._held_against(sample_swarm.describe(session, job, settings), asked)
        trained = found["0"]["total"]
        assert 10 <= trained <= 20  # a tenth of the documents is held out, and never trained on
        assert found["0"]["domains"] == dict.fromkeys(["copy", "twice", "web"], trained)
        assert (found["0"]["examples"], found["0"]["short"]) == (21, 0)
        sample_swarm.store(session, job, {"runs": [], "held_against": found})
        said = f"Of the 21 examples of task quiz, {trained} are in the training text ({trained} in copy, "
        for warnings in (
            JobQuestion.of(session, optimization).warnings,
            [*plan_warnings(revision, asked)],
            describe_revision(session, revision).warnings,
        ):
            assert any(one.startswith(said) for one in warnings)
        known = sample_swarm.describe(session, job, settings)["known_tasks"]
        assert known == found, "what was found once is not looked for again"
        counted = compare_domains.execute(
            compare_domains.describe(session, job_of(revision), settings), print
        )
        assert counted["tasks"] == found
        task.unlink()
        counted = compare_domains.execute(
            compare_domains.describe(session, job_of(revision), settings), print
        )
        assert counted["tasks"] == {}, "a file that is gone holds up no counting"


def test_tasks_that_are_named_with_a_domain_set_are_looked_for_when_it_is_counted(
    sqlite: Database, tmp_path: Path
) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text(
        "".join(json.dumps({"context": text[:60], "continuation": text[60:]}) + "\n" for text in TEXTS)
    )
    asked = TaskDocument(name="quiz", path=str(task), digest="0")
    settings = Settings(data_directory=tmp_path)
    files = {
        "books": write_texts(tmp_path / "books.jsonl", OTHERS),
        "web": write_texts(tmp_path / "web.jsonl", TEXTS),
    }
    identity = prepare(sqlite, settings, files)
    with sqlite.write() as session:
        revision = session.get_one(Revision, identity)
        revision.shared_text = asked_of([asked])
        view = describe_revision(session, revision)
        assert (view.tasks, view.shared_text) == (["quiz"], None)
        job = job_of(revision)
        found = compare_domains.execute(compare_domains.describe(session, job, settings), print)
        compare_domains.store(session, job, found)
        session.flush()
        view = describe_revision(session, revision)
        assert view.tasks == ["quiz"]
        (said,) = view.warnings
        assert said.startswith("Of the 150 examples of task quiz, ")
        assert said in [*plan_warnings(revision, [asked])], "the first plan knows it"


def job_of(revision: Revision) -> Job:
    return jobs.new_job(jobs.COMPARE_DOMAINS, revision.id, revision.id)


def test_silence_about_a_task_means_that_it_was_looked_for() -> None:
    """Each task of a plan, and of an answer, was held against the text and is clean, or something is said of it."""
    told = {"examples": 4, "short": 0, "domains": {"web": 3}, "total": 3, "shown": "Who"}
    clean, dirty, new, elsewhere = (
        TaskDocument(name=name, path=path, digest=name)
        for name, path in (("clean", "/c"), ("dirty", "/d"), ("new", "/n"), ("elsewhere", ""))
    )
    known = {"clean": {**told, "domains": {}, "total": 0}, "dirty": told}
    revision = Revision(shared_text={"texts": [], "tasks": known}, domains=[])
    said = [*plan_warnings(revision, (clean, dirty, new, elsewhere))]
    about = {
        name: [one for one in said if re.search(rf"\b{name}\b", one)]
        for name in ("clean", "dirty", "new", "elsewhere")
    }
    assert about["clean"] == []
    assert ["3 are in the training text" in one for one in about["dirty"]] == [True]
    assert ["when the swarm is sampled" in one for one in about["new"]] == [True]
    assert ["Nothing is known" in one and "`tasks`" in one for one in about["elsewhere"]] == [True]
    assert len(said) == 3
    answered = [*uncompared_warnings((clean, dirty, new, elsewhere), known)]
    assert ["new, elsewhere" in one for one in answered] == [True]
    assert len([*uncompared_warnings((new,), None)]) == 1, "older swarms have not looked at all"


def test_every_number_of_a_warning_about_text_is_a_field_of_the_revision(
    database: Database, prepared: str
) -> None:
    told = {"dropped_documents": 17, "bad_lines": {"lines": 23, "first": "a.jsonl, line 9: not JSON"}}
    with database.write() as session:
        revision = session.get_one(Revision, prepared)
        (twice,) = [row for row in revision.domains if row.name == "twice"]
        twice.declared_tokens = 1_234
        twice.findings = {**(twice.findings or {}), **told, "lost_characters": 0.0031, "lost_spaces": 0.047}
        session.flush()
        view = describe_revision(session, revision).model_dump()
    (domain,) = [one for one in view["domains"] if one["name"] == "twice"]
    assert len(domain["warnings"]) == 6
    assert len(view["warnings"]) >= 3
    shown = [*fields(domain), *fields(view["shared_text"])]
    shown += [100 * domain["lost_characters"], 100 * domain["lost_spaces"]]
    names = [text for text in texts_in(view) if text]
    for said in (*domain["warnings"], *view["warnings"]):
        for number in numbers(said.replace(",", ""), [name.replace(",", "") for name in names]):
            assert any(is_shown(number, value) for value in shown), (number, said)


def texts_in(part: Any) -> list[str]:
    """The texts of a document that a warning may quote: names, examples and first faults, but no warnings."""
    if isinstance(part, dict):
        return [text for name, member in part.items() if name != "warnings" for text in texts_in(member)]
    if isinstance(part, list):
        return [text for member in part for text in texts_in(member)]
    return [part] if isinstance(part, str) else []
