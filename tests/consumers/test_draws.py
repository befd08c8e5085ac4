"""What the exports' realised reports say is what the trainers' own loaders draw."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from exchange.formats import Blend, export
from exchange.formats.base import Source
from tests.consumers.conftest import Draw, Note
from tests.consumers.pool import SPAN, Domain, domains, shares, write_for, write_raw

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


def with_files(layout: str, pool: tuple[Domain, ...], directory: Path) -> Blend:
    """The mixture over the files that the workers write."""
    blend = blend_of(pool)
    sources = tuple(
        replace(source, paths=(write_for(layout, domain, directory, LENGTH),))
        for source, domain in zip(blend.sources, pool, strict=True)
    )
    return replace(blend, sources=sources)


def with_paths(blend: Blend) -> Blend:
    """Of files that are yet to be written."""
    return replace(blend, sources=tuple(replace(source, paths=("later",)) for source in blend.sources))


@pytest.fixture(params=(3, 13, 64))
def pool(request) -> tuple[Domain, ...]:
    return domains(request.param)


@pytest.mark.parametrize("files", [1, 7])
def test_olmo_core_draws_what_the_report_says(pool, files, tmp_path: Path, draw: Draw, note: Note):
    blend = blend_of(pool)
    sources = []
    for source, domain in zip(blend.sources, pool, strict=True):
        paths, tokens = write_raw(domain, tmp_path, files if source is blend.sources[-1] else 1)
        sources.append(replace(source, paths=paths, file_tokens=tokens))
    expected = written(replace(blend, sources=tuple(sources)), "olmo-core", tmp_path)
    drawn = draw("olmo-core", tmp_path)
    assert drawn == expected
    note("olmo-core", expected, drawn)


def test_olmo_core_gives_a_large_file_beside_small_ones_what_the_report_says(
    tmp_path: Path, draw: Draw, note: Note
):
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
    drawn = draw("olmo-core", tmp_path)
    assert drawn == expected
    note("olmo-core", expected, drawn)


def test_megatron_draws_what_the_report_says(pool, tmp_path: Path, draw: Draw, note: Note):
    expected = written(with_files("megatron", pool, tmp_path), "megatron", tmp_path)
    # Its rows have one token more than they train on.
    drawn = draw("megatron", tmp_path)
    assert drawn == expected
    note("megatron", expected, drawn)


def test_streaming_draws_what_the_report_says(pool, tmp_path: Path, draw: Draw, note: Note):
    expected = written(with_files("streaming", pool, tmp_path), "streaming", tmp_path)
    drawn = draw("streaming", tmp_path)
    assert drawn == expected
    note("streaming", expected, drawn)


def test_axolotl_s_files_hold_what_the_report_says(pool, tmp_path: Path, draw: Draw, note: Note):
    blend = blend_of(pool)
    rows = [round(count / LENGTH) for count in export(with_paths(blend), "axolotl").realised.tokens.values()]
    sources = tuple(
        replace(source, paths=(write_for("axolotl", domain, tmp_path, LENGTH, count),))
        for source, domain, count in zip(blend.sources, pool, rows, strict=True)
    )
    expected = written(replace(blend, sources=sources), "axolotl", tmp_path)
    drawn = draw("axolotl", tmp_path)
    assert drawn == expected
    note("axolotl", expected, drawn)


def test_datasets_draws_the_tokens_the_report_expects(pool, tmp_path: Path, draw: Draw, note: Note):
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
    chances = dict(zip(expected, documents["probabilities"], strict=True))
    errors = _standard_errors(expected, drawn, documents["take"], chances)
    # Of a hundred domains one may be further away by chance.
    assert sum(error > 3 for error in errors) <= len(errors) // 100 + 1
    assert max(errors) < 4
    note("datasets", expected, drawn, standard_errors=round(max(errors), 2))


def test_litdata_draws_what_the_report_says(pool, tmp_path: Path, draw: Draw, note: Note):
    expected = written(with_files("litdata", pool, tmp_path), "litdata", tmp_path)
    drawn = draw("litdata", tmp_path)
    assert drawn == {name: count for name, count in expected.items() if count}
    note("litdata", expected, drawn)


def _standard_errors(expected, drawn, draws, probabilities) -> list[float]:
    """By how many of them every domain's share is off."""
    share, wanted = shares(drawn), shares(expected)
    return [
        abs(share.get(name, 0.0) - wanted[name])
        / (wanted[name] * math.sqrt((1 - probability) / (probability * draws)))
        for name, probability in probabilities.items()
    ]
