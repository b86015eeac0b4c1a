"""Loads into a real database: every row is an object or is named with line, column and reason."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from load_tenant import HEADER, MAPPING

from tenon.kit.errors import Conflict, ErrorCode, Forbidden, Invalid, NotFound
from tenon.ontology import ingestion
from tenon.ontology.schema import object_id

TAG = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_types_are_read(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write(f'1,"O""Ada, é",BER,Acme,NA,31.12.1999,2013-01-01T10:00:00+02:00,12.5,1e3,true,high,{TAG}', "2,Bob,,,,,,,,,,")
    report = await tenant.load()
    assert (report.source_rows, report.inserted, report.rejected) == (2, 2, 0)
    names = ("number", "name", "home", "born", "seen", "salary", "ratio", "active", "level", "tag", "state", "version")
    assert await tenant.rows("person", *names) == [
        (1, 'O"Ada, é', "BER", date(1999, 12, 31), datetime(2013, 1, 1, 8, tzinfo=UTC), 1250, 1000.0, True, "high", UUID(TAG), "new", 1),
        (2, "Bob", None, None, None, None, None, None, None, None, "new", 1),
    ]
    person = tenant.ontology.object_types["person"]
    assert [row[0] for row in await tenant.rows("person", "id")] == [
        object_id(tenant.principals.tenant_id, person, {"number": n}) for n in (1, 2)
    ]


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(st.data())
async def test_every_value_arrives_as_it_was(create_tenant, data: st.DataObject) -> None:
    """Texts with quotes, delimiters and line feeds, floats to the last bit, instants to the microsecond."""
    tenant = await create_tenant() if not hasattr(create_tenant, "tenant") else create_tenant.tenant
    create_tenant.tenant = tenant
    texts = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1, max_size=10).filter(
        lambda t: t.count("\n") < 2
    )
    people = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 2**63 - 1), texts, st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 29), timezones=st.just(UTC)),
                st.integers(-(10**15), 10**8), st.floats(allow_nan=False, allow_infinity=False),
            ),
            min_size=50, max_size=50, unique_by=lambda row: row[0],
        )
    )  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(HEADER.split(","))
    for number, name, seen, cents, ratio in people:
        salary = f"{Decimal(cents).scaleb(-2):f}"
        writer.writerow([number, name, "", "", "", "", f"{seen:%Y-%m-%dT%H:%M:%S.%f}Z".rjust(27, "0"), salary, repr(ratio), "", "", ""])
    (tenant.folders.data / "people.csv").write_bytes(out.getvalue().encode())
    async with tenant.api.tenant(tenant.principals.context("editor").identity) as session:
        await session.execute(f"delete from {tenant.ontology.schema}.{tenant.ontology.object_types['person'].table}")
    report = await tenant.load(MAPPING.replace('nulls: ["", NA]', 'nulls: [""]'), again=True)
    assert report.inserted == 50
    stored = await tenant.rows("person", "number", "name", "seen", "salary", "ratio")
    assert stored == sorted(people, key=lambda row: row[0])


async def test_each_reject_names_line_column_and_reason(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write(
        "1,Ada,,,,,,,,,,",
        "x,Bob,,,,,,,,,,",  # line 3
        "3,,,,,,,,,,,",
        "4,Muchtoolongname,,,,,,,,,,",
        "5,Eve,,,,31.02.2000,,,,,,",
        "6,Fay,,,,,2013-01-01 10:00:00,,,,,",
        "7,Gil,,,,,,1.005,,,,",
        "8,Hal,,,,,,2000000,,,,",
        "9,Ida,,,,,,,nan,maybe,middle,zz",
        "10,too,few",
        "11,Kim,,,,,,,,,,,,,too,many",
        '12,"open,,,,,,,,,,',
        "1,Lea,,,,,,,,,,",
        "-1,Max,,,,,,,,,,",
        "1.5,Ned,,,,,,,,,,",
        "99999999999999999999,Oda,,,,,,,,,,",
        "17,Pia,,,,,,,,,,",
        '18,"Qu"een"s",,,,,,,,,,',
    )
    report = await tenant.load()
    assert (report.source_rows, report.inserted, report.rejected) == (18, 2, 16)
    assert [row[0] for row in await tenant.rows("person", "number")] == [1, 17]
    assert tenant.rejects() == [
        ["3", "number", "number", "not_integer"],
        ["4", "name", "name", "required"],
        ["5", "name", "name", "too_long"],
        ["6", "born", "born", "not_date"],
        ["7", "seen", "seen", "not_timestamp"],
        ["8", "salary", "salary", "not_decimal"],
        ["9", "salary", "salary", "above_maximum"],
        ["10", "active", "active", "not_boolean"],
        ["10", "level", "level", "not_in_enum"],
        ["10", "ratio", "ratio", "not_number"],
        ["10", "tag", "tag", "not_uuid"],
        ["11", "employer", "", "missing_columns"],
        ["12", "#13", "", "too_many_columns"],
        ["13", "name", "", "quote_not_closed"],
        ["14", "number", "number", "duplicate_key"],
        ["15", "number", "number", "below_minimum"],
        ["16", "number", "number", "not_integer"],
        ["17", "number", "number", "not_integer"],
        ["19", "name", "", "bad_quotes"],
    ]
    assert sum(report.reasons.values()) == 19


async def test_a_quote_that_never_closes_takes_only_its_line(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write('1,"never closed,,,,,,,,,,', *(f"{n},Bob,,,,,,,,,," for n in range(2, 2_000)))
    report = await tenant.load()
    assert (report.inserted, report.rejected) == (1_998, 1)


async def test_records_of_several_lines_keep_their_line_numbers(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write('1,"A\nda",,,,,,,,,,', "", "x,Bob,,,,,,,,,,", end="\r\n")
    assert (await tenant.load()).inserted == 1
    assert tenant.rejects() == [["5", "number", "number", "not_integer"]]


async def test_broken_bytes(create_tenant) -> None:
    tenant = await create_tenant()
    good = b"3,Cy,,,,,,,,,,\n"
    header = "\ufeffnumber,name,home,employer,boss,born,seen,salary,ratio,active,level,tag\n".encode()
    (tenant.folders.data / "people.csv").write_bytes(header + b"1,\xff\xfe,,,,,,,,,,\n2,a\0b,,,,,,,,,,\n" + good)
    assert (await tenant.load()).inserted == 1
    assert [row[1::2] for row in tenant.rejects()] == [["name", "not_utf8"], ["name", "nul_byte"]]


@pytest.mark.parametrize(
    ("dangling", "people", "cities", "rejected", "stubs"), [("keep", 3, 1, 0, 0), ("stub", 3, 2, 0, 1), ("reject", 1, 1, 2, 0)]
)
async def test_links_without_a_target(create_tenant, dangling: str, people: int, cities: int, rejected: int, stubs: int) -> None:
    tenant = await create_tenant(dangling)
    tenant.write("BER,Berlin", header="code,name", name="cities.csv")
    await tenant.load("mapping: 1\nloads: {cities: {object_type: city, file: cities.csv, properties: {code: code, name: name}}}")
    tenant.write("1,Ada,BER,,,,,,,,,", "2,Bob,XXX,,,,,,,,,", "3,Cy,XXX,,,,,,,,,")
    report = await tenant.load()
    city = next(link for link in report.links if link.link == "city")
    assert (report.inserted, report.rejected, city.stubs) == (people, rejected, stubs)
    assert len(await tenant.rows("city", "code")) == cities
    expected = (0, 0) if dangling == "reject" else (2, 1)
    assert (city.dangling_rows, city.dangling_values) == expected
    if dangling == "reject":
        assert tenant.rejects() == [["3", "home", "home", "no_target"], ["4", "home", "home", "no_target"]]


async def test_stubs_of_an_interrupted_load_are_still_reported(create_tenant, monkeypatch) -> None:
    tenant = await create_tenant("stub")
    tenant.write(*(f"{n},P,C{chr(65 + n)}X,,,,,,,,," for n in range(5)))

    async def fail(*_: object) -> int:
        raise Conflict(ErrorCode.LOAD_OVERTAKEN, "Stopped by the test.")

    with monkeypatch.context() as broken:
        broken.setattr("tenon.ontology.ingestion.repository.advance_checkpoint", fail)
        with pytest.raises(Conflict):
            await tenant.load()
    assert len(await tenant.rows("city", "code")) == 5
    assert await tenant.rows("person", "number") == [], "a batch and its checkpoint are one"
    report = await tenant.load()
    city = next(link for link in report.links if link.link == "city")
    assert (city.dangling_rows, city.dangling_values, city.stubs) == (5, 5, 5)


async def test_what_only_the_database_refuses_is_named(create_tenant, login) -> None:
    tenant = await create_tenant()
    person = tenant.ontology.object_types["person"]
    async with login("migrate").system() as session:
        await session.execute(
            f"alter table {tenant.ontology.schema}.{person.table} add constraint p_odd check ({person.properties['number'].column} <> 3)"
        )
    tenant.write("1,Ada,,,,,,,,,,", "3,Cy,,,,,,,,,,")
    with pytest.raises(Invalid) as caught:
        await tenant.load()
    assert caught.value.code == "rows_refused"
    assert "p_odd" in caught.value.message


async def test_a_target_removed_meanwhile_stops_the_load(create_tenant, monkeypatch) -> None:
    tenant = await create_tenant("reject")
    tenant.write("BER,Berlin", header="code,name", name="cities.csv")
    await tenant.load("mapping: 1\nloads: {cities: {object_type: city, file: cities.csv, properties: {code: code, name: name}}}")
    tenant.write("1,Ada,BER,,,,,,,,,")
    city = tenant.ontology.object_types["city"]

    async def removed(*args: object) -> None:
        async with tenant.api.tenant(tenant.principals.context("editor").identity) as session:
            await session.execute(f"delete from {tenant.ontology.schema}.{city.table}")

    monkeypatch.setattr("tenon.ontology.ingestion.batch_writer.BatchWriter.write_stubs", removed)
    with pytest.raises(Conflict) as caught:
        await tenant.load()
    assert caught.value.code == "link_target_vanished"
    assert await tenant.rows("person", "number") == []


async def test_links_within_the_file_and_missing_values_are_counted(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write("1,Ada,,Acme,2,,,,,,,", "2,Bob,,,9,,,,,,,", "3,Cy,,,,,,,,,,")
    report = await tenant.load()
    counts = {link.link: (link.dangling_rows, link.dangling_values, link.null_rows) for link in report.links}
    assert counts == {"city": (0, 0, 3), "employer": (1, 1, 2), "manager": (1, 1, 1)}


async def test_repeating_touches_only_what_changed(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write("1,Ada,,,,,,,,,,", "2,Bob,,,,,,,,,,")
    assert (await tenant.load()).inserted == 2
    assert (await tenant.load()).skipped, "the same file by the same mapping"
    again = await tenant.load(again=True)
    assert (again.inserted, again.updated, again.unchanged) == (0, 0, 2)
    person = tenant.ontology.object_types["person"]
    async with tenant.api.tenant(tenant.principals.context("editor").identity) as session:
        state = person.properties["state"].column
        await session.execute(f"update {tenant.ontology.schema}.{person.table} set {state} = 'old', version = version + 1")
    tenant.write("1,Ada,,,,,,,,,,", "2,Bea,,,,,,,,,,", "3,Cy,,,,,,,,,,")
    third = await tenant.load()
    assert (third.inserted, third.updated, third.unchanged) == (1, 1, 1)
    assert await tenant.rows("person", "name", "version", "state") == [("Ada", 2, "old"), ("Bea", 3, "old"), ("Cy", 1, "new")]


async def test_an_interrupted_load_continues_to_the_same_result(create_tenant, monkeypatch) -> None:
    tenant = await create_tenant()
    monkeypatch.setattr("tenon.ontology.ingestion.batch_writer.ROWS_MIN", 10)
    monkeypatch.setattr("tenon.ontology.ingestion.batch_writer.ROWS_MAX", 10)
    monkeypatch.setattr("tenon.ontology.ingestion.batch_writer.ROWS_FIRST", 10)
    tenant.write(*(f"{n if n % 7 else 'x'},P{n},,,,,,,,,," for n in range(1, 101)))
    running: list[asyncio.Task] = []

    def stop_after_three_batches(step) -> None:
        if step.phase == "write" and step.done >= 30:
            running[0].cancel()

    running.append(asyncio.create_task(tenant.load(on_progress=stop_after_three_batches)))
    with pytest.raises(asyncio.CancelledError):
        await running[0]
    before = len(await tenant.rows("person", "number"))
    assert 30 <= before < 86
    assert list(tenant.folders.work.iterdir()) == [], "nothing is left behind"
    report = await tenant.load()
    assert report.resumed_after == before
    assert (report.source_rows, report.inserted, report.rejected) == (100, 86, 14)
    assert len(await tenant.rows("person", "number")) == 86
    assert (await tenant.load()).skipped


async def test_interrupted_anywhere_it_ends_cleanly(create_tenant) -> None:
    """Ctrl-C while reading, checking or writing: nothing is in use any more, and the next run completes the load."""
    tenant = await create_tenant()
    tenant.write(*(f"{n},P{n},,,,,,,,,," for n in range(20_000)))
    for delay in (0.02, 0.1, 0.2, 0.3, 0.45, 0.6):
        running = asyncio.create_task(tenant.load())
        await asyncio.sleep(delay)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled() or running.result().accepted == 20_000
        assert not tenant.folders.work.exists() or list(tenant.folders.work.iterdir()) == []
    report = await tenant.load()
    assert report.skipped or report.inserted == 20_000
    assert len(await tenant.rows("person", "number")) == 20_000


@pytest.mark.parametrize("copies", [1, 2, 3])
async def test_a_load_cancelled_as_a_copy_starts_is_cancelled_and_completes_later(
    create_tenant, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load's COPYs: keys into a stage, dangling keys out of it, a batch of rows into a stage."""
    tenant = await create_tenant()
    tenant.write(*(f"{n},P{n},,,,,,,,,," for n in range(100)))
    original = psycopg.AsyncConnection.wait
    started = 0

    async def wait(connection: psycopg.AsyncConnection[Any], generator: Any, *arguments: Any) -> Any:
        nonlocal started
        result = await original(connection, generator, *arguments)
        started += generator.__name__ == "_start_copy_gen"
        if generator.__name__ == "_start_copy_gen" and started == copies:
            raise asyncio.CancelledError
        return result

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncConnection, "wait", wait)
        with pytest.raises(asyncio.CancelledError):
            await tenant.load()
    assert started == copies
    assert (await tenant.load()).inserted == 100


async def test_another_file_is_another_load(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write("1,Ada,,,,,,,,,,")
    first = await tenant.load()
    tenant.write("1,Ada,,,,,,,,,,", "2,Bob,,,,,,,,,,")
    second = await tenant.load()
    assert second.ingestion != first.ingestion
    assert (second.inserted, second.unchanged, second.resumed_after) == (1, 1, 0)


async def test_one_load_of_a_mapping_at_a_time(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write(*(f"{n},P,,,,,,,,,," for n in range(3_000)))
    results = await asyncio.gather(tenant.load(), tenant.load(), return_exceptions=True)
    refused = [item for item in results if isinstance(item, Conflict)]
    assert [item.code for item in refused] == ["load_running"]
    assert len(await tenant.rows("person", "number")) == 3_000


async def test_packed_files(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write("1,Ada,,,,,,,,,,")
    plain = tenant.folders.data / "people.csv"
    (tenant.folders.data / "people.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with zipfile.ZipFile(tenant.folders.data / "people.zip", "w") as archive:
        archive.write(plain, "inner/people.csv")
    assert (await tenant.load(MAPPING.replace("people.csv", "people.csv.gz"))).inserted == 1
    assert (await tenant.load(MAPPING.replace("people.csv", "people.zip"))).skipped is False


async def test_a_missing_file(create_tenant) -> None:
    tenant = await create_tenant()
    with pytest.raises(NotFound) as refusal:
        await tenant.load()
    assert refusal.value.code == "source_not_found"


async def test_a_header_without_a_mapped_column(create_tenant) -> None:
    tenant = await create_tenant()
    (tenant.folders.data / "people.csv").write_text("number,name\n1,Ada\n")
    with pytest.raises(Invalid) as refusal:
        await tenant.load()
    assert refusal.value.code == "source_unreadable"
    assert "active" in refusal.value.message


async def test_a_viewer_may_not_load(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write("1,Ada,,,,,,,,,,")
    with pytest.raises(Forbidden):
        await ingestion.load_all(tenant.ingest, tenant.principals.context("viewer"), MAPPING, tenant.folders)


async def test_a_load_is_audited_and_published(create_tenant) -> None:
    tenant = await create_tenant()
    tenant.write("1,Ada,,,,,,,,,,")
    report = await tenant.load()
    async with tenant.api.tenant(tenant.principals.context("operator").identity) as session:
        entries = await session.rows("select resource_id from tenon.audit_entry where action = 'ingestion.load'")
        history = await session.rows(f"select 1 from {tenant.ontology.schema}.{tenant.ontology.object_types['person'].table}_history")
    async with tenant.api.tenant(tenant.principals.context("operator").identity) as session:
        published = await session.rows(
            "select data from tenon.outbox where subject = :subject", {"subject": f"ingestion/{report.ingestion}"}
        )
    assert [row["resource_id"] for row in entries] == ["person"]
    assert [row["data"]["inserted"] for row in published] == [1]
    assert history == [], "inserts have no before-image"
