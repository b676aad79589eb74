"""The city's tables, the same on SQLite and PostgreSQL. Times are unix seconds, UTC, as floats.

SCHEMA is written into the store, and a store with another number is refused. There is no migration yet: the store only
creates missing tables (`metadata.create_all`).

Every table is written out column by column, although many columns are alike. This page is compared with the store's own
`.schema` and with migrations to come, and helpers that shorten it would hide the types.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA = 2
ID_MAX = 200
metadata = MetaData()

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

event = Table(
    "event",
    metadata,
    Column("gateway", String(32), primary_key=True),
    Column("epoch", String(64), primary_key=True),
    Column("lane", String(8), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(24), nullable=False),
    Column("subject", String(ID_MAX), nullable=False),
    Column("observed_at", Float(53), nullable=False),
    Column("queued_at", Float(53)),
    Column("stored_at", Float(53), nullable=False),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""observed_at: when it happened by its gateway's clock, never after stored_at."""
Index("event_by_type", event.c.type, event.c.stored_at)
Index("event_by_time", event.c.type, event.c.observed_at)

watermark = Table(
    "watermark",
    metadata,
    Column("gateway", String(32), primary_key=True),
    Column("epoch", String(64), primary_key=True),
    Column("lane", String(8), primary_key=True),
    Column("upto", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("gaps", BigInteger, nullable=False),
    Column("heard_at", Float(53), nullable=False),
)

latest = Table(
    "latest",
    metadata,
    Column("kind", String(24), primary_key=True),
    Column("subject", String(ID_MAX), primary_key=True),
    Column("gateway", String(32), nullable=False),
    Column("as_of", Float(53), nullable=False),
    Column("stored_at", Float(53), nullable=False),
    Column("body", Text, nullable=False),
)
"""The newest event of each kind about each subject: what a page shows. as_of: observed_at, never in the future.

subject: the pseudonym of a tag, or GATEWAY/READER, or GATEWAY/WHAT: each gateway counts its own readers from 1.
"""

incident = Table(
    "incident",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("state", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("gateway", String(32), nullable=False),
    Column("subject", String(ID_MAX), nullable=False),
    Column("stored_at", Float(53), nullable=False),
    Column("version", Integer, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)
"""version: rises with every change of the incident, its alarms or its lamps. The view with the higher one is newer."""
Index("incident_by_subject", incident.c.kind, incident.c.subject, incident.c.state)
Index("incident_by_state", incident.c.state)

alarm = Table(
    "alarm",
    metadata,
    Column("gateway", String(32), primary_key=True),
    Column("alarm", String(ID_MAX), primary_key=True),
    Column("incident", Integer, ForeignKey("incident.number"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("stage_at", Float(53), nullable=False),
    Column("told", String(16)),
    Column("open", Boolean, nullable=False),
    Column("waits", Boolean, nullable=False),
)
"""waits: its lamp has not shown this stage yet. open: its incident is not closed."""
Index("alarm_by_waits", alarm.c.waits, alarm.c.stage_at)

told = Table(
    "told",
    metadata,
    Column("gateway", String(32), primary_key=True),
    Column("alarm", String(ID_MAX), primary_key=True),
    Column("reader", Integer, primary_key=True, autoincrement=False),
    Column("stage", String(16), primary_key=True),
    Column("told_at", Float(53), nullable=False),
    Column("stored_at", Float(53), nullable=False),
)

incident_log = Table(
    "incident_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("incident", Integer, ForeignKey("incident.number"), nullable=False, index=True),
    Column("at", Float(53), nullable=False),
    Column("word", String(24), nullable=False),
    Column("who", String(64), nullable=False),
    Column("detail", Text, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("topic", String(200), nullable=False),
    Column("gateway", String(32), nullable=False),
    Column("epoch", String(64)),
    Column("seq", BigInteger),
    Column("reason", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("first_at", Float(53), nullable=False),
    Column("last_at", Float(53), nullable=False),
    Column("times", BigInteger, nullable=False),
)

gateway = Table(
    "gateway",
    metadata,
    Column("gateway", String(32), primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("heard_at", Float(53), nullable=False),
    Column("body", Text, nullable=False),
)

counter = Table(
    "counter",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(48), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""owner: who counts, LANE/GATEWAY or a thread. Each row has one writer: on a database server nobody waits for another's
transaction. A counter's value is the sum of its rows."""

session = Table(
    "session",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("operator", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("used_at", Float(53), nullable=False),
)

look = Table(
    "look",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float(53), nullable=False, index=True),
    Column("who", String(64), nullable=False),
    Column("what", String(64), nullable=False),
    Column("address", String(64), nullable=False),
)
