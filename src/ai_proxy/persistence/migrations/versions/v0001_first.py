"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Make them."""
    op.create_table("settings", _text("name", key=True), _json("value"))
    op.create_table("engine_cache", _text("engine", key=True), _json("detection"), _moment("expires"))
    _create_handles()
    _create_keys()
    op.create_table("policy", _integer("number", key=True), _moment("at"), _text("who"), _json("document"))
    _create_audit()
    op.create_table(
        "usage",
        *(_text(name, key=True) for name in ("day", "key_id", "model")),
        *(_big(name) for name in ("requests", "tokens_in", "tokens_out")),
    )
    op.create_table(
        "certificates",
        _text("name", key=True),
        _json("domains"),
        *(_text(name) for name in ("chain", "key_file")),
        *(_moment(name) for name in ("issued", "expires")),
        _text("last_error"),
    )
    op.create_table(
        "memory_peaks",
        *(_text(name, key=True) for name in ("service_id", "config_hash", "device")),
        _big("peak_bytes"),
        _moment("seen"),
        _big("samples"),
    )
    op.create_table("changes", _text("name", key=True), _big("count"))


def _create_handles() -> None:
    op.create_table(
        "proxy_handles",
        _text("id", key=True),
        _text("machine"),
        _integer("pid"),
        _moment("started"),
        _text("host"),
        _integer("port"),
        _text("mode"),
        _json("endpoints"),
        _text("last_error"),
    )


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        _text("id", key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        _text("label"),
        _json("scopes"),
        _json("models"),
        *(sa.Column(name, sa.BigInteger) for name in ("rpm", "burst", "tpm", "concurrency")),
        _moment("created"),
        *(sa.Column(name, sa.Double) for name in ("expires", "revoked")),
        sa.Column("rotated_from", sa.Text, sa.ForeignKey("api_keys.id")),
        sa.Column("last_used", sa.Double),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        _moment("at"),
        *(_text(name) for name in ("who", "what", "where_from", "result", "detail")),
        _integer("count"),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_at", "audit", ["at"])
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


_APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit"
        " BEGIN SELECT RAISE(ABORT, 'the audit log can only be added to'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        """
        CREATE FUNCTION audit_only_grows() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the audit log can only be added to'; END $$
        """,
        """
        CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()
        """,
    ],
}


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=key, nullable=False)


def _integer(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=key, nullable=False)


def _big(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _moment(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False)


def _json(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.JSON, nullable=False)
