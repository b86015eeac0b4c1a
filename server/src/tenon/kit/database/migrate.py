"""Run the checked-in migrations, and what each of them stands on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from tenon.kit.database.roles import RoleNames
from tenon.kit.database.walls import Wall, raise_wall
from tenon.kit.settings import DatabaseSettings

# server/migrations beside src/ in a checkout; the image copies it to the same place.
MIGRATIONS = Path(__file__).parents[4] / "migrations"


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration's `upgrade` uses: `run` for DDL, `wall` for who may touch a table."""

    names: RoleNames

    def run(self, ddl: str) -> None:
        """Execute DDL as it stands (no parameters, colons and percent signs are literal)."""
        op.get_bind().exec_driver_sql(ddl.replace("%", "%%"))

    def wall(self, table: str, tenants: str | None = None, *, tenant_column: str = "tenant_id", **system: str) -> None:
        """Raise the wall of a table: `m.wall("tenon.proposal", "select, insert", relay="select")`."""
        raise_wall(self.run, self.names, Wall(table, tenants, system, tenant_column))


def migration() -> Migration:
    """The running migration."""
    return Migration(op.get_context().config.attributes["names"])  # type: ignore[union-attr]


def _config(settings: DatabaseSettings) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["names"] = RoleNames(settings.installation)
    return config


def upgrade(settings: DatabaseSettings, revision: str = "head") -> None:
    """Bring the database to `revision`. Raises alembic's errors; each migration is one transaction."""
    engine = create_engine(settings.url(RoleNames(settings.installation).login("migrate")))
    try:
        with engine.connect() as connection:
            config = _config(settings)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()
    finally:
        engine.dispose()


def head() -> str:
    """The newest revision there is."""
    return str(ScriptDirectory(str(MIGRATIONS)).get_current_head())
