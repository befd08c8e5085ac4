"""Exports as their readers read them; what the trainers' own loaders draw is in `tests/consumers`."""

import csv
import io
import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import mixwright
from exchange.formats import FORMATS, Blend, InvalidExport, export
from exchange.formats.base import Source
from exchange.formats.plain import apportioned, decimal, rounded
from mixing.errors import MixingError


def blend(**changed: Any) -> Blend:
    sources = (
        Source("books", 0.125, 4e8, 4e4, ("/d/books",)),
        Source("code", 0.25, 2e9, 1e6, ("/d/code",)),
        Source("web", 0.625, 6e9, 6e6, ("/d/web",)),
    )
    return Blend(
        **{
            "sources": sources,
            "target_tokens": 2**30,
            "sequence_length": 1024,
            "batch_tokens": 2**20,
            "repetition_cap": 4.0,
            "vocabulary": 50_000,
            **changed,
        }
    )


weights = st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=40)


@given(weights, st.integers(1, 10**9))
def test_apportioned_numbers_sum_to_the_total_and_none_is_a_whole_one_off(
    given: list[float], total: int
) -> None:
    counts = apportioned(given, total)
    assert sum(counts) == total
    scale = sum(given)
    assert all(
        abs(count - weight / scale * total) < 1 + 1e-6 * total
        for count, weight in zip(counts, given, strict=True)
    )


@given(weights)
def test_five_digits_still_sum_to_1(given: list[float]) -> None:
    assert math.isclose(math.fsum(rounded(given, 5)), 1.0, abs_tol=1e-12)


@given(st.floats(1e-300, 1e15))
def test_a_number_without_exponent_is_the_same_number_to_any_reader(value: float) -> None:
    text = decimal(value)
    assert "e" not in text
    assert float(text) == value
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_is_drawn_of_every_domain(name: str) -> None:
    made = export(blend(), name)
    assert made.files
    report = made.realised.to_dict()
    assert [row["name"] for row in report["domains"]] == ["books", "code", "web"]
    assert math.fsum(row["realised"] for row in report["domains"]) == pytest.approx(1)
    # An eighth, a quarter and five eighths of 2^20 rows are whole numbers of rows, so none has to round.
    if name != "litdata":
        assert report["largest_error"] < 1e-6
    assert report["domains"][0]["epochs"] == pytest.approx(2**27 / 4e8, rel=0.01)


def test_weights_come_back_to_the_last_bit() -> None:
    given = [0.1, 0.2, 0.7 - 1e-7, 1e-7]
    asked = {f"d{k}": weight for k, weight in enumerate(given)}
    plain = Blend(tuple(Source(name, weight) for name, weight in asked.items()))
    assert json.loads(export(plain, "json").files["mixture.json"]) == asked
    assert yaml.safe_load(export(plain, "yaml").files["mixture.yaml"]) == asked
    rows = list(csv.DictReader(io.StringIO(export(plain, "csv").files["mixture.csv"])))
    assert {row["domain"]: float(row["weight"]) for row in rows} == asked
    assert {
        row["domain"]: row["weight"] for row in json.loads(export(plain, "olmix").files["mixture.json"])
    } == asked


def test_a_name_with_a_comma_or_a_quote_comes_back_from_csv() -> None:
    names = ["a,b", 'a"b', "a b"]
    plain = Blend(tuple(Source(name, weight) for name, weight in zip(names, (0.25, 0.25, 0.5), strict=True)))
    assert [
        row["domain"] for row in csv.DictReader(io.StringIO(export(plain, "csv").files["mixture.csv"]))
    ] == names


def test_regmix_reads_numbers_and_not_text() -> None:
    small = Blend((Source("train_a", 0.99999), Source("train_b", 1e-5)))
    told = yaml.safe_load(export(small, "regmix").files["mixture.yaml"])
    assert told["train"] == {"train_a": 0.99999, "train_b": 1e-05}
    assert told["valid"] == {"valid_a": 1.0, "valid_b": 1.0}


def test_what_a_format_cannot_tell_from_nothing_is_refused() -> None:
    with pytest.raises(InvalidExport, match="regmix would draw nothing of b"):
        export(Blend((Source("a", 1 - 1e-7), Source("b", 1e-7))), "regmix")


def test_documents_are_weighed_by_their_length() -> None:
    told = json.loads(export(blend(), "datasets").files["interleave.json"])
    # Documents of 10,000, 2,000 and 1,000 tokens.
    wanted = [0.125 / 10_000, 0.25 / 2_000, 0.625 / 1_000]
    assert told["probabilities"] == pytest.approx([each / sum(wanted) for each in wanted])
    assert sum(told["probabilities"]) == 1.0
    tokens = sum(p * mean for p, mean in zip(told["probabilities"], (10_000, 2_000, 1_000), strict=True))
    assert told["take"] == round(2**30 / tokens)


def test_llama_factory_is_told_the_same_probabilities() -> None:
    made = export(blend(), "llama-factory").files
    told = yaml.safe_load(made["mixture.yaml"])
    probabilities = [float(each) for each in told["interleave_probs"].split(",")]
    assert probabilities == json.loads(export(blend(), "datasets").files["interleave.json"])["probabilities"]
    assert told["dataset"].split(",") == list(json.loads(made["dataset_info.json"]))


def test_levanters_block_grows_until_the_smallest_domain_is_in_it() -> None:
    sources = (Source("a", 1 - 1e-4, paths=("/a",)), Source("b", 1e-4, paths=("/b",)))
    told = yaml.safe_load(export(blend(sources=sources), "levanter").files["data.yaml"])["data"]
    # 1e-4 of 2048, 4096 and 8192 rows is no row.
    assert told["mixture_block_size"] == 16_384
    drawn = export(blend(sources=sources), "levanter").realised.shares
    assert drawn["b"] == pytest.approx(1 / 16_384)
    tiny = (Source("a", 1 - 1e-7, paths=("/a",)), Source("b", 1e-7, paths=("/b",)))
    with pytest.raises(InvalidExport, match="b weighs 1e-07"):
        export(blend(sources=tiny), "levanter")


def test_a_fraction_of_one_whole_is_written_with_a_point() -> None:
    sources = (Source("a", 0.5, 100.0, paths=("/a",)), Source("b", 0.5, 50.0, paths=("/b",)))
    made = export(Blend(sources, 100, 10, 10), "open-instruct").files["dataset_mixer_list.txt"]
    assert made.split() == ["/a", "0.5", "/b", "1.0"]


@pytest.mark.parametrize("path", ["/d/with space", "0.5", "12"])
def test_megatron_is_not_told_a_path_it_would_take_apart(path: str) -> None:
    sources = (replace(blend().sources[0], paths=(path,)), *blend().sources[1:])
    with pytest.raises(InvalidExport, match="cannot be told the path"):
        export(blend(sources=sources), "megatron")


def test_megatrons_files_say_the_same() -> None:
    made = export(blend(), "megatron").files
    told = json.loads(made["splits.json"])
    assert told["train"] == made["blend.txt"].split()
    assert set(told) == {"train", "valid", "test"}


def test_a_domain_that_would_be_read_over_its_cap_is_refused() -> None:
    scarce = (replace(blend().sources[0], tokens=1e7), *blend().sources[1:])
    with pytest.raises(InvalidExport, match=r"would read books 13\.42 times, over its cap of 4"):
        export(blend(sources=scarce), "streaming")


@pytest.mark.parametrize(
    ("changed", "name", "complaint"),
    [
        ({"target_tokens": None}, "streaming", "needs target_tokens"),
        ({"sources": (Source("a", 1.0),)}, "olmo-core", "needs the paths of every domain; a has none"),
        (
            {"sources": (Source("a", 1.0, 1e9, paths=("/a",)),)},
            "datasets",
            "needs the documents of every domain",
        ),
        ({}, "pile", "no format 'pile'; there are olmo-core"),
    ],
)
def test_what_a_format_needs_is_asked_for(changed: dict[str, Any], name: str, complaint: str) -> None:
    with pytest.raises(InvalidExport, match=complaint):
        export(blend(**changed), name)


def test_weights_by_name_are_the_blend_they_stand_for() -> None:
    tokens = {"books": 4e8, "code": 2e9, "web": 6e9, "law": 1e6}
    told: dict[str, Any] = {
        "path": "/d/{domain}",
        "target_tokens": 2**30,
        "sequence_length": 1024,
        "repetition_cap": 4.0,
    }
    by_name = {"web": 0.625, "code": 0.25, "books": 0.125, "law": 0.0}
    given = blend(batch_tokens=2**19, vocabulary=None)
    for name in ("olmo-core", "megatron", "streaming", "litdata", "csv"):
        assert mixwright.export(by_name, name, tokens=tokens, batch_rows=512, **told) == export(given, name)


@pytest.mark.parametrize(
    ("weights", "told", "field"),
    [
        ({"a": 75.0, "b": 25.0}, {}, "weights"),
        ({"a": 1.5, "b": -0.5}, {}, "weights"),
        ({"a": 0.5, "b": 0.5}, {"tokens": {"a": 1e9, "bb": 1e9}}, "tokens"),
        ({"a": 0.5, "b": 0.5}, {"documents": {"c": 1}}, "documents"),
        ({"a": 0.5, "b": 0.5}, {"path": "/d/*.npy"}, "path"),
        ({"a": 0.5, "b": 0.5}, {"target_tokens": 10**16}, "target_tokens"),
        ({"a": 0.5, "b": 0.5}, {"target_tokens": 0}, "target_tokens"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(
    weights: dict[str, float], told: dict[str, Any], field: str
) -> None:
    with pytest.raises(MixingError) as caught:
        mixwright.export(weights, "csv", **told)
    assert caught.value.field == field


def test_a_domain_that_is_read_a_million_times_over_is_refused_before_its_readings_are_listed() -> None:
    weights, tokens = {"a": 0.5, "b": 0.5}, {"a": 1e3, "b": 1e12}
    told: dict[str, Any] = {"path": "/d/{domain}", "target_tokens": 10**15}
    with pytest.raises(InvalidExport, match=r"a would be read 5e\+11 times"):
        mixwright.export(weights, "olmo-core", tokens=tokens, **told)


def test_without_a_target_nothing_is_said_of_epochs() -> None:
    report = mixwright.export({"a": 0.5, "b": 0.5}, "csv", tokens={"a": 9, "b": 9}).realised.to_dict()
    assert [(row["tokens"], row["epochs"]) for row in report["domains"]] == [(None, None)] * 2


def test_a_batch_is_whole_rows() -> None:
    with pytest.raises(InvalidExport, match="not a whole number of rows"):
        blend(batch_tokens=1000)
    with pytest.raises(InvalidExport, match="not a whole number of rows"):
        blend(batch_tokens=0)


def test_litdatas_draws_are_those_of_its_seed() -> None:
    """Its loop, written out: one draw at a time by `random.Random`, ended by the first domain that has no more."""
    given = blend(
        target_tokens=2**20,
        batch_tokens=2**13,
        sources=tuple(replace(s, tokens=2**16) for s in blend().sources),
    )
    given = replace(given, repetition_cap=None)
    made = export(given, "litdata")
    seed = json.loads(made.files["combined.json"])["seed"]
    drawn = dict.fromkeys(("books", "code", "web"), 0)
    while sum(drawn.values()) < given.rows:
        chance, left = random.Random(seed), dict.fromkeys(drawn, 64)
        while sum(drawn.values()) < given.rows:
            (name,) = chance.choices(list(drawn), weights=[0.125, 0.25, 0.625], k=1)
            if not left[name]:
                break
            left[name] -= 1
            drawn[name] += 1
    assert {name: count * 1024 for name, count in drawn.items()} == made.realised.tokens


def test_a_large_file_beside_many_small_ones_gets_less_from_olmo_core() -> None:
    # The case tried with its own code: .9 in one file, .1 in forty, one token more than ten batches.
    sources = (
        Source("a", 0.9, 40_960, paths=("/a",), file_tokens=(40_960,)),
        Source("b", 0.1, 40_960, paths=("/b/*",), file_tokens=(1_024,) * 40),
    )
    some = Blend(sources, 20_481, 32, 2_048, repetition_cap=4.0)
    shares = export(some, "olmo-core").realised.shares
    assert shares["a"] == pytest.approx(0.821, abs=0.01)
    exact = export(replace(some, target_tokens=20_480), "olmo-core").realised.shares
    assert exact["a"] == pytest.approx(0.9, abs=1e-9)


@pytest.mark.parametrize("name", ["olmo-core", "megatron", "streaming", "levanter"])
def test_what_a_search_leaves_of_a_domain_is_no_domain(name: str) -> None:
    run = {"path": "/d/{domain}/x", "target_tokens": 10**9, "tokens": {"web": 1e9, "code": 1e9}}
    made = export({"web": 0.75, "code": 0.25, "wiki": 3e-22}, name, **run)
    assert set(made.realised.tokens) == {"web", "code"}
    assert not any("wiki" in content for content in made.files.values())


def test_a_weight_below_the_resolution_is_told_what_would_do() -> None:
    with pytest.raises(
        InvalidExport, match=r"rows of 2048 tokens that takes a run of about 2\.0e\+10 tokens"
    ):
        export({"web": 1 - 1e-7, "code": 1e-7}, "megatron", path="/d/{domain}", target_tokens=10**9)
