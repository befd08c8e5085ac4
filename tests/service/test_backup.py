"""A backup taken while jobs write, restored elsewhere and served, has the same data and its files."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from service.cli.backup import BackupError, make_backup, restore_backup
from service.cli.main import main
from service.http.app import create_app
from service.processes.address import ServeLock
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job
from tests.service.conftest import TOKEN

ADDRESSES = ("/v1/domain-sets", "/v1/domain-sets/pool", "/v1/optimizations", "/v1/mixtures", "/v1/swarms")


def answers(client: TestClient) -> dict[str, Any]:
    return {address: client.get(address).json() for address in ADDRESSES}


def moved(document: Any, old: Path, new: Path) -> Any:
    """The same with the paths of files in another data directory."""
    if isinstance(document, dict):
        return {name: moved(one, old, new) for name, one in document.items()}
    if isinstance(document, list):
        return [moved(one, old, new) for one in document]
    return document.replace(str(old), str(new)) if isinstance(document, str) else document


def test_a_backup_taken_while_jobs_write_is_restored_and_served(
    client: TestClient, settings: Settings, optimization: dict[str, Any], tmp_path: Path
) -> None:
    assert client.post("/v1/optimizations", json=optimization).status_code == 202
    data = settings.data_directory
    shard = data / "artifacts" / "shards" / "abc"
    shard.mkdir(parents=True)
    (shard / "tokens.bin").write_bytes(bytes(range(256)) * 40)
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        session.query(DomainRow).filter_by(name="books").one().shard_directory = str(shard)
        session.add(jobs.new_job(jobs.PROXY_RUN, "counter", "nobody"))
    before = answers(client)
    done, written = threading.Event(), []

    def write() -> None:
        while not done.is_set() or not written:
            with database.write() as session:
                job = session.query(Job).filter_by(subject="counter").one()
                job.progress = {"done": len(written), "padding": "x" * 10_000}
                job.attempt = len(written)
            written.append(1)

    writer = threading.Thread(target=write)
    writer.start()
    made = make_backup(settings, tmp_path / "backup.tar")
    done.set()
    writer.join()
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600

    there = Settings(data_directory=tmp_path / "elsewhere", token=TOKEN)
    assert restore_backup(there, tmp_path / "backup.tar").files == made.files
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(there), base_url="http://127.0.0.1", headers=headers) as restored:
        assert restored.get("/readyz").status_code == 200
        assert answers(restored) == moved(before, data, there.data_directory)
    copy = Database(there.resolved_database_url)
    with copy.read() as session:
        job = session.query(Job).filter_by(subject="counter").one()
        assert (job.progress or {"done": 0})["done"] == job.attempt, "one state, not parts of two"
        moved_shard = session.query(DomainRow).filter_by(name="books").one().shard_directory
    assert moved_shard == str(there.data_directory / "artifacts" / "shards" / "abc")
    assert (Path(moved_shard) / "tokens.bin").read_bytes() == (shard / "tokens.bin").read_bytes()
    copy.close()
    database.close()


@pytest.fixture
def saved(client: TestClient, settings: Settings, tmp_path: Path) -> Path:
    make_backup(settings, tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


def test_nothing_is_written_over(saved: Path, settings: Settings) -> None:
    with pytest.raises(BackupError, match="exists already"):
        make_backup(settings, saved)
    with pytest.raises(BackupError, match="is not empty; restore into a new directory"):
        restore_backup(settings, saved)
    with ServeLock(settings.data_directory), pytest.raises(BackupError, match="is served now"):
        restore_backup(settings, saved)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    other.write_text("not an archive")
    with pytest.raises(BackupError, match="cannot be read as a backup"):
        restore_backup(Settings(data_directory=tmp_path / "new"), other)


def test_postgresql_is_sent_to_its_own_tool(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path, database_url="postgresql+psycopg://u@127.0.0.1/x")
    with pytest.raises(BackupError, match="pg_dump"):
        make_backup(settings, tmp_path / "backup.tar")


def test_the_commands(client: TestClient, settings: Settings, tmp_path: Path) -> None:
    run: Callable[..., Any] = CliRunner().invoke
    data, file = str(settings.data_directory), str(tmp_path / "b.tar")
    made = run(main, ["backup", "--data", data, "--to", file])
    assert (made.exit_code, made.output.startswith(f"{file}: schema ")) == (0, True), made.output
    again = run(main, ["backup", "--data", data, "--to", file])
    assert (again.exit_code, "exists already" in again.output) == (1, True)
    back = run(main, ["restore", "--data", str(tmp_path / "new"), "--from", file])
    assert back.exit_code == 0, back.output
