"""A release works beside the one before it: migrations expand, and a running process works over what was added."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

import migrations
from service.http.app import create_app
from store.engine import Database
from store.schema import OldSchema, UnknownRevision, require_schema, upgrade
from store.settings import Settings

VERSIONS = sorted((Path(migrations.__file__).parent / "versions").glob("[0-9]*.py"))
SINCE = "0003"
"""The first migration the rule was made for."""
NARROWING = {"drop_column", "drop_table", "drop_constraint", "rename_table", "alter_column"}
TOKEN = "a-token-for-tests-only"


def calls_of_upgrade(source: str) -> Iterator[ast.Call]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == "upgrade":
            yield from (one for one in ast.walk(node) if isinstance(one, ast.Call))


def narrows(source: str) -> list[str]:
    """What in ``upgrade`` an older process could stumble over."""
    found = []
    for call in calls_of_upgrade(source):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        altered = {word.arg: ast.unparse(word.value) for word in call.keywords}
        loosens = set(altered) == {"existing_type", "nullable"} and altered["nullable"] == "True"
        if name in NARROWING and not (name == "alter_column" and (loosens or widens(altered))):
            found.append(name)
        if name == "add_column":
            column = next(one for one in ast.walk(call) if isinstance(one, ast.Call) and one is not call)
            said = {word.arg: ast.unparse(word.value) for word in column.keywords}
            if said.get("nullable") == "False" and "server_default" not in said:
                found.append("add_column without a default")
    return found


def widens(altered: dict[str, str]) -> bool:
    """Whether all that is altered of a column is that longer text fits."""
    if set(altered) != {"existing_type", "type_", "existing_nullable"}:
        return False
    sizes = [
        re.fullmatch(r"sa\.String\(length=(\d+)\)", altered[name]) for name in ("existing_type", "type_")
    ]
    return all(sizes) and int(sizes[0][1]) < int(sizes[1][1])  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize(
    "path", [path for path in VERSIONS if path.name[:4] >= SINCE], ids=lambda path: path.stem
)
def test_a_migration_expands_or_says_why_it_may_contract(path: Path) -> None:
    source = path.read_text()
    if "\nCONTRACTS = " not in source:
        assert narrows(source) == []


def test_the_rule_sees_what_it_is_about() -> None:
    body = "def upgrade():\n    {}\n"
    column = 'sa.Column("c", sa.Integer(), nullable={})'
    assert narrows(body.format('op.drop_column("runs", "seed")')) == ["drop_column"]
    assert narrows(body.format(f'op.add_column("runs", {column.format(True)})')) == []
    altered = 'op.alter_column("runs", "seed", existing_type=sa.Integer(), nullable={})'
    assert narrows(body.format(altered.format(True))) == []
    assert narrows(body.format(altered.format(False))) == ["alter_column"]
    longer = (
        'op.alter_column("jobs", "c", existing_type=sa.String(length={}), type_=sa.String(length={}), {})'
    )
    assert narrows(body.format(longer.format(40, 80, "existing_nullable=False"))) == []
    assert narrows(body.format(longer.format(80, 40, "existing_nullable=False"))) == ["alter_column"]
    assert narrows(body.format(longer.format(40, 80, "nullable=False"))) == ["alter_column"]
    assert narrows(body.format(f'op.add_column("runs", {column.format(False)})')) != []


def expand(url: str) -> None:
    """What a next release may do: columns, a table that names an old one, an index, a revision of its own."""
    database = Database(url)
    with database.write() as session:
        for statement in (
            "ALTER TABLE domain_sets ADD COLUMN note VARCHAR(255)",
            "ALTER TABLE jobs ADD COLUMN weight INTEGER NOT NULL DEFAULT 1",
            "CREATE TABLE later (id INTEGER PRIMARY KEY, job_id VARCHAR(40) REFERENCES jobs (id))",
            "CREATE INDEX ix_later ON runs (seed)",
            "UPDATE alembic_version SET version_num = '9999'",
        ):
            session.execute(text(statement))
    database.close()


def test_a_running_process_works_over_an_expanded_schema(empty_database: str, tmp_path: Path) -> None:
    upgrade(empty_database)
    corpora = tmp_path / "files" / "corpora"
    corpora.mkdir(parents=True)
    lines = [json.dumps({"text": f"document {index}: " + f"word{index} " * 40}) for index in range(400)]
    for name in ("books", "news"):
        (corpora / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    settings = Settings(data_directory=tmp_path / "files", database_url=empty_database, token=TOKEN)
    domains = [
        {"name": name, "files": [str(corpora / f"{name}.jsonl")], "tokens": 1000}
        for name in ("books", "news")
    ]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers=headers) as client:
        expand(empty_database)
        body: dict[str, Any] = {"name": "pool", "domains": domains}
        assert client.post("/v1/domain-sets", json=body).status_code == 201
        assert client.get("/v1/domain-sets/pool").json()["number"] == 1
        mixture = {"domain_set": "pool", "name": "all", "weights": {"books": 0.5, "news": 0.5}}
        assert client.post("/v1/mixtures", json=mixture).status_code == 201
        assert client.get("/readyz").status_code == 200
        assert client.get("/metrics").status_code == 200


def test_a_process_that_starts_wants_its_own_schema(empty_database: str) -> None:
    with pytest.raises(OldSchema, match=r"at schema none .* run 'mixwright migrate' first"):
        require_schema(empty_database)
    upgrade(empty_database, "0001")
    with pytest.raises(OldSchema, match="at schema 0001"):
        require_schema(empty_database)
    upgrade(empty_database)
    require_schema(empty_database)
    expand(empty_database)
    with pytest.raises(UnknownRevision, match=r"at schema 9999, .* start the version that migrated it"):
        require_schema(empty_database)
