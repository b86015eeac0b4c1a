"""A valid GraphQL operation as the query's types. Our own walk: graphql-core's executor never sees object reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphql import (
    BooleanValueNode,
    DirectiveNode,
    EnumValueNode,
    FieldNode,
    FloatValueNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableNode,
)

from tenon.kit.errors import ErrorCode, TenonError
from tenon.ontology.objects import limits
from tenon.ontology.objects.contracts import (
    Aggregation,
    ConstantField,
    CountPart,
    Field,
    GroupKey,
    GroupsPart,
    ItemsPart,
    KeyPart,
    ManyField,
    Measure,
    MeasurePart,
    MorePart,
    NextPart,
    One,
    OneField,
    Page,
    PropertyField,
    Root,
    Selection,
    SystemField,
    Value,
)
from tenon.ontology.objects.errors import bad_request, limit_exceeded
from tenon.ontology.objects.graphql_language.documents import Document
from tenon.ontology.objects.graphql_language.schema import RootField
from tenon.ontology.objects.requests.arguments import (
    Argument,
    ReadAllowance,
    argument_of,
    check_depth,
    condition,
    group_count,
    page_size,
    sort_keys,
)
from tenon.ontology.objects.requests.queries import group_keys, group_sort, key_values, measurable, with_cursor
from tenon.ontology.objects.visibility import View, VisibleType
from tenon.ontology.schema.contracts import LinkType, Property


class FieldRefused(Exception):
    """A refusal and the answer's field it belongs to."""

    def __init__(self, path: tuple[str, ...], error: TenonError) -> None:
        super().__init__(error.message)
        self.path = path
        self.error = error


def read_operation(view: View, document: Document, variables: Mapping[str, Any]) -> tuple[Root, ...]:
    """The operation's root fields as queries. Raises FieldRefused."""
    return _Reader(view, document, variables).roots()


Fields = dict[str, list[FieldNode]]


class _Reader:
    """Walks one operation. `_path` is where in the answer it is."""

    def __init__(self, view: View, document: Document, variables: Mapping[str, Any]) -> None:
        self._view = view
        self._document = document
        self._variables = variables
        self._defaults = {node.variable.name.value: node.default_value for node in document.operation.variable_definitions or ()}
        self._allowance = ReadAllowance()
        self._path: list[str] = []

    def roots(self) -> tuple[Root, ...]:
        try:
            outputs = self._collect([self._document.operation.selection_set])
            if len(outputs) > limits.ROOTS_MAX:
                raise limit_exceeded(ErrorCode.TOO_MANY_ROOTS, f"A query has at most {limits.ROOTS_MAX} root fields.", "query")
            return tuple(self._within(output, nodes, self._root) for output, nodes in outputs.items())
        except TenonError as error:
            raise FieldRefused(tuple(self._path), error) from None

    def _within(self, output: str, nodes: list[FieldNode], read: Any, *more: Any) -> Any:
        """Read a field with its name on the path; the name stays there when it is refused."""
        self._path.append(output)
        self._allowance.take_fields(1, output)
        part = read(output, nodes, *more)
        self._path.pop()
        return part

    # -- fields -----------------------------------------------------------------------------------------------------------------------

    def _root(self, output: str, nodes: list[FieldNode]) -> Root:
        name = nodes[0].name.value
        if name == "__typename":
            return Root(output, ConstantField(output, "Query"))
        root: RootField = self._document.api.roots[name]
        match root.kind:
            case "one":
                return Root(output, self._one(root.type, nodes))
            case "page":
                return Root(output, self._page(root.type, nodes, rows=1, depth=1))
            case _:
                return Root(output, self._groups(root.type, nodes))

    def _one(self, object_type: VisibleType, nodes: list[FieldNode]) -> One:
        arguments = self._arguments(nodes[0])
        by_id, by_key = arguments.get("id"), arguments.get("key")
        if (by_id is None) == (by_key is None):
            raise bad_request(object_type.name, "Give either `id` or `key`.")
        self._allowance.take_objects(1, object_type.name)
        selection = self._selection(object_type, nodes, rows=1, depth=1)
        if by_id is not None:
            return One(selection, ((None, by_id.value),))
        assert by_key is not None
        parts: Mapping[str, Argument] = by_key.raw
        checked = key_values(object_type, {name: part.raw for name, part in parts.items()})
        return One(selection, tuple((item, parts[item.name].value) for item, _ in checked if item is not None))

    def _selection(self, object_type: VisibleType, nodes: list[FieldNode], *, rows: int, depth: int) -> Selection:
        check_depth(depth, self._path[-1])
        outputs = self._collect(node.selection_set for node in nodes)
        fields = [self._within(output, inner, self._field, object_type, rows, depth) for output, inner in outputs.items()]
        return Selection(object_type.type, tuple(fields))

    def _field(self, output: str, nodes: list[FieldNode], object_type: VisibleType, rows: int, depth: int) -> Field:
        name = nodes[0].name.value
        if name == "__typename":
            return ConstantField(output, self._document.api.type_names[object_type.name])
        if name in ("id", "version"):
            return SystemField(output, "id" if name == "id" else "version")
        if name in object_type.properties:
            return PropertyField(output, object_type.properties[name])
        link = object_type.link(name)
        if name in object_type.ones:
            self._allowance.take_objects(rows, name)
            return OneField(output, link, self._selection(self._view.types[link.target], nodes, rows=rows, depth=depth + 1))
        return self._many(output, nodes, link, rows, depth)

    def _many(self, output: str, nodes: list[FieldNode], link: LinkType, rows: int, depth: int) -> ManyField:
        return ManyField(output, link, self._page(self._view.types[link.source], nodes, rows=rows, depth=depth + 1))

    # -- pages ------------------------------------------------------------------------------------------------------------------------

    def _page(self, object_type: VisibleType, nodes: list[FieldNode], *, rows: int, depth: int) -> Page:
        """A page under `rows` objects; depth 1 is a root's."""
        arguments = self._arguments(nodes[0])
        size = page_size(_raw(arguments.get("first")), "first", nested=depth > 1)
        self._allowance.take_objects(rows * size, "first")
        outputs = self._collect(node.selection_set for node in nodes)
        parts = tuple(self._within(output, inner, self._page_part, object_type, rows * size, depth) for output, inner in outputs.items())
        if sum(isinstance(part, ItemsPart) for part in parts) > 1:
            raise bad_request("items", "Ask for `items` once in a page.")
        filter_, after = arguments.get("filter"), arguments.get("after")
        page = Page(
            object_type.type, parts, size, sort_keys(object_type, _texts(arguments.get("sort"))),
            None if filter_ is None else condition(object_type, filter_, self._allowance),
        )  # fmt: skip
        return page if after is None else with_cursor(page, after.raw, Value(after.raw, "after", after.path))

    def _page_part(
        self, output: str, nodes: list[FieldNode], object_type: VisibleType, rows: int, depth: int
    ) -> ItemsPart | NextPart | ConstantField:
        match nodes[0].name.value:
            case "items":
                return ItemsPart(output, self._selection(object_type, nodes, rows=rows, depth=depth))
            case "next":
                return NextPart(output)
            case _:
                return ConstantField(output, f"{self._document.api.type_names[object_type.name]}_Page")

    # -- groups -----------------------------------------------------------------------------------------------------------------------

    def _groups(self, object_type: VisibleType, nodes: list[FieldNode]) -> Aggregation:
        arguments = self._arguments(nodes[0])
        keys = group_keys(object_type, [self._group_value(object_type, name) for name in _texts(arguments.get("group_by"))])
        outputs = self._collect(node.selection_set for node in nodes)
        parts = tuple(self._within(output, inner, self._groups_part, object_type, keys) for output, inner in outputs.items())
        filter_ = arguments.get("filter")
        return Aggregation(
            object_type.type,
            keys,
            parts,
            group_count(_raw(arguments.get("first")), "first"),
            group_sort(object_type, keys, _texts(arguments.get("sort"))),
            None if filter_ is None else condition(object_type, filter_, self._allowance),
        )

    def _group_value(self, object_type: VisibleType, name: str) -> str:
        """`scheduled_departure_DAY` -> `scheduled_departure:day`."""
        bare, _, last = name.rpartition("_")
        return f"{bare}:{last.lower()}" if last.isupper() else name

    def _groups_part(
        self, output: str, nodes: list[FieldNode], object_type: VisibleType, keys: tuple[GroupKey, ...]
    ) -> GroupsPart | MorePart | ConstantField:
        match nodes[0].name.value:
            case "groups":
                outputs = self._collect(node.selection_set for node in nodes)
                return GroupsPart(
                    output,
                    tuple(self._within(name, inner, self._group_part, object_type, keys) for name, inner in outputs.items()),
                )
            case "more":
                return MorePart(output)
            case _:
                return ConstantField(output, f"{self._document.api.type_names[object_type.name]}_Groups")

    def _group_part(
        self, output: str, nodes: list[FieldNode], object_type: VisibleType, keys: tuple[GroupKey, ...]
    ) -> KeyPart | CountPart | MeasurePart | ConstantField:
        name, prefix = nodes[0].name.value, self._document.api.type_names[object_type.name]
        if name == "count":
            return CountPart(output)
        if name == "__typename":
            return ConstantField(output, f"{prefix}_Group")
        outputs = self._collect(node.selection_set for node in nodes)
        self._allowance.take_fields(len(outputs), name)
        if name == "key":
            grouped = {key.property.name: key for key in keys}
            return KeyPart(output, tuple(_key_field(each, inner[0].name.value, grouped, prefix) for each, inner in outputs.items()))
        measure = Measure(name)
        typename = f"{prefix}_{measure.value.capitalize()}"
        return MeasurePart(
            output,
            measure,
            tuple(_figure_field(each, inner[0].name.value, object_type, measure, typename) for each, inner in outputs.items()),
        )

    # -- selections and arguments -----------------------------------------------------------------------------------------------------

    def _collect(self, sets: Iterable[SelectionSetNode | None]) -> Fields:
        """Fields by their key in the answer, fragments spread, @skip and @include decided. Types need no check: there are no interfaces."""
        outputs: Fields = {}
        seen: set[str] = set()
        for selection_set in sets:
            if selection_set is not None:
                self._collect_into(outputs, selection_set, seen)
        return outputs

    def _collect_into(self, outputs: Fields, selection_set: SelectionSetNode, seen: set[str]) -> None:
        for node in selection_set.selections:
            if not self._is_included(node.directives):
                continue
            if isinstance(node, FieldNode):
                outputs.setdefault((node.alias or node.name).value, []).append(node)
            elif isinstance(node, InlineFragmentNode):
                self._collect_into(outputs, node.selection_set, seen)
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in seen:
                seen.add(node.name.value)
                self._collect_into(outputs, self._document.fragments[node.name.value].selection_set, seen)

    def _is_included(self, directives: tuple[DirectiveNode, ...] | None) -> bool:
        for directive in directives or ():
            if directive.name.value in ("skip", "include"):
                condition_ = self._argument((directive.arguments or ())[0].value, "if")
                if bool(_raw(condition_)) == (directive.name.value == "skip"):
                    return False
        return True

    def _arguments(self, node: FieldNode) -> dict[str, Argument]:
        """The arguments that are present and are not null."""
        arguments = {}
        for argument in node.arguments or ():
            value = self._argument(argument.value, argument.name.value)
            if value is not None and value.raw is not None:
                arguments[argument.name.value] = value
        return arguments

    def _argument(self, node: ValueNode, where: str) -> Argument | None:
        """A literal with the variables in it; None for a variable that was left out."""
        match node:
            case VariableNode():
                return self._variable(node.name.value, where)
            case ObjectValueNode():
                parts = {field.name.value: self._argument(field.value, f"{where}.{field.name.value}") for field in node.fields or ()}
                return Argument({name: part for name, part in parts.items() if part is not None}, where)
            case ListValueNode():
                items = [self._argument(item, f"{where}[{at}]") for at, item in enumerate(node.values or ())]
                whole = all(item is not None and item.path is None and not isinstance(item.raw, dict) for item in items)
                return Argument([item.raw if whole and item else item for item in items if item is not None], where)
            case _:
                return Argument(_plain(node, where), where)

    def _variable(self, name: str, where: str) -> Argument | None:
        if name in self._variables:
            return argument_of(self._variables[name], where, (name,))
        default = self._defaults.get(name)
        return None if default is None else self._argument(default, where)


def _plain(node: ValueNode, where: str) -> Any:
    """A literal without variables."""
    match node:
        case IntValueNode(value=text):
            if len(text) > 40:
                raise bad_request(where, "This number has too many digits.")
            return int(text)
        case FloatValueNode(value=text):
            return float(text)
        case StringValueNode() | EnumValueNode() | BooleanValueNode():
            return node.value
        case NullValueNode():
            return None
        case _:
            raise bad_request(where, "This value cannot be read.")


def _raw(argument: Argument | None) -> Any:
    return None if argument is None else argument.raw


def _texts(argument: Argument | None) -> list[str]:
    """A list of enum values or strings; one stands for a list of one."""
    raw = _raw(argument)
    several = raw if isinstance(raw, list) else [] if raw is None else [raw]
    return [_sort_text(str(item.raw if isinstance(item, Argument) else item)) for item in several]


def _sort_text(text: str) -> str:
    """`carrier_DESC` -> `-carrier`, `carrier_ASC` -> `carrier`; property names have no capitals."""
    if text.endswith("_DESC"):
        return f"-{text.removesuffix('_DESC')}"
    return text.removesuffix("_ASC")


def _key_field(output: str, name: str, grouped: Mapping[str, GroupKey], prefix: str) -> tuple[str, GroupKey] | ConstantField:
    if name == "__typename":
        return ConstantField(output, f"{prefix}_GroupKey")
    if name not in grouped:
        raise bad_request(output, f"`{name}` is not in `group_by`.")
    return output, grouped[name]


def _figure_field(
    output: str, name: str, object_type: VisibleType, measure: Measure, typename: str
) -> tuple[str, Property] | ConstantField:
    return ConstantField(output, typename) if name == "__typename" else (output, measurable(object_type, measure, name, output))
