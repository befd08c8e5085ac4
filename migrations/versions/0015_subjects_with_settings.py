"""A job's subject has room for what is made of a row: token files by the length of their rows, and how many.

The column only becomes longer. Going down drops the jobs whose subjects an older version could not read; their files
stay where they are, and are found again when they are asked for.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0015"
down_revision: str | Sequence[str] | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column(
            "subject", existing_type=sa.String(length=40), type_=sa.String(length=80), existing_nullable=False
        )


def downgrade() -> None:
    op.execute("DELETE FROM attempts WHERE job_id IN (SELECT id FROM jobs WHERE length(subject) > 40)")
    op.execute("DELETE FROM jobs WHERE length(subject) > 40")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.alter_column(
            "subject", existing_type=sa.String(length=80), type_=sa.String(length=40), existing_nullable=False
        )
