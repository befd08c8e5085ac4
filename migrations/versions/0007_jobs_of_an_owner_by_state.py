"""jobs of an owner by kind and state: they are counted from the index alone, without looking at a row.

Everything that asked the index of owners is answered by this one, which begins with them.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | Sequence[str] | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_jobs_owner_kind_state"), ["owner", "kind", "state"], unique=False
        )
        batch_op.drop_index(batch_op.f("ix_jobs_owner"))


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_jobs_owner"), ["owner"], unique=False)
        batch_op.drop_index(batch_op.f("ix_jobs_owner_kind_state"))
