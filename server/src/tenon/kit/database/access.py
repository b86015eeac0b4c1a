"""The database's access as a table: every relation, policy, grant, function and membership, read from the catalogue.

`contracts/access.json` is this table checked in: a wall that falls, a grant that widens or a membership that inherits shows up as a diff.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg

from tenon.kit.database.roles import RoleNames

_RELATIONS = """
select n.nspname || '.' || c.relname as name, c.relkind::text, c.relrowsecurity, c.relforcerowsecurity, coalesce(c.reloptions, '{}') as options,
       pg_get_userbyid(c.relowner) as owner
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where (n.nspname = 'tenon' or n.nspname like 'd\\_%') and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') order by 1
"""
_POLICIES = """
select schemaname || '.' || tablename as relation, policyname, roles::text[], cmd, permissive, qual, with_check from pg_policies
where schemaname = 'tenon' or schemaname like 'd\\_%' order by 1, 2
"""
_GRANTS = """
select n.nspname || '.' || c.relname as relation, case a.grantee when 0 then 'public' else a.grantee::regrole::text end as grantee,
       lower(a.privilege_type) as privilege, null as column
from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a
where (n.nspname = 'tenon' or n.nspname like 'd\\_%') and a.grantee <> c.relowner
union all
select n.nspname || '.' || c.relname, case a.grantee when 0 then 'public' else a.grantee::regrole::text end, lower(a.privilege_type), t.attname
from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace, aclexplode(t.attacl) a
where (n.nspname = 'tenon' or n.nspname like 'd\\_%') and a.grantee <> c.relowner
order by 1, 2, 3, 4
"""
_FUNCTIONS = """
select n.nspname || '.' || p.oid::regprocedure::text as name, p.prosecdef, coalesce(p.proconfig, '{}') as config,
       array(select case a.grantee when 0 then 'public' else a.grantee::regrole::text end
             from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee <> p.proowner order by 1) as executors
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'tenon' or n.nspname like 'd\\_%' order by 1
"""
_MEMBERSHIPS = """
select m.roleid::regrole::text as role, m.member::regrole::text as member, bool_or(m.inherit_option) as inherit, bool_or(m.set_option) as may_set,
       bool_or(m.admin_option) as admin
from pg_auth_members m join pg_roles r on r.oid = m.roleid where r.rolname like %s group by 1, 2 order by 1, 2
"""
_ROLES = "select rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolinherit from pg_roles where rolname like %s order by 1"


def describe(connection: psycopg.Connection[Any], names: RoleNames) -> dict[str, Any]:
    """The table, with the installation's id left out of every name and tenants' and days' names made one."""
    prefix = f"tn_{names.installation}"
    pattern = prefix.replace("_", "\\_") + "%"

    def rows(sql: str, *parameters: str) -> list[dict[str, Any]]:
        cursor = connection.execute(sql.encode(), parameters or None)
        titles = [column.name for column in cursor.description or ()]
        return [_neutral(dict(zip(titles, row, strict=True)), prefix) for row in cursor]

    return {
        "relations": _unique(rows(_RELATIONS)),
        "policies": _unique(rows(_POLICIES)),
        "grants": _unique(rows(_GRANTS)),
        "functions": _unique(rows(_FUNCTIONS)),
        "memberships": _unique(rows(_MEMBERSHIPS, pattern)),
        "roles": _unique(rows(_ROLES, pattern)),
    }


def breaches(table: dict[str, Any]) -> list[str]:
    """What no installation may ever have, in sentences; empty when all walls stand."""
    breaches_found = []
    for relation in table["relations"]:
        name, kind = relation["name"], relation["relkind"]
        if kind in "rp" and not _SCHEMA_VERSION.match(name) and not (relation["relrowsecurity"] and relation["relforcerowsecurity"]):
            breaches_found.append(f"{name} has no forced row-level security")
        if kind == "v" and not {"security_invoker=true", "security_barrier=true"} <= set(relation["options"]):
            breaches_found.append(f"view {name} lacks security_invoker or security_barrier")
        if kind in "mf":
            breaches_found.append(f"{name} is a materialised view or foreign table, which row-level security does not cover")
    breaches_found += [
        f"PUBLIC holds {grant['privilege']} on {grant['relation']}" for grant in table["grants"] if grant["grantee"] in ("public", "-")
    ]
    breaches_found += [f"PUBLIC may execute {function['name']}" for function in table["functions"] if "public" in function["executors"]]
    for function in table["functions"]:
        if function["prosecdef"] and not any(setting.startswith("search_path=") for setting in function["config"]):
            breaches_found.append(f"{function['name']} is SECURITY DEFINER with an open search_path")
    for role in table["roles"]:
        if role["rolsuper"] or role["rolbypassrls"] or role["rolcreatedb"]:
            breaches_found.append(f"role {role['rolname']} is superuser, bypasses row-level security or may create databases")
    for grant in table["memberships"]:
        if grant["inherit"] and not (grant["role"] == "tn_tenants" and grant["member"] == "tn_t_TENANT"):
            breaches_found.append(f"{grant['member']} inherits {grant['role']}")
    for policy in table["policies"]:
        if policy["policyname"].endswith("_tenants") and "current_tenant" not in f"{policy['qual']}{policy['with_check']}":
            breaches_found.append(f"policy {policy['policyname']} on {policy['relation']} does not compare the tenant")
    return breaches_found


_SCHEMA_VERSION = re.compile(r"tenon\.schema_version$")
_TENANT = re.compile(r"_t_[0-9a-f]{32}")
_SCHEMA = re.compile(r"\bd_[0-9a-f]{32}\b")
_DAY = re.compile(r"(?<=_)p?\d{4}_?\d{2}(_?\d{2})?(?![0-9])")
_PHYSICAL = re.compile(r"(?<=d_TENANT\.)([a-z]+)\d+")


def _neutral(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    def name(value: Any) -> Any:
        if isinstance(value, list):
            return sorted(name(item) for item in value)
        if not isinstance(value, str):
            return value
        value = _SCHEMA.sub("d_TENANT", _TENANT.sub("_t_TENANT", value.replace(prefix, "tn")))
        return _PHYSICAL.sub(r"\1N", _DAY.sub("DAY", value))

    return {column: name(value) for column, value in row.items()}


def _unique(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    for row in rows:
        seen.setdefault(repr(row), row)
    return sorted(seen.values(), key=repr)
