-- Retention: the oldest entries of the audit log may go, those up to a place that is kept for each kind.

ALTER TABLE audit ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
CREATE INDEX audit_kind ON audit (refused, seq);

CREATE TABLE audit_ends (
    refused INTEGER NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL
);
INSERT INTO audit_ends (refused, seq) VALUES (0, 0), (1, 0);

DROP TRIGGER audit_no_delete;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
WHEN OLD.seq > (SELECT seq FROM audit_ends WHERE refused = OLD.refused)
BEGIN SELECT RAISE(ABORT, 'the audit log can only be added to'); END;
