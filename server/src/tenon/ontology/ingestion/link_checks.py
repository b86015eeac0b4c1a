"""Check the links of a staged file: which values have no target, and what the ontology says to do about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tenon.kit.threads import in_thread
from tenon.ontology.ingestion import repository
from tenon.ontology.ingestion.column_expressions import quoted
from tenon.ontology.ingestion.contracts import LinkCount
from tenon.ontology.ingestion.staging import Stage
from tenon.ontology.ingestion.transactions import LoadTransactions
from tenon.ontology.schema import Dangling, LinkType, ObjectType
from tenon.ontology.schema.object_ids import key_text_sql, object_id_sql

# PostgreSQL quotes an empty text; an unquoted one would be null, and a key has no nulls.
_FROM_POSTGRES = "format csv, header false, auto_detect false, delim ',', quote '\"', allow_quoted_nulls false"


@dataclass(frozen=True, slots=True)
class StagedLink:
    """One link whose properties the load maps."""

    link: LinkType
    target: ObjectType
    table: str  # its dangling values in the stage
    ours: tuple[str, ...]  # physical columns of the source
    theirs: tuple[str, ...]  # physical columns of the target's key

    @property
    def has_value(self) -> str:
        """SQL: no part of the row's value is null."""
        return " and ".join(f"a.{column} is not null" for column in self.ours)

    @property
    def matches(self) -> str:
        """SQL: the row's value is one of the dangling ones."""
        return " and ".join(f"a.{ours} = d.{theirs}" for ours, theirs in zip(self.ours, self.theirs, strict=True))


@dataclass(slots=True)
class CheckedLinks:
    """The links of a stage, checked; `stub_files` are ready for COPY."""

    links: list[StagedLink]
    counts: list[LinkCount] = field(default_factory=list)
    stub_files: list[tuple[StagedLink, Path]] = field(default_factory=list)

    @property
    def required(self) -> list[StagedLink]:
        """Links whose targets must exist when a batch commits."""
        return [item for item in self.links if item.link.dangling is Dangling.REJECT and item.target.name != item.link.source]


def staged_links(stage: Stage) -> list[StagedLink]:
    """The links whose properties the load maps."""
    mapped = {value.item.name: value.item.column for value in stage.values}
    links = []
    for position, link in enumerate(stage.ontology.links_from[stage.object_type.name].values()):
        if all(ours in mapped for ours, _ in link.via):
            target = stage.ontology.object_types[link.target]
            theirs = tuple(target.properties[name].column for _, name in link.via)
            ours = tuple(mapped[name] for name, _ in link.via)
            links.append(StagedLink(link=link, target=target, table=f"dangling_{position}", ours=ours, theirs=theirs))
    return links


async def check(transactions: LoadTransactions, stage: Stage) -> CheckedLinks:
    """Find dangling values, reject rows where the link says so, count, and prepare stubs."""
    checked = CheckedLinks(staged_links(stage))
    # A rejected row may be the target of another row in the same file: repeat until no more rows are rejected.
    while True:
        before = stage.rejected_rows()
        for item in checked.links:
            if item.link.dangling is Dangling.REJECT:
                await _find_dangling(transactions, stage, item)
                await in_thread(_reject, stage, item)
        if stage.rejected_rows() == before:
            break
    for item in checked.links:
        if item.link.dangling is not Dangling.REJECT:
            await _find_dangling(transactions, stage, item)
        checked.counts.append(await in_thread(_count, stage, item))
        if item.link.dangling is Dangling.STUB and checked.counts[-1].dangling_values:
            checked.stub_files.append((item, await in_thread(_export_stubs, stage, item)))
    return checked


async def _find_dangling(transactions: LoadTransactions, stage: Stage, item: StagedLink) -> None:
    """Query PostgreSQL for the values without a target, and drop those whose target is a row of this very file."""
    columns = ", ".join(f"a.{ours} as {theirs}" for ours, theirs in zip(item.ours, item.theirs, strict=True))
    values = await in_thread(stage.export, f"select distinct {columns} from accepted a where {item.has_value}", "link_values")
    missing = stage.folder / "missing.csv"
    async with transactions.with_stage(repository.column_types(item.target, item.theirs), values, isolation="READ COMMITTED") as session:
        await repository.write_missing_targets(session, stage.ontology, item.target, missing)
    await in_thread(_read_dangling, stage, item, missing)


def _read_dangling(stage: Stage, item: StagedLink, missing: Path) -> None:
    # The types are those of the source's columns; an empty file is a table without rows.
    sources = ", ".join(f"{ours} as {theirs}" for ours, theirs in zip(item.ours, item.theirs, strict=True))
    stage.connection.execute(f"create or replace table {item.table} as select {sources} from staged limit 0")
    if missing.stat().st_size:
        stage.connection.execute(f"copy {item.table} from '{missing}' ({_FROM_POSTGRES})")
    if item.target.name == stage.object_type.name:
        own = " and ".join(f"a.{column} = d.{column}" for column in item.theirs)
        stage.connection.execute(f"delete from {item.table} d where exists (select 1 from accepted a where {own})")


def _reject(stage: Stage, item: StagedLink) -> None:
    mapped = {value.item.name: value for value in stage.values}
    names = [ours for ours, _ in item.link.via]
    columns = " ".join(dict.fromkeys(column for name in names for column in mapped[name].columns))
    shown = ", ".join(f"a.{quoted(column)}" for column in item.ours)
    stage.connection.execute(
        f"insert into rejected select a.line, ?, ?, 'no_target', ?, concat_ws(' ', {shown})"
        f" from accepted a join {item.table} d on {item.matches}",
        [columns, ", ".join(names), f"There is no {item.target.name} with this key (link {item.link.name})."],
    )


def _count(stage: Stage, item: StagedLink) -> LinkCount:
    rejecting = item.link.dangling is Dangling.REJECT
    rows = 0 if rejecting else stage.scalar(f"select count(*) from accepted a join {item.table} d on {item.matches}")
    values = 0 if rejecting else stage.scalar(f"select count(*) from {item.table}")
    nulls = stage.scalar(f"select count(*) from accepted a where not ({item.has_value})")
    stubs = int(values) if item.link.dangling is Dangling.STUB else 0
    return LinkCount(link=item.link.name, dangling_rows=int(rows), dangling_values=int(values), null_rows=int(nulls), stubs=stubs)


def _export_stubs(stage: Stage, item: StagedLink) -> Path:
    keys = [key_text_sql(part, part.column) for part in item.target.key_properties]
    identity = object_id_sql(stage.ontology.tenant, item.target, keys)
    return stage.export(f"select {identity} as id, {', '.join(item.theirs)} from {item.table}", f"stubs_{item.link.name}")
