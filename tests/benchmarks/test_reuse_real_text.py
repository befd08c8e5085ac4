import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from benchmarks.reuse_text_domains import ADDED, FIRST, REVISED, SPLIT, Update, first_domains, updates
from benchmarks.reuse_text_report import MEAN, NATURAL, RATIOS, RECOMPUTE, REUSE, measured_document, shares
from mixing.change.revision import combined
from proxy_models.text.held_out import document_digest
from service.demo.corpora import DemoCorpora

OPERATIONS = (
    "ListThings\n\nLists.",
    "BatchGetThing\n\nGets.",
    "CreateThing\n\nMakes.",
    "TagThing\n\nTags.",
    "Thing\n\nA thing.",
    "Getter\n\nA thing that gets: no operation.",
)
HEADERS = (
    "int one();\nint two();\nint three();\n",
    "#include <a>\n#include <b>\n",
    "#pragma once\nint f();\nint g();\n",
)


@pytest.fixture
def corpora(tmp_path: Path) -> DemoCorpora:
    texts: dict[str, tuple[str, ...]] = {name: (name,) for name in (*FIRST, *ADDED[0], *ADDED[1])}
    texts |= {SPLIT: OPERATIONS, REVISED: HEADERS}
    files = {name: tmp_path / f"{index}.jsonl" for index, name in enumerate(sorted(texts))}
    for name, path in files.items():
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[name]))
    return DemoCorpora(files, {}, "")


def documents(domain: Mapping[str, list[str]]) -> list[str]:
    return [
        json.loads(line)["text"] for file in domain["files"] for line in Path(file).read_text().splitlines()
    ]


def content(texts: Iterable[str]) -> str:
    return combined(document_digest(text).hex() for text in texts)


def patch_of(found: tuple[Update, ...], operation: str) -> Update:
    (update,) = (one for one in found if operation in one.patch)
    return update


def test_the_parts_of_the_split_domain_hold_its_documents_each_once(
    corpora: DemoCorpora, tmp_path: Path
) -> None:
    (split,) = patch_of(updates(corpora, tmp_path / "updates"), "split").patch["split"]
    parts = [documents(part) for part in split["into"]]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert combined(map(content, parts)) == content(OPERATIONS)


def test_filtering_again_drops_the_documents_that_are_mostly_preprocessor_lines(
    corpora: DemoCorpora, tmp_path: Path
) -> None:
    (revised,) = patch_of(updates(corpora, tmp_path / "updates"), "revise").patch["revise"]
    assert documents(revised) == [HEADERS[0], HEADERS[2]]


def test_files_written_before_are_left_alone(corpora: DemoCorpora, tmp_path: Path) -> None:
    directory = tmp_path / "updates"
    updates(corpora, directory)
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    updates(corpora, directory)
    assert before == {path: path.stat().st_mtime_ns for path in directory.iterdir()}


def test_the_updates_change_every_domain_at_most_once_and_bring_no_name_twice(
    corpora: DemoCorpora, tmp_path: Path
) -> None:
    first = {domain["name"] for domain in first_domains(corpora)}
    found = updates(corpora, tmp_path / "updates")
    added = [one["name"] for update in found for one in update.patch.get("add", ())]
    assert [update.name for update in found] == ["add 3", "add 2", "revise 1", "remove 1", "split 1 into 3"]
    assert len({*first, *added}) == len(first) + len(added) == 13
    (removed,) = patch_of(found, "remove").patch["remove"]
    assert len({removed, REVISED, SPLIT} & first) == 3


def test_shares_are_of_the_runs_and_of_the_gain_of_recomputing_everything() -> None:
    bits = {NATURAL: (3.0, 3.2), REUSE: (2.1, 2.3), RATIOS: (2.5, 2.7), RECOMPUTE: (2.0, 2.2)}
    launches = {
        name: [{"metrics": {"a": value - 0.5, "b": value + 0.5, "watched": 9.0}} for value in values]
        for name, values in bits.items()
    }
    measured = measured_document(launches, ["a", "b"])
    found = shares({REUSE: {"runs": 20}, RATIOS: {"runs": 50}, RECOMPUTE: {"runs": 200}}, 40, measured)
    assert measured[REUSE]["mean"] == pytest.approx({"a": 1.7, "b": 2.7, MEAN: 2.2})
    assert found[REUSE]["share_of_runs"] == pytest.approx(0.1)
    assert found[REUSE]["share_of_runs_with_first_swarm"] == pytest.approx(60 / 240)
    assert found[REUSE]["gain"] == pytest.approx(0.9)
    assert found[REUSE]["share_of_gain"] == pytest.approx(0.9)
    assert found[RATIOS]["share_of_gain_by_seed"] == pytest.approx([0.5, 0.5])
    assert found[RECOMPUTE]["share_of_gain"] == 1
    # Every mixture's two seeds lie .2 apart: variance .02, two means of two seeds each.
    assert found[REUSE]["gain_error"] == pytest.approx(0.02**0.5)
