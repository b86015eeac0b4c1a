"""A tenant with a small ontology to load into: cities, employers, and the people who live and work there."""

from __future__ import annotations

import csv
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tenon.kit.database import Database
from tenon.ontology import ingestion
from tenon.ontology.ingestion import Report
from tenon.ontology.schema import Ontology

ONTOLOGY = """
ontology: 1
markings: [secret]
object_types:
  city:
    plural: cities
    primary_key: code
    properties:
      code: {type: text, pattern: "[A-Z]{3}", length_max: 3}
      name: {type: text, length_max: 40}
  employer:
    primary_key: name
    properties:
      name: {type: text, length_max: 40}
  person:
    primary_key: number
    properties:
      number: {type: integer, minimum: 0}
      name: {type: text, required: true, length_max: 10}
      home: {type: text, length_max: 3}
      employed_by: {type: text, length_max: 40}
      boss: {type: integer}
      born: {type: date}
      seen: {type: timestamp}
      salary: {type: decimal, scale: 2, maximum: 1000000}
      ratio: {type: float}
      active: {type: boolean}
      level: {type: enum, enum: [low, high]}
      tag: {type: uuid, markings: [secret]}
      state: {type: enum, enum: [new, old]}
links:
  person.city: {target: city, via: {home: code}, inverse: residents, dangling: DANGLING}
  person.employer: {target: employer, via: {employed_by: name}, inverse: staff, dangling: keep}
  person.manager: {target: person, via: {boss: number}, inverse: reports, dangling: keep}
"""
MAPPING = """
mapping: 1
loads:
  people:
    object_type: person
    file: people.csv
    nulls: ["", NA]
    record_lines_max: 3
    properties:
      number: number
      name: name
      home: home
      employed_by: employer
      boss: boss
      born: {column: born, format: "%d.%m.%Y"}
      seen: seen
      salary: salary
      ratio: ratio
      active: active
      level: level
      tag: tag
      state: {constant: new, initial: true}
"""
HEADER = "number,name,home,employer,boss,born,seen,salary,ratio,active,level,tag"


@dataclass
class LoadTenant:
    """One tenant with the small ontology, and a way to load text into it."""

    principals: Any
    ontology: Ontology
    ingest: Database
    api: Database
    folders: ingestion.LoadFolders

    def write(self, *lines: str, header: str = HEADER, name: str = "people.csv", end: str = "\n") -> None:
        (self.folders.data / name).write_bytes((end.join((header, *lines)) + end).encode())

    async def load(self, mapping: str = MAPPING, **how: Any) -> Report:
        """Run the mapping's only load."""
        ctx = self.principals.context("operator")
        return (await ingestion.load_all(self.ingest, ctx, mapping, self.folders, **how))[0]

    async def rows(self, type_name: str, *names: str) -> list[tuple[Any, ...]]:
        """Values of some properties (or `id`, `version`), in key order."""
        object_type = self.ontology.object_types[type_name]
        columns = [name if name in ("id", "version") else object_type.properties[name].column for name in names]
        order = ", ".join(item.column for item in object_type.key_properties)
        async with self.api.tenant(self.principals.context("viewer").identity) as session:
            rows = await session.rows(f"select {', '.join(columns)} from {self.ontology.schema}.{object_type.table} order by {order}")
        return [tuple(row.values()) for row in rows]

    def rejects(self) -> list[list[str]]:
        """line, column, property, code of the rejects file."""
        with (self.folders.rejects / "people-rejects.csv").open(newline="") as stream:
            return [row[:4] for row in list(csv.reader(stream))[1:]]


CreateTenant = Callable[..., Awaitable[LoadTenant]]
