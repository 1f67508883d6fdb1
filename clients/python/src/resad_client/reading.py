"""JSON -> frozen records, by the records' own annotations; and back.

What a record has no field for is passed over, so that a newer server is understood.  A field without a default
must be there and of its type: half an answer is none.
"""

import dataclasses
import json
import math
from types import NoneType, UnionType
from typing import Any, Final, NoReturn, TypeVar, cast, get_args, get_origin

from resad_client.errors import ProtocolError
from resad_client.models import Result

Record = TypeVar("Record")

_NAMES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    NoneType: "null",
}


def from_json(kind: type[Record], text: str | bytes) -> Record:
    """`text` as a record of `kind`, one of `resad_client.models`; else `ProtocolError`, naming the field."""
    return from_value(kind, parsed(text))


def from_value(kind: type[Record], value: object, where: str = "") -> Record:
    """As `from_json`, from JSON that is parsed already; `where` it stood is named in errors: `results[3]`."""
    return cast(Record, _record(kind, value, where))


def to_json(record: object) -> str:
    """A record as indented JSON, in the order of its fields; `from_json` gives back an equal one."""
    return json.dumps(dataclasses.asdict(cast(Any, record)), indent=2, ensure_ascii=False, allow_nan=False)


def compact_json(record: object) -> str:
    """A record as JSON on one line."""
    return json.dumps(dataclasses.asdict(cast(Any, record)), ensure_ascii=False, allow_nan=False)


def read_result(text: str | bytes) -> Result:
    """A result; raises as `from_json`."""
    return from_json(Result, text)


def parsed(text: str | bytes) -> object:
    """JSON as Python has it; `ProtocolError` if it is none, or holds NaN or Infinity."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the answer is not JSON ({len(text)} long)") from error


def items(value: object, name: str) -> list[object]:
    """The array that the object `value` has at `name`; `ProtocolError` if it has none."""
    member = value.get(name) if isinstance(value, dict) else None
    if not isinstance(member, list):
        raise ProtocolError(f"the answer has no array {name}")
    return member


def _record(kind: Any, value: object, where: str) -> object:
    if not isinstance(value, dict):
        _refuse(value, dict, where)
    given = {}
    for field in dataclasses.fields(kind):
        place = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            given[field.name] = _read(field.type, value[field.name], place)
        elif field.default is dataclasses.MISSING:
            raise ProtocolError(f"the answer has no {place}")
    return kind(**given)


def _read(kind: Any, value: object, where: str) -> object:
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    if isinstance(kind, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
        return _read(kind, value, where)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, where)
    return _plain(kind, value, where)


def _tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        _refuse(value, list, where)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ProtocolError(f"the answer's {where} has {len(value)} items, not {len(kinds)}")
    return tuple(
        _read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _plain(kind: type, value: object, where: str) -> object:
    """`value` if it is exactly of `kind`; an integer is a number too, a boolean is neither."""
    if kind is float and type(value) in (int, float):
        try:
            number = float(cast(float, value))
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ProtocolError(f"the answer's {where} is beyond any number's range")
        return number
    if type(value) is not kind:
        _refuse(value, kind, where)
    return value


def _refuse(value: object, kind: type, where: str) -> NoReturn:
    place = f"the answer's {where}" if where else "the answer"
    raise ProtocolError(f"{place} is {_NAMES[type(value)]}, not {_NAMES[kind]}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
