"""${message}"""

from tenon.kit.database.migrate import migration

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    m = migration()
    m.run("""
    """)
