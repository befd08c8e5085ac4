"""Swarms that were brought: runs with names of their own, whose seed nobody may have said, and no optimization.

Columns only become looser. An older version that reads a swarm without an optimization does not know what to make of
it; there are none before this one has run.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0013"
down_revision: str | Sequence[str] | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("swarms", schema=None) as batch_op:
        batch_op.alter_column("optimization_id", existing_type=sa.String(length=40), nullable=True)
        batch_op.add_column(sa.Column("brought", _JSON, nullable=True))
        batch_op.add_column(
            sa.Column("user_name", sa.String(length=255), nullable=False, server_default=sa.text("''"))
        )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.alter_column("seed", existing_type=sa.BigInteger(), nullable=True)
        batch_op.add_column(sa.Column("name", sa.String(length=255), nullable=True))
        batch_op.create_unique_constraint(op.f("uq_runs_swarm_id_name"), ["swarm_id", "name"])


def downgrade() -> None:
    # What was brought is told by what goes with it.
    op.execute(
        "DELETE FROM metrics WHERE run_id IN (SELECT runs.id FROM runs JOIN swarms ON swarms.id = runs.swarm_id"
        " WHERE swarms.optimization_id IS NULL)"
    )
    op.execute("DELETE FROM jobs WHERE owner IN (SELECT id FROM swarms WHERE optimization_id IS NULL)")
    op.execute("DELETE FROM runs WHERE swarm_id IN (SELECT id FROM swarms WHERE optimization_id IS NULL)")
    op.execute("DELETE FROM swarms WHERE optimization_id IS NULL")
    op.execute("UPDATE jobs SET state = 'cancelled' WHERE state = 'waiting'")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_runs_swarm_id_name"), type_="unique")
        batch_op.drop_column("name")
        batch_op.alter_column("seed", existing_type=sa.BigInteger(), nullable=False)
    with op.batch_alter_table("swarms", schema=None) as batch_op:
        batch_op.drop_column("user_name")
        batch_op.drop_column("brought")
        batch_op.alter_column("optimization_id", existing_type=sa.String(length=40), nullable=False)
