"""Files as they should not be, from counting to the mixture: two kilobytes, text given twice, lines in disguise."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from mixing.errors import InvalidSetting
from mixing.methods import method_named
from mixing.runs.evidence import RunEvidence
from proxy_models.config import TrainingConfig
from proxy_models.text.held_out import document_digest, is_held_out
from proxy_models.training.run_inputs import mixture_sampler, open_shards, scored_slices
from proxy_models.training.run_spec import RunSpec
from store import jobs
from store.documents import OptimizationDocument, TrainingDocument
from store.engine import Database
from store.question import JobQuestion
from store.revisions.shared_text import text_warnings, unmeasured
from store.settings import Settings
from store.tables import Optimization, Revision
from tests.workers.conftest import prepare, write_texts
from workers.jobs import sample_swarm, solve

ASKED = {"target_tokens": 1000, "proxy": {"tokens": 65_536}, "recipe": None}


def texts(name: str, documents: int) -> list[str]:
    return [f"{name} document {number} " + f"{name}{number} " * 40 for number in range(documents)]


def test_a_tiny_domain_is_trained_on_and_its_held_out_task_left_out(sqlite: Database, tmp_path: Path) -> None:
    files = {
        "books": write_texts(tmp_path / "books.jsonl", texts("books", 60)),
        "tiny": write_texts(tmp_path / "tiny.jsonl", texts("tiny", 4)),
        "web": write_texts(tmp_path / "web.jsonl", texts("web", 60)),
    }
    assert 1_000 < Path(files["tiny"]).stat().st_size < 2_048
    identity = prepare(sqlite, Settings(data_directory=tmp_path), files)
    with sqlite.write() as session:
        revision = session.get_one(Revision, identity)
        assert unmeasured(revision) == ("tiny",)
        (said,) = [one for one in text_warnings(revision, ()) if "Domain tiny" in one]
        assert "held-out/tiny is not measured" in said
        optimization = Optimization(
            revision_id=identity, method="mixwright", seed=0, settings={**ASKED, "method": "mixwright"}
        )
        session.add(optimization)
        session.flush()
        asked = JobQuestion.of(session, optimization)
        told = JobQuestion.from_dict(asked.to_dict())
        assert told.unmeasured == ("tiny",)
        shards = {row.name: Path(str(row.shard_directory)) for row in revision.domains}
    document = OptimizationDocument(target_tokens=1000.0, proxy=asked.document.proxy)
    with pytest.raises(InvalidSetting, match="give tasks"):
        document.objective([])
    assert set(document.objective(["books", "web"]).tasks) == {"held-out/books", "held-out/web"}
    spec = RunSpec(
        "nano-0.1M",
        {"books": 0.4, "tiny": 0.2, "web": 0.4},
        shards,
        tmp_path / "run",
        TrainingConfig(4096, sequence_length=64, batch_rows=8),
        vocabulary_size=512,
    )
    opened = open_shards(spec)
    assert set(scored_slices(spec, opened)) == {"held-out/books", "held-out/web"}
    assert mixture_sampler(spec, opened).realised_tokens()["tiny"] > 0


def test_a_domain_that_says_so_holds_out_a_fraction_of_its_own(sqlite: Database, tmp_path: Path) -> None:
    names = ("books", "web")
    files = {name: write_texts(tmp_path / f"{name}.jsonl", texts(name, 300)) for name in names}
    identity = prepare(sqlite, Settings(data_directory=tmp_path), files, {"web": {"held_out_fraction": 0.4}})
    with sqlite.read() as session:
        rows = {row.name: row.findings or {} for row in session.get_one(Revision, identity).domains}
    for name, fraction in zip(names, (0.1, 0.4), strict=True):
        kept = sum(is_held_out(document_digest(text), fraction) for text in texts(name, 300))
        assert rows[name]["held_out_documents"] == kept
    assert rows["web"]["held_out_documents"] > 3 * rows["books"]["held_out_documents"]


def test_one_text_given_twice_lines_in_disguise_and_two_kilobytes_come_to_an_answer_that_says_so(
    sqlite: Database, tmp_path: Path
) -> None:
    """The same text as JSON lines and Parquet, JSON lines under ``.json.gz``, and a domain too small to measure."""
    prose = texts("prose", 120)
    table, disguised = tmp_path / "again.parquet", tmp_path / "code.json.gz"
    pyarrow.parquet.write_table(pyarrow.table({"text": prose}), table)
    plain = Path(write_texts(tmp_path / "code.jsonl", texts("code", 120)))
    disguised.write_bytes(gzip.compress(plain.read_bytes()))
    files = {
        "again": str(table),
        "code": str(disguised),
        "prose": write_texts(tmp_path / "prose.jsonl", prose),
        "tiny": write_texts(tmp_path / "tiny.jsonl", texts("tiny", 4)),
    }
    settings = Settings(data_directory=tmp_path)
    identity = prepare(sqlite, settings, files)
    method = method_named("olmix")
    with sqlite.write() as session:
        revision = session.get_one(Revision, identity)
        counted = {row.name: row for row in revision.domains}
        assert counted["code"].documents == 120, "lines are documents, and not text of braces"
        assert counted["again"].content_hash == counted["prose"].content_hash
        document = OptimizationDocument(
            target_tokens=float(sum(row.counted_tokens or 0 for row in revision.domains)),
            repetition_cap=4.0,
            method=method.name,
            recipe=method.recipe,
            rounds=(15,),
            runs=15,
            proxy=TrainingDocument(tokens=65_536),
        )
        optimization = Optimization(
            revision_id=identity, method=method.name, seed=0, settings=document.to_dict()
        )
        session.add(optimization)
        session.flush()
        job = jobs.new_job(jobs.SAMPLE_SWARM, optimization.id, optimization.id)
        spec = sample_swarm.describe(session, job, settings)
        sampled = [run["weights"] for run in sample_swarm.execute(spec, lambda progress: None)["runs"]]
        question = JobQuestion.of(session, optimization)
    measured = ("again", "code", "prose")
    runs = tuple(
        RunEvidence(
            str(number), row, {f"held-out/{name}": 4 - row[name] - 0.5 * row["code"] for name in measured}
        )
        for number, row in enumerate(sampled)
    )
    evidence = solve.execute(replace(question, runs=runs).to_dict(), lambda progress: None)["evidence"]
    said = " ".join(warning["message"] for warning in evidence["warnings"])
    assert "again and prose share 120 documents" in said
    assert "held-out/tiny is not measured" in said
    limits = question.question().limits
    for weights in (evidence["weights"], *sampled):
        assert not limits.exceeded(np.array([weights[name] for name in limits.domains.names])).any()
