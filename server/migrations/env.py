"""Run migrations as the `migrate` login of one installation; see tenon.kit.database.migrate."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table="schema_version",
    version_table_schema="tenon",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
