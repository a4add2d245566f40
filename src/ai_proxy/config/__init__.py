"""The configuration file: its schema, its loading, and its translation into core objects."""
