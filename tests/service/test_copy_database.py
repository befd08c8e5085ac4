"""From SQLite to PostgreSQL and back with one command: every row, nothing half, nothing over what is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.api_store import Sizes, fill
from service.cli.main import main
from store import jobs
from store.engine import Database
from store.schema import CopyRefused, OldSchema, checksum_of, copy_database, current, downgrade, head, upgrade
from store.tables import Base, DomainSet, Job, Revision, Run
from tests.servers import scratch_database
from workers.claims.claim import claim, heartbeat

SIZES = Sizes(runs=60, optimizations=4, domain_sets=2)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """A store with a run under way and a revision whose parent comes after it in no order."""
    url = f"sqlite:///{tmp_path / 'mixwright.db'}"
    upgrade(url)
    database = Database(url)
    fill(database, SIZES)
    with database.write() as session:
        first = session.query(Revision).order_by(Revision.id).first()
        assert first is not None
        kept = {"domain_set_id": first.domain_set_id, "tokenizer": first.tokenizer, "changes": first.changes}
        session.add(
            Revision(
                number=2, parent_id=first.id, held_out_fraction=0.1, content_hash="h", said={"é": "x"}, **kept
            )
        )
    held = claim(database, "w", 60)
    assert held is not None
    heartbeat(database, {held: {"done": 1, "total": 2, "unit": "tokens"}})
    database.close()
    return url


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    with scratch_database(postgres_server) as url:
        yield url


def contents(url: str) -> dict[str, tuple[int, str]]:
    database = Database(url)
    with database.write() as session:
        found = {
            table.name: checksum_of(table, session.connection()) for table in Base.metadata.sorted_tables
        }
    database.close()
    return found


def test_every_row_arrives_and_comes_back(sqlite: str, postgres: str, tmp_path: Path) -> None:
    before = contents(sqlite)
    copied = copy_database(sqlite, postgres)
    assert current(postgres) == head()
    assert {table.name: (table.rows, table.checksum) for table in copied} == before
    assert contents(sqlite) == before, "the source was only read"
    after = contents(postgres)
    assert {name for name in before if before[name] != after[name]} == {"jobs"}, "but for leases"
    back = f"sqlite:///{tmp_path / 'back.db'}"
    copy_database(postgres, back)
    assert contents(back) == contents(postgres)


def test_a_job_that_was_held_waits_again_with_its_attempt_and_can_be_claimed(
    sqlite: str, postgres: str
) -> None:
    copy_database(sqlite, postgres)
    database = Database(postgres)
    with database.read() as session:
        assert session.query(Job).filter(Job.state.in_(jobs.HELD)).count() == 0
        queued = session.query(Job).filter_by(state=jobs.QUEUED).all()
        assert {(job.attempt, job.lease_token, job.worker) for job in queued} == {(0, None, None)}
        runs = session.query(Run).count()
    assert claim(database, "w", 60) is not None
    with database.write() as session:
        session.add(DomainSet(name="made-after-the-copy"))
    assert runs >= SIZES.runs
    database.close()


def test_a_target_with_rows_is_refused_and_left_alone(sqlite: str, postgres: str) -> None:
    upgrade(postgres)
    database = Database(postgres)
    with database.write() as session:
        session.add(DomainSet(name="mine"))
    with pytest.raises(CopyRefused, match="not empty: its table 'domain_sets' has rows"):
        copy_database(sqlite, postgres)
    with database.read() as session:
        assert [row.name for row in session.query(DomainSet)] == ["mine"]
    database.close()


def test_an_older_source_is_refused(sqlite: str, postgres: str) -> None:
    downgrade(sqlite, "0001")
    with pytest.raises(OldSchema, match="run 'mixwright migrate' first"):
        copy_database(sqlite, postgres)
    with pytest.raises(CopyRefused, match="the same database"):
        copy_database(postgres, postgres)


def test_a_copy_that_fails_has_not_happened(
    sqlite: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("store.schema._give_back_leases", fail)
    with pytest.raises(KeyboardInterrupt):
        copy_database(sqlite, postgres)
    assert {rows for rows, _ in contents(postgres).values()} == {0}


def test_the_command_says_what_it_compared(sqlite: str, postgres: str) -> None:
    outcome = CliRunner().invoke(main, ["copy-database", "--from", sqlite, "--to", postgres])
    assert outcome.exit_code == 0, outcome.output
    assert "rows the same" in outcome.output
    again = CliRunner().invoke(main, ["copy-database", "--from", sqlite, "--to", postgres])
    assert (again.exit_code, "not empty" in again.output) == (1, True)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    source, target = (f"sqlite:///{tmp_path / name}.db" for name in ("typo", "new"))
    outcome = CliRunner().invoke(main, ["copy-database", "--from", source, "--to", target])
    assert outcome.exit_code == 1
    assert outcome.output.strip() == f"Error: there is no file {tmp_path / 'typo.db'} to copy from"
    assert list(tmp_path.iterdir()) == []
