"""Which mixture of a domain set is in use, since when, by whose word and why; what was in use before is kept."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | Sequence[str] | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "adoptions",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("domain_set_id", sa.String(40), nullable=False),
        sa.Column("mixture_id", sa.String(40), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("user_name", sa.String(255), nullable=False, server_default=sa.text("''")),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["domain_set_id"], ["domain_sets.id"], name=op.f("fk_adoptions_domain_set_id_domain_sets")
        ),
        sa.ForeignKeyConstraint(
            ["mixture_id"], ["mixtures.id"], name=op.f("fk_adoptions_mixture_id_mixtures")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adoptions")),
    )
    op.create_index(op.f("ix_adoptions_domain_set_id"), "adoptions", ["domain_set_id"])


def downgrade() -> None:
    op.drop_table("adoptions")
