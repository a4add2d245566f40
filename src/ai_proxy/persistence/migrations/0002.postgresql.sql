-- Counts every change of what instances keep in memory, and notifies them, so that they load it again,
-- whatever program made it. The last use of a key is no change.

CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (name, count) VALUES (TG_ARGV[0], 1)
    ON CONFLICT (name) DO UPDATE SET count = changes.count + 1;
    PERFORM pg_notify('ai_proxy_changes', TG_ARGV[0]);
    RETURN NULL;
END $$;

CREATE TRIGGER api_keys_changed AFTER INSERT OR DELETE
OR UPDATE OF id, digest, label, scopes, models, rpm, burst, tpm, concurrency, created, expires, revoked, rotated_from
ON api_keys
FOR EACH ROW EXECUTE FUNCTION count_change('keys');

CREATE TRIGGER policy_changed AFTER INSERT OR DELETE OR UPDATE ON policy
FOR EACH ROW EXECUTE FUNCTION count_change('policy');

CREATE TRIGGER settings_changed AFTER INSERT OR DELETE OR UPDATE ON settings
FOR EACH ROW EXECUTE FUNCTION count_change('settings');
