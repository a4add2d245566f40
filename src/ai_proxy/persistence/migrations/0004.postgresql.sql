-- Retention: the oldest entries of the audit log may go, those up to a place that is kept for each kind.

ALTER TABLE audit ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
CREATE INDEX audit_kind ON audit (refused, seq);

CREATE TABLE audit_ends (
    refused INTEGER NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL
);
INSERT INTO audit_ends (refused, seq) VALUES (0, 0), (1, 0);

DROP TRIGGER audit_only_grows ON audit;
CREATE TRIGGER audit_only_grows BEFORE UPDATE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows();

CREATE FUNCTION audit_entry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.seq > (SELECT seq FROM audit_ends WHERE refused = OLD.refused) THEN
        RAISE EXCEPTION 'the audit log can only be added to';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER audit_entry_stays BEFORE DELETE ON audit
FOR EACH ROW EXECUTE FUNCTION audit_entry_stays();
