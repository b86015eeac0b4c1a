"""How endpoints are watched and filled, and how a model's routes are picked."""

from __future__ import annotations

from tenon.kit.database.migrate import migration

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    m = migration()
    m.run(r"""
    -- Both are read and written as a whole, and looked into by the gateway alone (inference.models: Serving, Balancing).
    alter table tenon.endpoint add column serving jsonb not null default '{}' check (jsonb_typeof(serving) = 'object');
    alter table tenon.model add column balancing jsonb not null default '{}' check (jsonb_typeof(balancing) = 'object');
    alter table tenon.endpoint drop constraint endpoint_protocol_check;
    alter table tenon.endpoint add check (protocol in ('openai', 'anthropic', 'kserve_grpc'));
    alter table tenon.model_route
        add column tier int not null default 0 check (tier between 0 and 100),
        add column input_cost_nano_per_million bigint not null default 0 check (input_cost_nano_per_million >= 0),
        add column output_cost_nano_per_million bigint not null default 0 check (output_cost_nano_per_million >= 0);
    """)
    m.run(f"grant select (serving) on tenon.endpoint to {m.names.tenants}")
    m.run(f"grant update (balancing) on tenon.model to {m.names.tenants}")
