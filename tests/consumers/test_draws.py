"""What the exports' realised reports say is what the trainers' own loaders draw."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from exchange.formats import Blend, export
from exchange.formats.base import Source
from tests.consumers.conftest import Draw
from tests.consumers.pool import SPAN, Domain, domains, shares, write_indexed, write_raw

pytestmark = pytest.mark.consumer

LENGTH, BATCH = 128, 128 * 16


def blend_of(pool: tuple[Domain, ...], **more) -> Blend:
    """The pool's mixture, trained for as long as no domain is read three times."""
    whole = int(min(3 * len(domain.tokens) / domain.weight for domain in pool))
    target = min(whole, 2_000_000) // BATCH * BATCH
    sources = tuple(
        Source(domain.name, domain.weight, len(domain.tokens), len(domain.documents)) for domain in pool
    )
    return Blend(
        sources, target, LENGTH, BATCH, repetition_cap=4.0, vocabulary=SPAN * len(pool), end_of_text=0, **more
    )


def written(blend: Blend, name: str, directory: Path, **told) -> dict[str, float]:
    """The export's files and what else the script is told; the tokens the report says."""
    made = export(blend, name)
    for file, content in made.files.items():
        (directory / file).write_text(content)
    run = {key: value for key, value in asdict(blend).items() if key != "sources"}
    (directory / "run.json").write_text(json.dumps({**run, **told}))
    return dict(made.realised.tokens)


@pytest.fixture(params=(3, 13, 64))
def pool(request) -> tuple[Domain, ...]:
    return domains(request.param)


@pytest.mark.parametrize("files", [1, 7])
def test_olmo_core_draws_what_the_report_says(pool, files, tmp_path: Path, draw: Draw):
    blend = blend_of(pool)
    sources = []
    for source, domain in zip(blend.sources, pool, strict=True):
        paths, tokens = write_raw(domain, tmp_path, files if source is blend.sources[-1] else 1)
        sources.append(replace(source, paths=paths, file_tokens=tokens))
    expected = written(replace(blend, sources=tuple(sources)), "olmo-core", tmp_path)
    assert draw("olmo-core", tmp_path) == expected


def test_olmo_core_gives_a_large_file_beside_small_ones_what_the_report_says(tmp_path: Path, draw: Draw):
    large, small = (
        replace(each, weight=weight) for each, weight in zip(domains(3)[1:], (0.1, 0.9), strict=True)
    )
    sources = []
    for domain, files in ((large, 40), (small, 1)):
        paths, tokens = write_raw(domain, tmp_path, files)
        sources.append(
            Source(domain.name, domain.weight, len(domain.tokens), paths=paths, file_tokens=tokens)
        )
    # One token more than ten batches: the eleventh is dealt out over the files.
    blend = Blend(tuple(sources), 10 * BATCH + 1, LENGTH, BATCH, vocabulary=3 * SPAN)
    expected = written(blend, "olmo-core", tmp_path)
    assert draw("olmo-core", tmp_path) == expected


def test_megatron_draws_what_the_report_says(pool, tmp_path: Path, draw: Draw):
    blend = blend_of(pool)
    sources = tuple(
        replace(source, paths=(write_indexed(domain, tmp_path),))
        for source, domain in zip(blend.sources, pool, strict=True)
    )
    expected = written(replace(blend, sources=sources), "megatron", tmp_path)
    # Its rows have one token more than they train on.
    assert draw("megatron", tmp_path) == expected


def test_streaming_draws_what_the_report_says(pool, tmp_path: Path, draw: Draw):
    blend = blend_of(pool)
    for domain in pool:
        write_raw(domain, tmp_path)
    sources = tuple(replace(source, paths=(str(tmp_path / source.name),)) for source in blend.sources)
    expected = written(replace(blend, sources=sources), "streaming", tmp_path)
    assert draw("streaming", tmp_path) == expected


def test_datasets_draws_the_tokens_the_report_expects(pool, tmp_path: Path, draw: Draw):
    blend = blend_of(pool)
    sources = []
    for source, domain in zip(blend.sources, pool, strict=True):
        path = tmp_path / f"{source.name}.jsonl"
        lines = [json.dumps({"domain": source.name, "tokens": len(each)}) for each in domain.documents]
        path.write_text("\n".join(lines))
        sources.append(replace(source, paths=(str(path),)))
    blend = replace(blend, sources=tuple(sources))
    expected = written(blend, "datasets", tmp_path)
    drawn = draw("datasets", tmp_path)
    documents = json.loads((tmp_path / "interleave.json").read_text())
    _check_chance(
        expected, drawn, documents["take"], dict(zip(expected, documents["probabilities"], strict=True))
    )


def test_litdata_draws_what_the_report_says(pool, tmp_path: Path, draw: Draw):
    blend = blend_of(pool)
    for domain in pool:
        write_raw(domain, tmp_path)
    sources = tuple(replace(source, paths=(str(tmp_path / source.name),)) for source in blend.sources)
    expected = written(replace(blend, sources=sources), "litdata", tmp_path)
    assert draw("litdata", tmp_path) == {name: count for name, count in expected.items() if count}


def _check_chance(expected, drawn, draws, probabilities) -> None:
    """Every share within 3 standard errors of what is expected, and one in a hundred domains within 4."""
    share, wanted = shares(drawn), shares(expected)
    for name, probability in probabilities.items():
        error = wanted[name] * math.sqrt((1 - probability) / (probability * draws))
        assert abs(share.get(name, 0.0) - wanted[name]) < 4 * error
    beyond = sum(
        abs(share.get(name, 0.0) - wanted[name])
        > 3 * wanted[name] * math.sqrt((1 - probability) / (probability * draws))
        for name, probability in probabilities.items()
    )
    assert beyond <= len(probabilities) // 100 + 1
