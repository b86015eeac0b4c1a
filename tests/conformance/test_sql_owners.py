"""The SQL-owner lint, seen to fail on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.lints import sql_owners
from tools.lints.sql_owners import Catalogue


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.read(ROOT / "contracts")


def said(source: str, catalogue: Catalogue, path: str = "inference/limits/repository.py") -> list[str]:
    return [problem.split(": ", 1)[1] for problem in sql_owners.check(Path(path), source, catalogue)]


def test_the_sources_name_only_their_own_tables() -> None:
    assert sql_owners.main() == 0


def test_every_table_has_an_owner(catalogue: Catalogue) -> None:
    assert catalogue.problems() == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('Q = "select 1 from tenon.api_key"', "`tenon.api_key` belongs to core.identity. Ask its service instead."),
        ('Q = "select 1 from tenon.rate_limit l join tenon.principal p on true"', "`tenon.principal` belongs to core.identity."),
        ('Q = "insert into tenon.outbox (id) values (1)"', "`tenon.outbox` belongs to core.events."),
        ('Q = "update tenon.budget set amount_nano = 0"', "`tenon.budget` belongs to inference.billing."),
        ('Q = "delete from tenon.lease"', "`tenon.lease` belongs to inference.billing."),
        ('Q = """\nwith x as (\n    select * from tenon.price\n)\nselect * from x\n"""', "`tenon.price` belongs to inference.billing."),
        ('PART = "x"\nQ = f"select {PART} from tenon.usage_record"', "`tenon.usage_record` belongs to inference.usage."),
        ('Q = "join tenon.endpoint e on true "', "`tenon.endpoint` belongs to inference.models."),
        ('Q = "SELECT 1 FROM Tenon.Api_Key"', "there is no table `tenon.Api_Key`."),
        ('Q = "select 1 from tenon.nothing_like_it"', "there is no table `tenon.nothing_like_it`."),
        ('Q = "select tenon.no_such_function()"', "there is no table `tenon.no_such_function`."),
        ('def q(table):\n    return f"select 1 from tenon.{table}"', "a table's name is put together at run time."),
        ('Q = "select 1 from rate_limit"', "write `tenon.rate_limit`, with its schema."),
        ('Q = "select 1 from api_key"', "write `tenon.api_key`, with its schema."),
    ],
)
def test_sql_that_reaches_too_far_is_refused(catalogue: Catalogue, source: str, problem: str) -> None:
    assert [each for each in said(source, catalogue) if each.startswith(problem)], said(source, catalogue)


@pytest.mark.parametrize(
    "source",
    [
        'Q = "select 1 from tenon.rate_limit"',
        'Q = "select tenon.next_revision()"',
        "Q = \"select pg_advisory_xact_lock(hashtextextended('tenon.governance:' || :tenant, 0))\"",
        "Q = \"select set_config('tenon.principal', :principal, true)\"",
        'Q = "with lease as (select 1) select * from lease"',
        'Q = "with recursive lease (id) as (select 1) select * from lease"',
        '"""Rows from tenon.api_key are read by its owner."""',
        'EVENT = "tenon.budget.overdrawn.v1"',
        'Q = "select 1 from pg_catalog.pg_class"',
    ],
)
def test_sql_of_its_own_is_accepted(catalogue: Catalogue, source: str) -> None:
    assert said(source, catalogue) == []


def test_a_process_owns_no_table(catalogue: Catalogue) -> None:
    assert said('Q = "select id from tenon.tenant"', catalogue, "entrypoints/worker/database_maintenance.py")


def test_a_table_without_owner_is_said(catalogue: Catalogue) -> None:
    owners = {table: owner for table, owner in catalogue.owners.items() if table != "lease"}
    assert replace(catalogue, owners=owners).problems() == ["contracts/table-owners.json: `lease` has no owner."]


def test_an_owner_of_no_table_is_said(catalogue: Catalogue) -> None:
    broken = replace(catalogue, owners=catalogue.owners | {"leese": "inference.billing"})
    assert broken.problems() == ["contracts/table-owners.json: there is no table `leese`."]


def test_a_table_has_one_owner(tmp_path: Path) -> None:
    for name in ("access.json", "table-owners.json"):
        (tmp_path / name).write_text((ROOT / "contracts" / name).read_text())
    text = (tmp_path / "table-owners.json").read_text().replace('"tenant"]', '"tenant", "lease"]')
    (tmp_path / "table-owners.json").write_text(text)
    with pytest.raises(ValueError, match=r"`lease` belongs to core\.tenancy and to inference\.billing"):
        Catalogue.read(tmp_path)
