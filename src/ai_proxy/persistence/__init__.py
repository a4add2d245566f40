"""The store: a database that keeps facts across restarts, its migrations and its backups."""
