"""CEL, the expression language of preconditions and edit values: typed at compile time, bounded at run time.

The engine is Google's cel-cpp through `cel-expr-python`; nobody else imports it. Records are declared as protobuf messages, so an unknown
property or a wrong type is found when an expression is compiled, not when it runs.

What a source may rely on (a corpus in tests/kit/test_cel.py pins it):
- kinds are text (string), integer (int), float (double), boolean (bool) and timestamp. Other types arrive as one of them:
  decimals as scaled integers, dates as `YYYY-MM-DD` and UUIDs as lower-case text, so that `<` means what it says;
- an optional field is tested with `has(flight.tail_number)`; reading an absent one gives null, and for timestamps an error;
- an optional variable has no static type; test it with `== null`;
- comprehensions share a budget of 10,000 iterations; `.map` may stand twice, because each use can double the size of a text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cel_expr_python import cel
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2
from google.protobuf.message import Message

SOURCE_BYTES_MAX = 2_048
MAP_CALLS_MAX = 2
ITERATIONS_MAX = 10_000  # cel-cpp's own budget, documented here

# Words that CEL keeps for itself: no variable may be called so.
RESERVED_WORDS = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop"}
    | {"package", "namespace", "return", "var", "void", "while"}
)
_STRING = re.compile(r"[bBrR]{0,2}('''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")", re.DOTALL)
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_COMPILE_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_PACKAGE = "tenon"


class Kind(StrEnum):
    """What a value is, to CEL."""

    TEXT = "text"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"


_TYPES: dict[Kind, cel.Type] = {
    Kind.TEXT: cel.Type.STRING,
    Kind.INTEGER: cel.Type.INT,
    Kind.FLOAT: cel.Type.DOUBLE,
    Kind.BOOLEAN: cel.Type.BOOL,
    Kind.TIMESTAMP: cel.Type.TIMESTAMP,
}
_PLAIN_FIELDS = {
    Kind.TEXT: descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    Kind.INTEGER: descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    Kind.FLOAT: descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
    Kind.BOOLEAN: descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
}
# An unset Timestamp field would silently read as 1970, so optional ones travel as Any: absent is an error, never a wrong instant.
_OPTIONAL_FIELDS = {
    Kind.TEXT: ".google.protobuf.StringValue",
    Kind.INTEGER: ".google.protobuf.Int64Value",
    Kind.FLOAT: ".google.protobuf.DoubleValue",
    Kind.BOOLEAN: ".google.protobuf.BoolValue",
    Kind.TIMESTAMP: ".google.protobuf.Any",
}


class ExpressionInvalid(ValueError):
    """A source that does not compile, or has another type than its place needs."""


class ExpressionFailed(ValueError):
    """An evaluation that has no value: division by zero, null in arithmetic, overflow, budget."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record, or a plain variable."""

    kind: Kind
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A structured type: its fields by name."""

    name: str
    fields: Mapping[str, Field]


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable: a plain field, or (the name of) a record; `many` makes it a list."""

    of: Field | str
    many: bool = False


class Environment:
    """Declared records and variables; compiles sources against them."""

    def __init__(self, records: Mapping[str, Record], variables: Mapping[str, Variable]) -> None:
        for name in variables:
            if not _WORD.fullmatch(name) or name in RESERVED_WORDS:
                raise ExpressionInvalid(f"`{name}` cannot be a name in an expression.")
        self._records = records
        self._variables = dict(variables)
        self._pool = _pool(records)
        self._messages: dict[str, type[Message]] = {
            name: message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in records
        }
        declared = {name: _declared(variable) for name, variable in variables.items()}
        self._environment = cel.NewEnv(descriptor_pool=self._pool, variables=declared)

    def compile(self, source: str, *, expects: Kind | None = None, optional: bool = False) -> Expression:
        """The compiled source. Raises ExpressionInvalid with a sentence; a source without a static type passes and is checked each time."""
        _check_source(source)
        try:
            program = self._environment.compile(source)
        except RuntimeError as error:
            raise ExpressionInvalid(_compile_message(str(error))) from None
        result_type = program.return_type()
        dynamic = result_type == cel.Type.DYN or result_type == cel.Type.ERROR
        if expects is not None and not dynamic and result_type != _TYPES[expects] and not (optional and result_type == cel.Type.NULL):
            raise ExpressionInvalid(f"It gives {_described(result_type)}; here {_described(_TYPES[expects])} is needed.")
        words = set(_WORD.findall(_STRING.sub("''", source)))
        return Expression(program, frozenset(words & self._variables.keys()), expects, optional)

    def record(self, name: str, values: Mapping[str, Any]) -> Message:
        """A record's value from plain ones; fields that are None or missing are absent."""
        message = self._messages[name]()
        for field_name, field in self._records[name].fields.items():
            value = values.get(field_name)
            if value is not None:
                _fill(message, field_name, field, value)
        return message


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled source. `variables` are those it reads; only they are handed to the engine."""

    program: cel.Expression
    variables: frozenset[str]
    expects: Kind | None
    optional: bool

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value as text, int, float, bool, aware datetime or None. Raises ExpressionFailed with a sentence."""
        try:
            result = self.program.eval(data={name: _engine_value(values[name]) for name in self.variables})
        except RuntimeError as error:
            raise ExpressionFailed(_failure(str(error))) from None
        result_type = result.type()
        if result_type == cel.Type.ERROR:
            raise ExpressionFailed(_failure(str(result.value())))
        if result_type == cel.Type.NULL:
            if self.optional or self.expects is None:
                return None
            raise ExpressionFailed("it gives null where a value is needed")
        if self.expects is not None and result_type != _TYPES[self.expects]:
            raise ExpressionFailed(f"it gives {_described(result_type)} where {_described(_TYPES[self.expects])} is needed")
        value = result.value()
        if not isinstance(value, str | int | float | datetime):
            raise ExpressionFailed(f"it gives {_described(result_type)}, which is not a plain value")
        if isinstance(value, float) and not math.isfinite(value):
            raise ExpressionFailed("it gives a number that is not finite")
        return value


def _check_source(source: str) -> None:
    if not source.strip():
        raise ExpressionInvalid("The expression is empty.")
    if len(source.encode()) > SOURCE_BYTES_MAX:
        raise ExpressionInvalid(f"The expression is longer than {SOURCE_BYTES_MAX:,} bytes.")
    if len(re.findall(r"\.\s*map\s*\(", _STRING.sub("''", source))) > MAP_CALLS_MAX:
        raise ExpressionInvalid(f"`.map` may stand at most {MAP_CALLS_MAX} times in one expression.")


def _pool(records: Mapping[str, Record]) -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="tenon/records.proto", package=_PACKAGE, syntax="proto3")
    for module in (wrappers_pb2, timestamp_pb2, any_pb2):
        known = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(known)
        pool.Add(known)
        file.dependency.append(known.name)
    for record in records.values():
        message = file.message_type.add(name=record.name)
        for number, (name, field) in enumerate(record.fields.items(), 1):
            added = message.field.add(name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
            if field.optional or field.kind is Kind.TIMESTAMP:
                added.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
                added.type_name = _OPTIONAL_FIELDS[field.kind] if field.optional else ".google.protobuf.Timestamp"
            else:
                added.type = _PLAIN_FIELDS[field.kind]
    pool.Add(file)
    return pool


def _declared(variable: Variable) -> cel.Type:
    if isinstance(variable.of, str):
        inner = cel.Type(f"{_PACKAGE}.{variable.of}")
    else:
        inner = cel.Type.DYN if variable.of.optional else _TYPES[variable.of.kind]
    return cel.Type.List(inner) if variable.many else inner


def _fill(message: Message, name: str, field: Field, value: Any) -> None:
    if field.kind is Kind.TIMESTAMP:
        instant = _engine_value(value)
        target = getattr(message, name)
        if field.optional:
            target.Pack(instant)
        else:
            target.MergeFromString(instant.SerializeToString())
            target.SetInParent()
    elif field.optional:
        target = getattr(message, name)
        target.value = value
        target.SetInParent()  # a wrapper that holds the zero value is present too
    else:
        setattr(message, name, value)


def _engine_value(value: Any) -> Any:
    """A variable's value as the engine takes it everywhere: a Python datetime would not do where the static type is unknown."""
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise TypeError("an instant needs a time zone")
    instant = timestamp_pb2.Timestamp()
    instant.FromDatetime(value)
    return instant


def _described(type_: cel.Type) -> str:
    for kind, known in _TYPES.items():
        if known == type_:
            return f"a value of type {kind.value}"
    return "null" if type_ == cel.Type.NULL else f"a value of type {type_.name().lower()}"


def _compile_message(text: str) -> str:
    result_type = _COMPILE_ERROR.search(text)
    if result_type is None:
        return "It is not a CEL expression."
    sentence = result_type[3].replace(" (in container '')", "").replace(f"{_PACKAGE}.", "").rstrip(".")
    where = f" (line {result_type[1]}, column {result_type[2]})" if int(result_type[2]) > 0 else ""
    return f"{sentence[0].upper()}{sentence[1:]}{where}."


def _failure(text: str) -> str:
    """The engine's reason in plain words; its own text may hold values, so nothing else of it is passed on."""
    known = {
        "divide by zero": "it divides by zero",
        "modulus by zero": "it divides by zero",
        "overflow": "a number is too large",
        "out of range": "a number is out of range",
        "Iteration budget exceeded": f"it needs more than {ITERATIONS_MAX:,} iterations",
        "No matching overloads": "it uses a value that is absent or has another type",
        "unable to find descriptor": "it reads a timestamp that is absent; test it with has() first",
        "conversion failed": "a conversion failed",
        "Index error": "it reads past the end of a list",
        "Invalid duration": "a duration is not valid",
    }
    return next((sentence for part, sentence in known.items() if part.lower() in text.lower()), "it has no value")
