"""Groups and figures as SQL: one inner select that groups raw columns, one outer that renders them."""

from __future__ import annotations

from tenon.ontology.objects.contracts import (
    Aggregation,
    Bucket,
    ConstantField,
    CountPart,
    GroupKey,
    GroupsPart,
    KeyPart,
    Measure,
    Measured,
    MeasurePart,
    MorePart,
)
from tenon.ontology.objects.sql import values
from tenon.ontology.objects.sql.conditions import column, condition_sql
from tenon.ontology.objects.sql.naming import Names, literal, output_name
from tenon.ontology.objects.sql.plans import Parameters
from tenon.ontology.schema.contracts import Property, PropertyType

# Digits that an average of decimals has beyond its property's own.
AVERAGE_DIGITS = 6


def aggregation_sql(query: Aggregation, names: Names, parameters: Parameters) -> str:
    """A scalar subquery with the aggregation's JSON."""
    grouped = _Grouped(query, names.alias("t"))
    figures = names.alias("g")
    parts = [_part(part, query, grouped, figures) for part in query.parts]
    inner = grouped.select(names, parameters)
    numbered = f"select {figures}.*, row_number() over () as n from ({inner}) {figures}"
    return f"(select json_build_object({', '.join(parts)}) from ({numbered}) {figures})"


class _Grouped:
    """The grouping select; keys and figures get the names k1, k2, … and m1, m2, … in the order they are asked for."""

    def __init__(self, query: Aggregation, row: str) -> None:
        self.query = query
        self.row = row
        self.keys = {key: f"k{at}" for at, key in enumerate(query.group_by, 1)}
        self.figures: dict[Measured, str] = {}
        for what, _ in query.sort:
            if isinstance(what, Measured):
                self.figure(what)

    def figure(self, measured: Measured) -> str:
        """The name of a figure's column."""
        return self.figures.setdefault(measured, f"m{len(self.figures) + 1}")

    def select(self, names: Names, parameters: Parameters) -> str:
        """The select; call it when all figures are known."""
        query, row = self.query, self.row
        columns = [f"{_key_sql(key, row)} as {name}" for key, name in self.keys.items()]
        columns += [f"{_figure_sql(measured, row)} as {name}" for measured, name in self.figures.items()]
        sql = f"select {', '.join(columns) or 'count(*) as m0'} from {names.table(query.type)} {row}"
        if query.condition is not None:
            sql += f" where {condition_sql(query.condition, row, parameters)}"
        if self.keys:
            sql += f" group by {', '.join(str(at) for at in range(1, len(self.keys) + 1))}"
        return f"{sql}{self._order()} limit {query.first + 1}"

    def _order(self) -> str:
        terms = []
        for what, descending in self.query.sort:
            name = self.keys[what] if isinstance(what, GroupKey) else self.figures[what]
            terms.append(f"{name} desc nulls last" if descending else name)
        terms += [name for key, name in self.keys.items() if all(key != what for what, _ in self.query.sort)]
        return f" order by {', '.join(terms)}" if terms else ""


def _key_sql(key: GroupKey, row: str) -> str:
    name = column(row, key.property)
    return f"date_trunc('{key.bucket.value}', {name}, 'UTC')" if isinstance(key.bucket, Bucket) else name


def _figure_sql(measured: Measured, row: str) -> str:
    if measured.property is None:
        return "count(*)"
    return f"{measured.measure.value}({column(row, measured.property)})"


def _part(part: GroupsPart | MorePart | ConstantField, query: Aggregation, grouped: _Grouped, figures: str) -> str:
    match part:
        case GroupsPart(output, inner):
            columns = [f"{_group_part(each, grouped, figures)} as {output_name(each.output)}" for each in inner]
            group = f"(select row_to_json(r) from (select {', '.join(columns)}) r)"
            within = f"filter (where {figures}.n <= {query.first})"
            return f"{literal(output)}, coalesce(json_agg({group} order by {figures}.n) {within}, '[]'::json)"
        case MorePart(output):
            return f"{literal(output)}, count(*) > {query.first}"
        case ConstantField(output, text):
            return f"{literal(output)}, {literal(text)}"


def _group_part(part: KeyPart | CountPart | MeasurePart | ConstantField, grouped: _Grouped, figures: str) -> str:
    match part:
        case ConstantField(_, text):
            return literal(text)
        case CountPart():
            return f"{figures}.{grouped.figure(Measured(Measure.COUNT))}"
        case KeyPart(_, fields):
            columns = [_key_field(each, grouped, figures) for each in fields]
        case MeasurePart(_, measure, measured):
            columns = [_figure_field(each, measure, grouped, figures) for each in measured]
    return f"(select row_to_json(r) from (select {', '.join(columns)}) r)" if columns else "'{}'::json"


def _key_field(each: tuple[str, GroupKey] | ConstantField, grouped: _Grouped, figures: str) -> str:
    if isinstance(each, ConstantField):
        return f"{literal(each.text)} as {output_name(each.output)}"
    output, key = each
    return f"{values.render(key.property, f'{figures}.{grouped.keys[key]}')} as {output_name(output)}"


def _figure_field(each: tuple[str, Property] | ConstantField, measure: Measure, grouped: _Grouped, figures: str) -> str:
    if isinstance(each, ConstantField):
        return f"{literal(each.text)} as {output_name(each.output)}"
    output, item = each
    return f"{_render(measure, item, f'{figures}.{grouped.figure(Measured(measure, item))}')} as {output_name(output)}"


def _render(measure: Measure, item: Property, name: str) -> str:
    """A figure exactly: sums of integers as numbers with all digits, of decimals as strings; averages of integers as floats."""
    if measure is not Measure.AVG:
        return values.render(item, name)
    match item.type:
        case PropertyType.DECIMAL:
            return f"round({name} * 1e-{item.scale}, {item.scale + AVERAGE_DIGITS})::text"
        case PropertyType.INTEGER:
            return f"({name})::float8"
        case _:
            return name
