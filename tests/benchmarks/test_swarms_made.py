import json
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.swarm_table import ACCURACIES, HELD_OUT, SWARMS, TASKS, SwarmTable, read_swarms
from benchmarks.swarms_text import Part, backwards, swapped, turned, write_pool, write_tasks
from service.demo.corpora import DemoCorpora

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


def write_lines(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def corpora(tmp_path: Path) -> DemoCorpora:
    long = [{"text": f"number {number} " * 100} for number in range(20)]
    short = [{"text": "a\u2028line"}]
    example = {"context": "count:", "continuation": " ".join(WORDS)}
    return DemoCorpora(
        {"long": write_lines(tmp_path / "long", long), "short": write_lines(tmp_path / "short", short)},
        {"code": write_lines(tmp_path / "code", [example, {"context": "", "continuation": "too short"}])},
        "",
    )


def test_a_domain_of_a_pool_is_no_larger_than_it_says_and_takes_of_every_source(
    corpora: DemoCorpora, tmp_path: Path
) -> None:
    pool = {"both": Part(("long", "short"), 5)}
    (path,) = write_pool(corpora, pool, tmp_path / "pool").values()
    texts = [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
    assert texts[1] == "a\u2028line"
    assert 3000 < sum(map(len, texts)) <= 5000


def test_text_turned_twice_is_as_it_was() -> None:
    text = "to be or\n  not to be\n"
    assert backwards(text) == "or be to\nbe to not  \n"
    assert backwards(backwards(text)) == text


def test_the_wrong_choices_are_of_the_same_words_as_the_right_one() -> None:
    for others in (turned, swapped):
        for wrong in others(WORDS, random.Random(0)):
            assert sorted(wrong) == sorted(WORDS)
            assert wrong != WORDS


def test_the_gold_choice_is_what_was_written_and_short_answers_are_no_question(
    corpora: DemoCorpora, tmp_path: Path
) -> None:
    _, choices = write_tasks(corpora, tmp_path / "tasks")
    for path in choices.values():
        (question,) = map(json.loads, path.read_text().splitlines())
        assert question["choices"][question["gold"]] == " " + " ".join(WORDS[:9])


@pytest.mark.parametrize("swarm", read_swarms(), ids=lambda swarm: swarm.name)
def test_a_swarm_that_is_kept_has_a_hundred_different_runs_with_every_metric(swarm: SwarmTable) -> None:
    weights = swarm.table.weights
    assert len(np.unique(weights.round(6), axis=0)) == len(weights) > 100
    assert (weights >= 0).all()
    assert weights[0] == pytest.approx(swarm.domains.natural_weights, abs=1e-5)
    assert np.isfinite(swarm.table.metrics).all()
    assert (np.ptp(swarm.table.metrics, axis=0) > 0).all()
    assert set(swarm.groups) == {HELD_OUT, TASKS, ACCURACIES}


def test_no_text_is_kept_with_the_swarms() -> None:
    assert {path.suffix for path in SWARMS.iterdir()} == {".csv", ".json"}
