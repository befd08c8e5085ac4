"""What people have becomes a domain set: files as their tools write them, and everything unclear by name."""

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from exchange.formats import export
from exchange.imports import read_import
from exchange.sheets import InvalidTable
from mixing.pools import POOLS

GENERATE = """
    name: example-swarm
    data:
      sources:
        - name: dclm
          topics:
            - {name: science, paths: ["s3://bucket/dclm/science/**/*.npy"]}
            - name: software
              quality:
                - {name: high, paths: ["s3://bucket/dclm/software/high/*.npy"]}
                - {name: low, paths: ["s3://bucket/dclm/software/low/*.npy"]}
        - {name: wikipedia, paths: ["wikipedia/*.npy"]}
    priors:
      token_counts: {"dclm:science": 84526121193, "wikipedia": 3692487830}
"""
LAUNCH = (
    GENERATE
    + """
    mix:
      dclm:
        weight: 0.8
        science: {weight: 0.25, repetition_factor: 1.0}
        software: {weight: 0.75, high: {weight: 0.9}, low: {weight: 0.1}}
      wikipedia: {weight: 0.2, repetition_factor: 2.0}
"""
)


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(textwrap.dedent(text))
    return str(folder / name)


def domains(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document["domain_set"]["domains"]}


def test_olmix_sources_are_leaves_with_their_paths_and_tokens(tmp_path: Path) -> None:
    found = read_import(written(tmp_path, "swarm.yaml", GENERATE), base="/data")
    assert found.domain_set["name"] == "swarm"
    assert domains(found.to_dict()) == {
        "dclm:science": {
            "name": "dclm:science",
            "files": ["s3://bucket/dclm/science/**/*.npy"],
            "tokens": 84526121193,
        },
        "dclm:software:high": {
            "name": "dclm:software:high",
            "files": ["s3://bucket/dclm/software/high/*.npy"],
        },
        "dclm:software:low": {
            "name": "dclm:software:low",
            "files": ["s3://bucket/dclm/software/low/*.npy"],
        },
        "wikipedia": {"name": "wikipedia", "files": ["/data/wikipedia/*.npy"], "tokens": 3692487830},
    }
    assert found.weights is None


def test_the_weights_of_a_launch_multiply_down(tmp_path: Path) -> None:
    found = read_import(written(tmp_path, "launch.yaml", LAUNCH))
    assert found.weights == pytest.approx(
        {"dclm:science": 0.2, "dclm:software:high": 0.54, "dclm:software:low": 0.06, "wikipedia": 0.2}
    )


def test_olmix_fit_has_tokens_and_its_constraints_become_the_question(tmp_path: Path) -> None:
    text = """
        priors: {token_counts: {arxiv: 21377485731, wikipedia: 3692487830}}
        constraints: {enabled: true, target_tokens: 6e+12, repetition_factor: 4}
    """
    found = read_import(written(tmp_path, "fit.yaml", text))
    assert domains(found.to_dict())["arxiv"] == {"name": "arxiv", "tokens": 21377485731}
    assert found.to_dict()["optimization"] == {"target_tokens": 6 * 10**12, "repetition_cap": 4.0}
    off = read_import(written(tmp_path, "off.yaml", text.replace("true", "false")))
    assert "optimization" not in off.to_dict()


@pytest.mark.parametrize("name", ["megatron", "olmo-core"])
def test_what_is_exported_for_a_trainer_is_imported_again(name: str, tmp_path: Path) -> None:
    weights = {"web": 0.75, "code": 0.25}
    run = {"tokens": {"web": 6e9, "code": 2e9}, "target_tokens": 2**30}
    made = export(weights, name, path="/data/{domain}_text_document", **run)
    for file, text in made.files.items():
        (tmp_path / file).write_text(text)
        found = read_import(str(tmp_path / file))
        assert found.weights == pytest.approx(weights, abs=1e-5)


def test_a_megatron_blend_names_domains_by_their_prefixes(tmp_path: Path) -> None:
    text = "70 /d/web_text_document 30 /d/code_text_document"
    for file, content in (
        ("blend.txt", text),
        ("splits.json", json.dumps({"train": text.split(), "valid": None})),
    ):
        found = read_import(written(tmp_path, file, content))
        assert found.weights == pytest.approx({"web": 0.7, "code": 0.3})
        assert domains(found.to_dict())["web"]["files"] == ["/d/web_text_document.bin"]
        assert found.notes == ("the weights summed to 100 and were divided by their sum",)
    same = read_import(written(tmp_path, "same.txt", "1 /web/text 1 /code/text"))
    assert set(domains(same.to_dict())) == {"web_text", "code_text"}


def test_olmo_core_mixes_group_their_paths_by_label(tmp_path: Path) -> None:
    lines = [
        "# a mix",
        "web,preprocessed/web/part-0.npy",
        "web,preprocessed/web/part-1.npy",
        "code,code/0.npy",
        "",
    ]
    text = "\n".join(lines)
    found = read_import(written(tmp_path, "mix.txt", text), base="s3://bucket/")
    assert domains(found.to_dict())["web"]["files"] == [
        "s3://bucket/preprocessed/web/part-0.npy",
        "s3://bucket/preprocessed/web/part-1.npy",
    ]


def test_a_regmix_folder_is_its_files_by_domain(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in (
        "train_the_pile_arxiv-00001.jsonl",
        "train_the_pile_arxiv-00002.jsonl",
        "train_cc.jsonl.zst",
    ):
        (tmp_path / "train" / name).touch()
    found = read_import(str(tmp_path), "pile")
    assert {name: len(row["files"]) for name, row in domains(found.to_dict()).items()} == {
        "the_pile_arxiv": 2,
        "cc": 1,
    }


@pytest.mark.parametrize("pool", [pool.name for pool in POOLS])
def test_every_open_pool_is_a_domain_set(pool: str) -> None:
    found = read_import(f"pool:{pool}")
    (published,) = [each for each in POOLS if each.name == pool]
    assert domains(found.to_dict()).keys() == {source.name for source in published.sources}
    assert found.weights is None or sum(found.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("bad.yaml", "train: {train_a: 0.5, train_b: 0.5}", "neither files nor tokens of a, b"),
        ("bad.yaml", "train: {train_a: 0.5, train_b: 1e-05x}", "'1e-05x' is no number"),
        ("bad.yaml", "priors: {token_counts: {a: 1, b: -2}}", "-2 is no number of at least 0"),
        ("bad.yaml", "model: 3", "no Olmix or RegMix"),
        ("bad.yaml", "sources: [{paths: [a]}]", "source 1 has no source_name"),
        ("bad.yaml", "data: {sources: [{name: a, paths: [x]}]}", "two domains at least"),
        ("bad.yaml", "data: [", "bad.yaml"),
        ("bad.txt", "0.7 /d/web 0.3", "it has 3 parts"),
        ("bad.txt", "web 0.7 code 0.3", "'web' is no number"),
    ],
)
def test_what_is_unclear_is_refused_by_name(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match=said):
        read_import(written(tmp_path, name, text))


def test_a_launch_that_weighs_only_some_sources_names_the_others(tmp_path: Path) -> None:
    document = yaml.safe_load(textwrap.dedent(LAUNCH))
    del document["mix"]["wikipedia"]
    with pytest.raises(InvalidTable, match="no weight of wikipedia"):
        read_import(written(tmp_path, "launch.yaml", yaml.safe_dump(document)))
    document["priors"]["token_counts"]["gone"] = 3
    del document["mix"]
    with pytest.raises(InvalidTable, match="gone"):
        read_import(written(tmp_path, "launch.yaml", yaml.safe_dump(document)))


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(InvalidTable, match="no file or folder"):
        read_import("/nowhere.yaml")
    with pytest.raises(InvalidTable, match="no pool 'x'"):
        read_import("pool:x")
