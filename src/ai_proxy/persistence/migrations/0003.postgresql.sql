-- Tells the process of an instance from others that had its pid, even if the system's clock was set meanwhile.

ALTER TABLE proxy_handles ADD COLUMN birth TEXT NOT NULL DEFAULT '';
