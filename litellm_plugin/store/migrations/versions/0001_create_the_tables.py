"""Create the tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "adopted",
        sa.Column("own_id", sa.String(length=512), nullable=False),
        sa.Column("user_id", sa.String(length=512), nullable=False),
        sa.Column("entity_ref", sa.Text(), nullable=False),
        sa.Column("at", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("own_id", name="pk_adopted"),
    )
    op.create_table(
        "audit_chains",
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("started_at", sa.String(length=24), nullable=False),
        sa.Column("ended_at", sa.String(length=24), nullable=True),
        sa.Column("last_sequence", NUMBER, nullable=False),
        sa.Column("last_hash", sa.String(length=64), nullable=False),
        sa.Column("lost", NUMBER, nullable=False),
        sa.Column("first_sequence", NUMBER, nullable=False),
        sa.Column("first_previous", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("chain", name="pk_audit_chains"),
    )
    op.create_table(
        "audit_counts",
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("table_name", sa.String(length=64), nullable=False),
        sa.Column("denied", sa.Boolean(), nullable=False),
        sa.Column("events", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint(
            "changed_by", "day", "action", "table_name", "denied", name="pk_audit_counts"
        ),
    )
    op.create_table(
        "audit_events",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.Column("sequence", NUMBER, nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("at", sa.String(length=24), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("table_name", sa.String(length=64), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("denied", sa.Boolean(), nullable=False),
        sa.Column("before_value", sa.JSON(), nullable=True),
        sa.Column("updated_values", sa.JSON(), nullable=True),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
        sa.UniqueConstraint("chain", "sequence", name="uq_audit_events_chain_sequence"),
    )
    op.create_index("ix_audit_events_action_at_id", "audit_events", ["action", "at", "id"])
    for first in (["at"], ["changed_by", "at"], ["table_name", "at"]):
        columns = [*first, "id", "denied"]
        op.create_index(f"ix_audit_events_{'_'.join(columns)}", "audit_events", columns)
    op.create_table(
        "grants",
        sa.Column("user_id", sa.String(length=512), nullable=False),
        sa.Column("entity_ref", sa.Text(), nullable=True),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("granted", sa.JSON(), nullable=False),
        sa.Column("pending", sa.JSON(), nullable=True),
        sa.Column("checked_at", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_grants"),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("job", sa.String(length=32), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("started_at", sa.String(length=24), nullable=False),
        sa.Column("ended_at", sa.String(length=24), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs"),
    )
    op.create_index("ix_job_runs_job_id", "job_runs", ["job", "id"])
    op.create_table(
        "leavers",
        sa.Column("user_id", sa.String(length=512), nullable=False),
        sa.Column("plain_id", sa.String(length=512), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("entity_ref", sa.Text(), nullable=False),
        sa.Column("missing_since", sa.String(length=24), nullable=False),
        sa.Column("runs_missing", sa.Integer(), nullable=False),
        sa.Column("blocked_at", sa.String(length=24), nullable=True),
        sa.Column("passes", sa.Integer(), nullable=False),
        sa.Column("blocking", sa.String(length=64), nullable=True),
        sa.Column("blocked_keys", sa.JSON(), nullable=False),
        sa.Column("deleted_at", sa.String(length=24), nullable=True),
        sa.PrimaryKeyConstraint("user_id", name="pk_leavers"),
    )
    op.create_index("ix_leavers_email", "leavers", ["email"])
    op.create_index("ix_leavers_entity_ref", "leavers", ["entity_ref"])
    op.create_index("ix_leavers_plain_id", "leavers", ["plain_id"])
    op.create_table(
        "notices",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("subject", sa.String(length=16), nullable=False),
        sa.Column("subject_id", sa.String(length=512), nullable=False),
        sa.Column("threshold", sa.String(length=32), nullable=False),
        sa.Column("period", sa.String(length=64), nullable=False),
        sa.Column("recipient", sa.String(length=512), nullable=False),
        sa.Column("sent_at", sa.String(length=24), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
        sa.UniqueConstraint(
            "subject",
            "subject_id",
            "threshold",
            "period",
            "recipient",
            name="uq_notices",
        ),
    )


def downgrade() -> None:
    """Refuse: what later versions have stored would be lost."""
    raise NotImplementedError("The store can't be downgraded; restore a backup of the database")
