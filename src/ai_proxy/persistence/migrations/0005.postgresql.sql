-- How long an instance may take to end, so that a command that ends it need not read its configuration.

ALTER TABLE proxy_handles ADD COLUMN stop_within DOUBLE PRECISION NOT NULL DEFAULT 0;
