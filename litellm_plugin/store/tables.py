"""The tables of the store.

Times are UTC text such as ``2026-11-27T12:00:00.000Z``, which sorts by time and is the same in each
database. Money is USD. No column holds the secret of a key: keys are named by LiteLLM's
hash.
"""

from __future__ import annotations

import platform

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite generates ids only in a column of its type INTEGER.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")
_TIME = String(24)

# One row for each audit event, in the shape that GET /audit answers with.
audit_events = Table(
    "audit_events",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("chain", String(64), nullable=False),  # of the process that wrote the event
    Column("sequence", _NUMBER, nullable=False),  # 1 for the first event of the chain
    Column("previous", String(64), nullable=False),  # hash of the chain's event before
    Column("hash", String(64), nullable=False),
    Column("at", _TIME, nullable=False),
    Column("action", String(32), nullable=False),
    Column("table_name", String(64), nullable=False),
    Column("object_id", Text, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("denied", Boolean, nullable=False),
    Column("before_value", JSON),
    Column("updated_values", JSON),
    Column("event", JSON, nullable=False),  # the line of the journal
    UniqueConstraint("chain", "sequence"),
    # With "denied", the number of events is found in the index alone.
    Index(None, "at", "id", "denied"),
    Index(None, "changed_by", "at", "id", "denied"),
    Index(None, "table_name", "at", "id", "denied"),
    Index(None, "action", "at", "id"),
)

# One row for each process that writes audit events.
audit_chains = Table(
    "audit_chains",
    metadata,
    Column("chain", String(64), primary_key=True),
    Column("host", Text, nullable=False),
    Column("started_at", _TIME, nullable=False),
    Column("ended_at", _TIME),  # None: runs, or was killed
    Column("last_sequence", _NUMBER, nullable=False),
    Column("last_hash", String(64), nullable=False),
    Column("lost", _NUMBER, nullable=False),  # number of events that are only in the log
    # The number of the oldest event that retention has kept, and the hash of the one before.
    Column("first_sequence", _NUMBER, nullable=False),
    Column("first_previous", String(64), nullable=False),
)

# Numbers of audit events by actor and day, so that totals need not count the events. Rows with
# changed_by "" count all actors' events.
audit_counts = Table(
    "audit_counts",
    metadata,
    Column("changed_by", Text, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("action", String(32), primary_key=True),
    Column("table_name", String(64), primary_key=True),
    Column("denied", Boolean, primary_key=True),
    Column("events", _NUMBER, nullable=False),
)

# What provisioning granted to a LiteLLM user.
grants = Table(
    "grants",
    metadata,
    Column("user_id", String(512), primary_key=True),
    Column("entity_ref", Text),  # None: not known
    Column("origin", String(16), nullable=False),  # created, or taken-in from before
    # By field: the value that was written last, and the value about to be written. "pending" is
    # NULL while no write is under way.
    Column("granted", JSON, nullable=False),
    Column("pending", JSON(none_as_null=True)),
    Column("checked_at", _TIME, nullable=False),
)

# Accounts that were found by the owner's e-mail, under another LiteLLM id than the owner's.
adopted = Table(
    "adopted",
    metadata,
    Column("own_id", String(512), primary_key=True),
    Column("user_id", String(512), nullable=False),
    Column("entity_ref", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

# Accounts whose entity the catalog does not have any more.
leavers = Table(
    "leavers",
    metadata,
    Column("user_id", String(512), primary_key=True),
    Column("plain_id", String(512), nullable=False),  # the id without letter case, to compare
    Column("email", Text),  # in lower case
    Column("entity_ref", Text, nullable=False),
    Column("missing_since", _TIME, nullable=False),
    Column("runs_missing", Integer, nullable=False),  # 0: came back, keys are being unblocked
    Column("blocked_at", _TIME),  # when blocking began
    Column("passes", Integer, nullable=False),  # how often all keys were gone through
    Column("blocking", String(64)),  # hash of the key that is being blocked or unblocked
    Column("blocked_keys", JSON, nullable=False),  # hashes of keys that offboarding blocked
    Column("deleted_at", _TIME),
    Index(None, "plain_id"),
    Index(None, "email"),
    Index(None, "entity_ref"),
)

# Notices that were sent: one for each threshold, and budget period or end of a key.
notices = Table(
    "notices",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("subject", String(16), nullable=False),  # user, key or team
    Column("subject_id", String(512), nullable=False),
    Column("threshold", String(32), nullable=False),  # such as budget-80 or expiry-7d
    Column("period", String(64), nullable=False),
    Column("recipient", String(512), nullable=False),
    Column("sent_at", _TIME, nullable=False),
    UniqueConstraint(
        "subject", "subject_id", "threshold", "period", "recipient", name="uq_notices"
    ),
)

# The usage of past days: a row for each day of a user or a team.
usage_days = Table(
    "usage_days",
    metadata,
    Column("subject", String(16), primary_key=True),  # user or team
    Column("subject_id", String(512), primary_key=True),
    Column("day", String(10), primary_key=True),  # in UTC
    Column("report", JSON(none_as_null=True)),  # as GET /usage answers; None: no usage
    Index(None, "day"),
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("job", String(32), nullable=False),
    Column("host", Text, nullable=False, default=platform.node),
    Column("started_at", _TIME, nullable=False),
    Column("ended_at", _TIME),
    Column("status", String(16), nullable=False),  # running, succeeded, partial, failed, killed
    Column("dry_run", Boolean, nullable=False, default=False),
    Column("counts", JSON, nullable=False, default=dict),
    Column("error", Text),
    Index(None, "job", "id"),
)
