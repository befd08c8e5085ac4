"""Every run says itself how many tokens it trains; one of before took a missing number from its order.

Processes of an older version go on writing none while this one is installed beside them, so the column stays
nullable and `store.tables.Run.requested_tokens` has what to read there.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0008"
down_revision: str | Sequence[str] | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_MEMBER = {
    "sqlite": "CAST(json_extract({0}.settings, '$.{1}') AS INTEGER)",
    "postgresql": "CAST({0}.settings #>> string_to_array('{1}', '.') AS BIGINT)",
}


def upgrade() -> None:
    member = _MEMBER[op.get_context().dialect.name]
    op.execute(
        f"UPDATE runs SET tokens = (SELECT {member.format('optimizations', 'proxy.tokens')} FROM optimizations"
        " JOIN swarms ON swarms.optimization_id = optimizations.id WHERE swarms.id = runs.swarm_id)"
        " WHERE tokens IS NULL AND swarm_id IS NOT NULL"
    )
    op.execute(
        f"UPDATE runs SET tokens = (SELECT {member.format('launches', 'tokens')} FROM launches"
        " WHERE launches.id = runs.launch_id) WHERE tokens IS NULL AND launch_id IS NOT NULL"
    )


def downgrade() -> None:
    pass  # an older version reads a run's own number where there is one
