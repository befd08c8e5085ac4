"""What is stored of an optimization, as it is stored now and as it was before its document had a version."""

from typing import Any

import pytest

from mixing.domains import Domains
from mixing.errors import InvalidSetting
from mixing.methods import METHODS
from mixing.reuse.reuse import NOTHING_REUSED
from mixing.terms import TaskGuard
from store.documents import (
    VERSION,
    LaunchDocument,
    OptimizationDocument,
    ShareDocument,
    SwarmDocument,
    TrainingDocument,
)
from store.engine import Database
from store.launchers.base import BUILT_IN
from store.tables import Launch, MixtureRow, Optimization
from tests.workers.conftest import new_revision

TOKENS = {"books": 400_000, "code": 600_000}
FIRST: dict[str, Any] = {
    "runs": 9,
    "rounds": [9],
    "minimum_runs": 4,
    "recipe": {
        "sampler": "two-level-dirichlet",
        "regression": "log-linear",
        "granularity": "per task",
        "solver": "exact",
    },
    "temperature": None,
    "target_tokens": 1_000_000,
    "repetition_cap": 4.0,
    "kl_weight": 0.05,
    "repetition_price": 0.0,
    "strengths": [0.1, 5.0],
    "proxy": {"size": "nano-0.1M", "tokens": 65_536, "sequence_length": 128, "batch_rows": 8},
    "tasks": [{"name": "sums", "path": "/data/sums.jsonl", "weight": 1.0, "family": None}],
    "aggregate": "mean",
    "shares": [{"name": "some code", "domains": ["code"], "minimum": 0.2, "maximum": None}],
    "guard_rails": [{"task": "sums", "at_most": 2.0, "at_least": None, "worse_than_natural": None}],
    "reuse": None,
}
"""A row's settings as version 1 wrote them; method and seed are columns."""


def stored(database: Database, settings: dict[str, object]) -> OptimizationDocument:
    with database.write() as session:
        row = Optimization(revision_id=new_revision(session).id, method="olmix", seed=7, settings=settings)
        session.add(row)
        session.flush()
        identity = row.id
    with database.read() as session:
        return OptimizationDocument.of(session.get_one(Optimization, identity))


def test_a_row_of_the_first_version_is_the_question_it_was(database: Database) -> None:
    document = stored(database, FIRST)
    assert document.version == 1
    assert (document.method, document.seed, document.runs) == ("olmix", 7, 9)
    assert document.shares == (ShareDocument(name="some code", domains=("code",), minimum=0.2),)
    question = document.question(Domains.of(TOKENS), NOTHING_REUSED)
    assert question.parts == METHODS["olmix"].recipe
    assert question.guard_rails == (TaskGuard("sums", at_most=2.0),)
    assert (question.rounds, question.strengths) == ((9,), (0.1, 5.0))
    assert (question.kl_weight, question.kl_unit) == (0.05, "metric")
    assert question.proxy_tokens == 65_536
    assert question.limits.caps == pytest.approx([1.6, 2.4])
    assert [(share.coefficients, share.lower) for share in question.constraints] == [({"code": 1.0}, 0.2)]


@pytest.mark.parametrize("missing", sorted(set(FIRST) - {"target_tokens"}))
def test_what_an_older_row_lacks_has_its_default(missing: str) -> None:
    bare = {name: value for name, value in FIRST.items() if name != missing}
    document = OptimizationDocument.from_dict({**bare, "method": "olmix", "seed": 7})
    assert getattr(document, missing) == getattr(OptimizationDocument(target_tokens=1.0), missing)


def test_what_is_stored_comes_back_as_it_went(database: Database) -> None:
    first = OptimizationDocument.from_dict({**FIRST, "version": VERSION, "method": "olmix", "seed": 7})
    assert stored(database, first.to_dict()) == first
    # What version 1 said is still said in the same words.
    said = first.to_dict()
    assert {name: said[name] for name in FIRST if name not in ("proxy", "tasks")} == {
        name: value for name, value in FIRST.items() if name not in ("proxy", "tasks")
    }
    assert FIRST["proxy"].items() <= said["proxy"].items()
    assert FIRST["tasks"][0].items() <= said["tasks"][0].items()


def test_what_names_a_part_that_is_gone_can_be_looked_at_and_not_asked(database: Database) -> None:
    gone = {**FIRST, "recipe": {**FIRST["recipe"], "regression": "phlogiston"}}
    with database.write() as session:
        row = Optimization(revision_id=new_revision(session).id, method="olmix", seed=7, settings=gone)
        session.add(row)
        session.flush()
        swarm = SwarmDocument.of(row)
        assert (swarm.runs, swarm.rounds, swarm.tasks[0].name) == (9, (9,), "sums")
        assert swarm.proxy == TrainingDocument(size="nano-0.1M", tokens=65_536)
        with pytest.raises(InvalidSetting, match="phlogiston"):
            OptimizationDocument.of(row)


def test_a_launch_of_before_there_were_documents_means_what_it_did(database: Database) -> None:
    with database.write() as session:
        mixture = MixtureRow(revision_id=new_revision(session).id, kind="custom", weights={"books": 1.0})
        session.add(mixture)
        session.flush()
        row = Launch(mixture_id=mixture.id, settings={"size": "micro-1M", "tokens": 1000, "tasks": []})
        session.add(row)
        session.flush()
        assert LaunchDocument.of(row) == LaunchDocument(size="micro-1M", tokens=1000, launcher=BUILT_IN)
