"""A disk that is full or read-only is said, and is nobody's fault; what is made is for its owner alone."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from service.cli.main import main
from store.problems import unavailable
from store.schema import upgrade
from store.settings import Settings
from tests.faults.small_disk import NoSmallDisk, fill, small_disk
from tests.servers import skip_loudly
from tests.service.conftest import TOKEN


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with small_disk(tmp_path / "disk", 8 * 2**20) as disk:
            yield disk
    except NoSmallDisk as error:
        skip_loudly(f"{error}: what is answered when a disk is full or read-only")


@pytest.fixture
def settings(disk: Path) -> Settings:
    (disk / "data" / "corpora").mkdir(parents=True)
    return Settings(data_directory=disk / "data", token=TOKEN)


def test_a_full_disk_is_a_503_to_come_again_and_afterwards_all_is_well(
    client: TestClient, disk: Path, domain_set: dict[str, Any]
) -> None:
    filler = fill(disk)
    refused = client.post("/v1/domain-sets", json=domain_set)
    assert refused.status_code == 503
    assert refused.json()["code"] in (
        "storage_full",
        "storage_failed",
    )  # for the file, or for what SQLite maps
    assert int(refused.headers["Retry-After"]) > 0
    filler.unlink()
    assert client.get("/v1/domain-sets").json()["items"] == []
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201


def test_a_full_disk_of_postgresql_is_one_too_and_a_fault_of_ours_is_none() -> None:
    full = unavailable(OperationalError("INSERT", {}, psycopg.errors.DiskFull("no space left")))
    assert full is not None
    assert (full.code, full.status) == ("storage_full", 503)
    away = unavailable(OperationalError("SELECT", {}, psycopg.OperationalError("connection refused")))
    assert away is not None
    assert away.code == "database_unavailable"
    assert unavailable(OSError(2, "No such file or directory")) is None
    assert unavailable(ZeroDivisionError()) is None


def test_what_becomes_read_only_while_it_is_served_is_said(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path / 'mixwright.db'}")
    engine = create_engine(f"sqlite:///file:{tmp_path / 'mixwright.db'}?mode=ro&uri=true")
    with engine.connect() as connection, pytest.raises(OperationalError) as refused:
        connection.execute(text("DELETE FROM jobs"))
    engine.dispose()
    for error in (refused.value, OSError(errno.EROFS, "Read-only file system")):
        found = unavailable(error)
        assert found is not None
        assert (found.code, found.status) == ("storage_read_only", 503)
        assert found.headers is not None
        assert int(found.headers["Retry-After"]) > 0


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["migrate"], ["token"]])
def test_a_read_only_data_directory_is_a_line_and_no_traceback(
    disk: Path, settings: Settings, command: list[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    outcome = CliRunner().invoke(main, [*command, "--data", str(settings.data_directory)])
    assert outcome.exit_code == 1
    assert outcome.output.count("\n") == 1
    assert "ead-only" in outcome.output


def test_the_database_and_its_directory_are_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    database = directory / "mixwright.db"
    upgrade(f"sqlite:///{database}")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    database.chmod(0o644)  # as an older version left it
    upgrade(f"sqlite:///{database}")
    assert database.stat().st_mode & 0o777 == 0o600
