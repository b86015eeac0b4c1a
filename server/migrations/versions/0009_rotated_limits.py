"""Soft budgets of a key count its successors too: the usage store must know of a rotation."""

from __future__ import annotations

from tenon.kit.database.migrate import migration

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    m = migration()
    m.run(f"grant select (replaced_by) on tenon.api_key to {m.names.login('usage')}")
