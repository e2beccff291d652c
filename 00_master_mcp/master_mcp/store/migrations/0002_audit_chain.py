"""The audit's chain: a MAC on every row, its newest link, signed checkpoints.

Rows written before stay without a MAC here, where no key is known; the hub chains them when it first
starts, and the first checkpoint says how many they were.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables of the chain, which has not begun."""
    op.add_column("audit", sa.Column("detail", sa.Text))
    op.add_column("audit", sa.Column("mac", sa.String))
    chain = op.create_table(
        "audit_chain",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("chain", sa.String, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.String, nullable=False),
        sa.Column("checkpoints", sa.BigInteger, nullable=False),
        sa.Column("checkpoint_seq", sa.BigInteger, nullable=False),
        sa.Column("checkpoint_at", sa.Float, nullable=False),
        sa.Column("anchored", sa.BigInteger, nullable=False),
        sa.Column("signature", sa.String, nullable=False),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False, index=True),
        sa.Column("line", sa.Text, nullable=False),
    )
    nothing = {"seq": 0, "mac": "", "checkpoints": 0, "checkpoint_seq": 0, "checkpoint_at": 0.0, "anchored": 0}
    op.bulk_insert(chain, [{"id": 1, "chain": "", "signature": "", **nothing}])
