-- Counts every change of what instances keep in memory, so that they load it again, whatever program made it.
-- The last use of a key is no change.

CREATE TRIGGER api_keys_added AFTER INSERT ON api_keys
BEGIN
    INSERT INTO changes (name, count) VALUES ('keys', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER api_keys_changed AFTER
UPDATE OF id, digest, label, scopes, models, rpm, burst, tpm, concurrency, created, expires, revoked, rotated_from
ON api_keys
BEGIN
    INSERT INTO changes (name, count) VALUES ('keys', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER api_keys_removed AFTER DELETE ON api_keys
BEGIN
    INSERT INTO changes (name, count) VALUES ('keys', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER policy_added AFTER INSERT ON policy
BEGIN
    INSERT INTO changes (name, count) VALUES ('policy', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER policy_changed AFTER UPDATE ON policy
BEGIN
    INSERT INTO changes (name, count) VALUES ('policy', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER policy_removed AFTER DELETE ON policy
BEGIN
    INSERT INTO changes (name, count) VALUES ('policy', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER settings_added AFTER INSERT ON settings
BEGIN
    INSERT INTO changes (name, count) VALUES ('settings', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER settings_changed AFTER UPDATE ON settings
BEGIN
    INSERT INTO changes (name, count) VALUES ('settings', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;

CREATE TRIGGER settings_removed AFTER DELETE ON settings
BEGIN
    INSERT INTO changes (name, count) VALUES ('settings', 1)
    ON CONFLICT (name) DO UPDATE SET count = count + 1;
END;
