"""The tables as they are now. `migrations` brings a database there; a test holds the two together.

Moments are seconds since the epoch.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

settings = Table(
    "settings",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", JSON, nullable=False),
)

engine_cache = Table(
    "engine_cache",
    metadata,
    Column("engine", Text, primary_key=True),
    Column("detection", JSON, nullable=False),
    Column("expires", Double, nullable=False),
)

proxy_handles = Table(
    "proxy_handles",
    metadata,
    Column("id", Text, primary_key=True),
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", Double, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("mode", Text, nullable=False),
    Column("endpoints", JSON, nullable=False),
    Column("last_error", Text, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("label", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("rpm", BigInteger),
    Column("burst", BigInteger),
    Column("tpm", BigInteger),
    Column("concurrency", BigInteger),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("rotated_from", Text, ForeignKey("api_keys.id")),
    Column("last_used", Double),
)

policy = Table(
    "policy",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("document", JSON, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    # SQLite counts up only what is called INTEGER.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("where_from", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Index("audit_at", "at"),
    sqlite_autoincrement=True,
)

usage = Table(
    "usage",
    metadata,
    Column("day", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("name", Text, primary_key=True),
    Column("domains", JSON, nullable=False),
    Column("chain", Text, nullable=False),
    Column("key_file", Text, nullable=False),
    Column("issued", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("last_error", Text, nullable=False),
)

memory_peaks = Table(
    "memory_peaks",
    metadata,
    Column("service_id", Text, primary_key=True),
    Column("config_hash", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("peak_bytes", BigInteger, nullable=False),
    Column("seen", Double, nullable=False),
    Column("samples", BigInteger, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)
