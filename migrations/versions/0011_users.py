"""Who asked for a domain set, an optimization and each job, for quotas and turns of users, and what it was to take.

An older version writes none of it: what it makes counts for nobody.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | Sequence[str] | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("domain_sets", "optimizations", "jobs")
INDEXES = (["state", "user_name", "priority", "position"], ["user_name", "started_at"])


def upgrade() -> None:
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(
                sa.Column("user_name", sa.String(length=255), nullable=False, server_default=sa.text("''"))
            )
    with op.batch_alter_table("optimizations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("device_hours", sa.Double(), nullable=False, server_default="0"))
    for columns in INDEXES:
        op.create_index(op.f(f"ix_jobs_{'_'.join(columns)}"), "jobs", columns)


def downgrade() -> None:
    for columns in INDEXES:
        op.drop_index(op.f(f"ix_jobs_{'_'.join(columns)}"), "jobs")
    with op.batch_alter_table("optimizations", schema=None) as batch_op:
        batch_op.drop_column("device_hours")
    for table in TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("user_name")
