"""The schema goes up, down and up again, and says the same as the models, on both databases."""

import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text

from mixing.change.revision import Changes
from store.engine import Database
from store.schema import (
    DanglingReference,
    UnknownRevision,
    alembic_config,
    current,
    downgrade,
    head,
    upgrade,
)
from store.tables import Base, DomainRow, DomainSet, Revision, Run

TABLES = set(Base.metadata.tables)


def tables(url: str) -> set[str]:
    database = Database(url)
    names = set(inspect(database.engine).get_table_names())
    database.close()
    return names - {"alembic_version"}


def test_up_down_and_up_again(empty_database: str) -> None:
    upgrade(empty_database)
    assert (current(empty_database), tables(empty_database)) == (head(), TABLES)
    downgrade(empty_database, "base")
    assert (current(empty_database), tables(empty_database)) == (None, set())
    upgrade(empty_database)
    assert (current(empty_database), tables(empty_database)) == (head(), TABLES)


def test_every_step_can_be_taken_back(empty_database: str) -> None:
    steps = [script.revision for script in ScriptDirectory.from_config(alembic_config(None)).walk_revisions()]
    for revision in reversed(steps):
        upgrade(empty_database, revision)
        before = tables(empty_database)
        downgrade(empty_database, "-1")
        upgrade(empty_database, revision)
        assert current(empty_database) == revision
        assert tables(empty_database) == before


def test_the_migrated_schema_is_the_one_of_the_models(empty_database: str) -> None:
    upgrade(empty_database)
    database = Database(empty_database)
    with database.engine.connect() as connection:
        options: dict[str, Any] = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_upgrading_again_keeps_the_rows_and_says_nothing(
    empty_database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    upgrade(empty_database)
    database = Database(empty_database)
    with database.write() as session:
        session.add(DomainSet(name="pool"))
    upgrade(empty_database)
    with database.read() as session:
        assert [row.name for row in session.query(DomainSet)] == ["pool"]
    database.close()
    assert capfd.readouterr() == ("", "")


def test_an_upgrade_that_fails_has_not_happened(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = command.upgrade

    def break_down(*arguments: Any) -> None:
        finish(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "upgrade", break_down)
    with pytest.raises(KeyboardInterrupt):
        upgrade(empty_database)
    assert (current(empty_database), tables(empty_database)) == (None, set())


def test_a_database_of_a_newer_version_is_refused_and_left_alone(empty_database: str) -> None:
    upgrade(empty_database)
    database = Database(empty_database)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'from-the-future'"))
    database.close()
    with pytest.raises(UnknownRevision, match="from-the-future"):
        upgrade(empty_database)
    assert tables(empty_database) == TABLES


def test_asking_for_the_revision_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "mixwright.db"
    assert current(f"sqlite:///{path}") is None
    assert not path.exists()


def test_a_step_that_would_leave_dangling_rows_is_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'mixwright.db'}"
    finish = command.upgrade
    orphan = text(
        "INSERT INTO swarms (id, optimization_id, revision_id, created_at) VALUES ('s', 'none', 'none', 0)"
    )

    def orphan_a_row(config: Any, revision: str) -> None:
        finish(config, revision)
        config.attributes["connection"].execute(orphan)

    monkeypatch.setattr(command, "upgrade", orphan_a_row)
    with pytest.raises(DanglingReference, match="swarms"):
        upgrade(url)
    assert tables(url) == set()


def test_what_0001_stored_is_read_after_0002_and_comes_back(empty_database: str) -> None:
    """Shard names are no content, and changes get a predecessor for every domain; going down restores both."""
    upgrade(empty_database, "0001")
    database = Database(empty_database)
    changes = {"added": ["papers"], "removed": ["web"], "revised": ["code"]}
    revision = "'rev', 'ds', 2, NULL, '{}', 0.1, 65536, 'h', :changes, 0"
    with database.write() as session:
        session.execute(text("INSERT INTO domain_sets (id, name, created_at) VALUES ('ds', 'pool', 0)"))
        session.execute(
            text(
                "INSERT INTO revisions (id, domain_set_id, number, parent_id, tokenizer, held_out_fraction,"
                f" evaluation_bytes, content_hash, changes, created_at) VALUES ({revision})"
            ),
            {"changes": json.dumps(changes)},
        )
        for name in ("books", "code", "papers"):
            session.execute(
                text(
                    "INSERT INTO domains (id, revision_id, name, files, content_hash, shard_directory)"
                    " VALUES (:name, 'rev', :name, '[]', 'abc', '/artifacts/shards/abc')"
                ),
                {"name": name},
            )
    upgrade(empty_database)
    with database.read() as session:
        found = Changes.from_dict(session.get_one(Revision, "rev").changes)
        assert found.kept == {"books": "books"}
        assert found.revised == {"code": "code"}
        assert (found.added, found.removed) == (("papers",), ("web",))
        assert {row.content_hash for row in session.query(DomainRow)} == {None}
    downgrade(empty_database, "0001")
    with database.read() as session:
        stored = session.execute(text("SELECT changes FROM revisions")).scalar_one()
        assert (json.loads(stored) if isinstance(stored, str) else stored) == changes
        assert set(session.execute(text("SELECT content_hash FROM domains")).scalars()) == {"abc"}
    database.close()


def test_a_run_that_left_its_tokens_to_its_order_says_them_itself(empty_database: str) -> None:
    """The swarm's proxy or the launch says them; a number of the run's own stays, whatever version reads it."""
    upgrade(empty_database, "0007")
    database = Database(empty_database)
    swarm, launch = {"proxy": {"tokens": 5_000_000_000}}, {"tokens": 7_000_000_000}
    values = {"swarm": json.dumps(swarm), "launch": json.dumps(launch)}
    run = "INSERT INTO runs (id, position, round, seed, weights, created_at, tokens, swarm_id, launch_id) VALUES"
    rows = [
        "INSERT INTO domain_sets (id, name, created_at) VALUES ('ds', 'pool', 0)",
        "INSERT INTO revisions (id, domain_set_id, number, tokenizer, held_out_fraction, evaluation_bytes,"
        " content_hash, changes, created_at) VALUES ('rev', 'ds', 1, '{}', 0.1, 65536, 'h', '{}', 0)",
        "INSERT INTO optimizations (id, revision_id, method, seed, settings, state, created_at, updated_at)"
        " VALUES ('opt', 'rev', 'olmix', 0, :swarm, 'running', 0, 0)",
        "INSERT INTO swarms (id, optimization_id, revision_id, created_at) VALUES ('s', 'opt', 'rev', 0)",
        "INSERT INTO mixtures (id, revision_id, kind, weights, created_at) VALUES ('m', 'rev', 'custom', '{}', 0)",
        "INSERT INTO launches (id, mixture_id, settings, created_at) VALUES ('l', 'm', :launch, 0)",
        f"{run} ('whole', 0, 0, 0, '{{}}', 0, NULL, 's', NULL)",
        f"{run} ('part', 1, 0, 0, '{{}}', 0, 12, 's', NULL)",
        f"{run} ('full', 0, 0, 0, '{{}}', 0, NULL, NULL, 'l')",
    ]
    expected = {"whole": 5_000_000_000, "part": 12, "full": 7_000_000_000}
    with database.write() as session:
        for row in rows:
            session.execute(text(row), {name: value for name, value in values.items() if f":{name}" in row})
    with database.read() as session:  # as written meanwhile by a process of an older version
        assert dict(session.execute(select(Run.id, Run.requested_tokens)).all()) == expected
    upgrade(empty_database)
    with database.read() as session:
        assert dict(session.execute(select(Run.id, Run.tokens)).all()) == expected
        assert {run.id: run.requested_tokens for run in session.scalars(select(Run))} == expected
    database.close()
