"""Weights from the files people have them in."""

import json
from pathlib import Path

import pytest

from exchange.sheets import InvalidTable, read_weights

MINE = {"web:news": 0.5, "code": 0.3, "books": 0.2}
ROWS = [{"domain": name, "weight": weight} for name, weight in MINE.items()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.csv", "domain,weight\n" + "".join(f"{name},{weight}\n" for name, weight in MINE.items())),
        ("mine.tsv", "weight\tdomain\ttokens\n" + "".join(f"{w}\t{n}\t7\n" for n, w in MINE.items())),
        ("mine.json", json.dumps(ROWS)),
        ("mine.json", json.dumps(MINE)),
        ("mine.json", json.dumps({"id": "mix_1", "weights": MINE})),
        ("mine.yaml", "".join(f"{json.dumps(name)}: {weight}\n" for name, weight in MINE.items())),
    ],
)
def test_a_table_a_mapping_or_a_list_is_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_weights(tmp_path / name) == MINE


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("no.json", '[{"domain": "a", "weight": 1}, {"domain": "a", "weight": 0}]', "'a' is named twice"),
        ("no.json", '{"a": "half"}', "the weight of 'a' is 'half'"),
        ("no.json", "{", "no.json"),
        ("no.yaml", "3", "neither a mapping"),
        ("no.csv", "a,b\n1,2\n", "one column of domains"),
    ],
)
def test_what_is_no_table_of_weights_is_refused_by_name(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidTable, match=said):
        read_weights(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match=r"gone\.csv"):
        read_weights(tmp_path / "gone.csv")
