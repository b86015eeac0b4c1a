"""Prepare a cluster and database for one installation: roles, grants, revokes. Idempotent; run as an administrator, then never needed.

Every rule here is the scar of an experiment that failed (DESIGN §4).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from tenon.kit.database.roles import SYSTEM_LOGINS, TENANT_POOLS, RoleNames
from tenon.kit.errors import ErrorCode, Unavailable

POSTGRES_MINIMUM = 180_000
TEMPORARY_TABLES = ("ingest", "usage")  # logins that stage COPY data


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What to prepare. `passwords` maps login -> password; missing ones are made."""

    installation: str
    database: str
    passwords: dict[str, str]

    @property
    def names(self) -> RoleNames:
        return RoleNames(self.installation)


def new_passwords() -> dict[str, str]:
    """A fresh random password for each system login."""
    return {login: secrets.token_urlsafe(32) for login in SYSTEM_LOGINS}


def prepare(admin_conninfo: str, plan: Bootstrap) -> None:
    """Create database, roles, schema and walls. `admin_conninfo` must be able to create roles and databases, and to revoke on pg_catalog."""
    with psycopg.connect(admin_conninfo, autocommit=True) as admin:
        if admin.info.server_version < POSTGRES_MINIMUM:
            raise Unavailable(
                ErrorCode.POSTGRES_TOO_OLD, f"Tenon needs PostgreSQL 18; this server is {admin.info.server_version // 10_000}."
            )
        _create_roles(admin, plan)
        if not admin.execute("select 1 from pg_database where datname = %s", [plan.database]).fetchone():
            admin.execute(
                sql.SQL("create database {} template template0 encoding 'UTF8' locale_provider builtin builtin_locale 'C.UTF-8'").format(
                    sql.Identifier(plan.database)
                )
            )
    with psycopg.connect(admin_conninfo, dbname=plan.database, autocommit=True) as admin:
        _raise_database_walls(admin, plan)


def _create_roles(admin: psycopg.Connection[Any], plan: Bootstrap) -> None:
    names = plan.names
    existing = {row[0] for row in admin.execute("select rolname from pg_roles where rolname like %s", [f"tn_{plan.installation}%"])}
    if names.tenants not in existing:
        admin.execute(sql.SQL("create role {} nologin").format(sql.Identifier(names.tenants)))
    for login in SYSTEM_LOGINS:
        role = names.login(login)
        verb: LiteralString = "alter" if role in existing else "create"
        options = sql.SQL("login noinherit nosuperuser nobypassrls nocreatedb" + (" createrole" if login == "provision" else ""))
        admin.execute(
            sql.SQL("{} role {} {} password {}").format(sql.SQL(verb), sql.Identifier(role), options, sql.Literal(plan.passwords[login]))
        )
        # One open transaction anywhere holds back every consumer of the outbox.
        admin.execute(sql.SQL("alter role {} set transaction_timeout = '60s'").format(sql.Identifier(role)))
        admin.execute(sql.SQL("alter role {} set idle_in_transaction_session_timeout = '30s'").format(sql.Identifier(role)))
        admin.execute(sql.SQL("alter role {} set timezone = 'UTC'").format(sql.Identifier(role)))
    for login in ("migrate", "ingest"):  # a backfill, an index build or one batch may take longer
        admin.execute(sql.SQL("alter role {} set transaction_timeout = '600s'").format(sql.Identifier(names.login(login))))
    admin.execute(
        sql.SQL("grant {} to {} with admin true, inherit false, set false").format(
            sql.Identifier(names.tenants), sql.Identifier(names.login("provision"))
        )
    )


def _raise_database_walls(admin: psycopg.Connection[Any], plan: Bootstrap) -> None:
    names = plan.names
    database, migrate = sql.Identifier(plan.database), sql.Identifier(names.login("migrate"))
    logins = sql.SQL(", ").join(sql.Identifier(names.login(login)) for login in SYSTEM_LOGINS)
    staging = sql.SQL(", ").join(sql.Identifier(names.login(login)) for login in TEMPORARY_TABLES)
    statements: list[sql.SQL | sql.Composed] = [
        sql.SQL("revoke all on database {} from public").format(database),
        sql.SQL("grant connect on database {} to {}").format(database, logins),
        sql.SQL("grant create on database {} to {}").format(database, migrate),
        sql.SQL("grant temporary on database {} to {}").format(database, staging),
        sql.SQL("revoke all on schema public from public"),
        # The way out of a role: one injected expression could call set_config('role', …) and read on as another tenant.
        sql.SQL("revoke execute on function pg_catalog.set_config(text, text, boolean) from public"),
        sql.SQL("grant execute on function pg_catalog.set_config(text, text, boolean) to {}").format(logins),
        # A DO block can `set local role`: nobody but the owner of functions needs the language.
        sql.SQL("revoke usage on language plpgsql, sql from public"),
        sql.SQL("grant usage on language plpgsql, sql to {}").format(migrate),
        sql.SQL("create schema if not exists tenon authorization {}").format(migrate),
        sql.SQL("grant usage on schema tenon to {}, {}").format(sql.Identifier(names.tenants), logins),
    ]
    for statement in statements:
        admin.execute(statement)
    if admin.execute("select 1 from pg_available_extensions where name = 'pg_stat_statements'").fetchone():
        admin.execute("create extension if not exists pg_stat_statements schema public")


def check(conninfo: str, names: RoleNames) -> list[str]:
    """What is wrong with the walls, in sentences; empty when they stand. Any login may run it."""
    problems = []
    with psycopg.connect(conninfo, autocommit=True) as connection:
        if connection.execute(
            "select has_function_privilege('public', 'pg_catalog.set_config(text,text,boolean)', 'execute')"
        ).fetchone() == (True,):
            problems.append("PUBLIC may execute set_config: a tenant's role can be left from inside an expression.")
        rows = connection.execute(
            "select r.rolname from pg_roles r where r.rolname like %s and (r.rolsuper or r.rolbypassrls)", [f"tn_{names.installation}%"]
        )
        problems += [f"Role {row[0]} is superuser or bypasses row-level security." for row in rows]
        # A login made NOINHERIT after a grant still inherits: the option lives on the membership.
        rows = connection.execute(
            "select m.member::regrole::text, m.roleid::regrole::text from pg_auth_members m"
            " join pg_roles r on r.oid = m.roleid where r.rolname like %s and m.inherit_option and m.member = any(%s::regrole[]::oid[])",
            [f"tn_{names.installation}_t_%", [names.login(pool) for pool in TENANT_POOLS]],
        )
        problems += [f"Login {row[0]} inherits tenant role {row[1]}." for row in rows]
    return problems
