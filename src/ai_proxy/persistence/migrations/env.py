"""Run by Alembic: migrates the connection it was handed, within that connection's transaction."""

from alembic import context

# Only while Alembic runs this file; who imports it, to read what it says, has nothing to migrate.
if hasattr(context, "config"):
    context.configure(
        connection=context.config.attributes["connection"], transactional_ddl=True, render_as_batch=True
    )
    context.run_migrations()
