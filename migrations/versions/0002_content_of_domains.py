"""content of domains.

Until now ``domains.content_hash`` held the name of the token shard, which is also the last part of
``shard_directory``; from here on it says which text a domain is, which only counting can tell. And
``revisions.changes`` gets the form of ``mixing.change.revision.Changes``.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_domains = sa.table(
    "domains",
    sa.column("id"),
    sa.column("revision_id"),
    sa.column("name"),
    sa.column("content_hash"),
    sa.column("shard_directory"),
)
_revisions = sa.table("revisions", sa.column("id"), sa.column("changes", _JSON))


def upgrade() -> None:
    with op.batch_alter_table("domains", schema=None) as batch_op:
        batch_op.add_column(sa.Column("files_hash", sa.String(length=255), nullable=True))
        batch_op.create_index(batch_op.f("ix_domains_files_hash"), ["files_hash"], unique=False)
    with op.batch_alter_table("revisions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("said", _JSON, nullable=True))
    op.execute(_domains.update().values(content_hash=None))
    _rewrite_changes(_to_maps)


def downgrade() -> None:
    _rewrite_changes(_to_lists)
    connection = op.get_bind()
    counted = sa.select(_domains.c.id, _domains.c.shard_directory).where(
        _domains.c.shard_directory.is_not(None)
    )
    for identity, directory in connection.execute(counted).all():
        shard = PurePosixPath(directory).name
        connection.execute(_domains.update().where(_domains.c.id == identity).values(content_hash=shard))
    with op.batch_alter_table("revisions", schema=None) as batch_op:
        batch_op.drop_column("said")
    with op.batch_alter_table("domains", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_domains_files_hash"))
        batch_op.drop_column("files_hash")


def _rewrite_changes(rewritten: Callable[[dict[str, Any], list[str]], dict[str, Any]]) -> None:
    connection = op.get_bind()
    for identity, changes in connection.execute(sa.select(_revisions.c.id, _revisions.c.changes)).all():
        document = json.loads(changes) if isinstance(changes, str) else changes
        mine = sa.select(_domains.c.name).where(_domains.c.revision_id == identity)
        names = sorted(connection.scalars(mine))
        new = rewritten(document, names)
        connection.execute(_revisions.update().where(_revisions.c.id == identity).values(changes=new))


def _to_maps(changes: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Lists of names -> what every domain comes from; there were no splits, merges and renames."""
    added, revised = changes.get("added", []), changes.get("revised", [])
    return {
        "kept": {name: name for name in names if name not in {*added, *revised}},
        "revised": {name: name for name in revised},
        "added": added,
        "removed": changes.get("removed", []),
        "split": {},
        "merged": {},
    }


def _to_lists(changes: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What the older form has no word for was, by name, removed and added."""
    same = {**changes.get("kept", {}), **changes.get("revised", {})}
    renamed = {new: old for new, old in same.items() if new != old}
    parts = [part for parts in changes.get("split", {}).values() for part in parts]
    members = [old for olds in changes.get("merged", {}).values() for old in olds]
    gone = {*changes.get("removed", []), *renamed.values(), *changes.get("split", {}), *members}
    come = {*changes.get("added", []), *renamed, *parts, *changes.get("merged", {})}
    both = gone & come
    revised = {new for new, old in changes.get("revised", {}).items() if new == old}
    return {
        "added": sorted(come - both),
        "removed": sorted(gone - both),
        "revised": sorted(revised | both),
    }
