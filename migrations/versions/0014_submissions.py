"""Launches on a scheduler: a row for each time one is handed over. A new table, older versions leave it alone."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0014"
down_revision: str | Sequence[str] | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "submissions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("launcher", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("external_id", sa.String(length=255), nullable=True),
        sa.Column("state", sa.String(length=255), nullable=False),
        sa.Column("said", sa.Text(), nullable=True),
        sa.Column("reported", _JSON, nullable=True),
        sa.Column("exit_status", sa.Integer(), nullable=True),
        sa.Column("token", sa.String(length=255), nullable=True),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_submissions_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_submissions_job_id_number")),
        sa.UniqueConstraint("name", name=op.f("uq_submissions_name")),
    )
    with op.batch_alter_table("submissions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_submissions_state_due_at"), ["state", "due_at"], unique=False)


def downgrade() -> None:
    # An older version has no kind of job for them: its workers would take them for their own.
    op.execute(
        "UPDATE jobs SET state = 'cancelled' WHERE kind = 'scheduled_run'"
        " AND state IN ('queued', 'claimed', 'running')"
    )
    op.drop_table("submissions")
