CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);

CREATE TABLE settings (
    name TEXT NOT NULL PRIMARY KEY,
    value JSON NOT NULL
);

CREATE TABLE engine_cache (
    engine TEXT NOT NULL PRIMARY KEY,
    detection JSON NOT NULL,
    expires DOUBLE NOT NULL
);

CREATE TABLE proxy_handles (
    id TEXT NOT NULL PRIMARY KEY,
    machine TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started DOUBLE NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    mode TEXT NOT NULL,
    endpoints JSON NOT NULL,
    last_error TEXT NOT NULL
);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    label TEXT NOT NULL,
    scopes JSON NOT NULL,
    models JSON NOT NULL,
    rpm BIGINT,
    burst BIGINT,
    tpm BIGINT,
    concurrency BIGINT,
    created DOUBLE NOT NULL,
    expires DOUBLE,
    revoked DOUBLE,
    rotated_from TEXT REFERENCES api_keys (id),
    last_used DOUBLE
);

CREATE TABLE policy (
    number INTEGER NOT NULL PRIMARY KEY,
    at DOUBLE NOT NULL,
    who TEXT NOT NULL,
    document JSON NOT NULL
);

CREATE TABLE audit (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at DOUBLE NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    where_from TEXT NOT NULL,
    result TEXT NOT NULL,
    detail TEXT NOT NULL,
    count INTEGER NOT NULL
);
CREATE INDEX audit_at ON audit (at);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log can only be added to'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log can only be added to'); END;

CREATE TABLE usage (
    day TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    requests BIGINT NOT NULL,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    PRIMARY KEY (day, key_id, model)
);

CREATE TABLE certificates (
    name TEXT NOT NULL PRIMARY KEY,
    domains JSON NOT NULL,
    chain TEXT NOT NULL,
    key_file TEXT NOT NULL,
    issued DOUBLE NOT NULL,
    expires DOUBLE NOT NULL,
    last_error TEXT NOT NULL
);

CREATE TABLE memory_peaks (
    service_id TEXT NOT NULL,
    config_hash TEXT NOT NULL,
    device TEXT NOT NULL,
    peak_bytes BIGINT NOT NULL,
    seen DOUBLE NOT NULL,
    samples BIGINT NOT NULL,
    PRIMARY KEY (service_id, config_hash, device)
);

CREATE TABLE changes (
    name TEXT NOT NULL PRIMARY KEY,
    count BIGINT NOT NULL
);
