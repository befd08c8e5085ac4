"""A domain of two kilobytes in a mixture: trained on, without a held-out slice, and said so."""

from pathlib import Path

import pytest

from mixing.errors import InvalidSetting
from proxy_models.config import TrainingConfig
from proxy_models.training.run_inputs import mixture_sampler, open_shards, scored_slices
from proxy_models.training.run_spec import RunSpec
from store.documents import OptimizationDocument
from store.engine import Database
from store.question import JobQuestion
from store.revisions.shared_text import text_warnings, unmeasured
from store.settings import Settings
from store.tables import Optimization, Revision
from tests.workers.conftest import prepare, write_texts

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
