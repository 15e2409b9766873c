"""What tells one value from another: arguments of functions, users, and functions themselves.

Keys are made of values, so a value must say all that it is. A session, a request, any object whose
`repr` is an address does not: cached under that, it would answer for another object later. Nor does
an object that keeps something outside its fields: two that differ would share a key.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address
from types import MemberDescriptorType, ModuleType, UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel

from app.cache.keys import digest

_PLAIN = (
    int, float, Decimal, UUID, date, datetime, time, timedelta, IPv4Address, IPv6Address,
)  # fmt: skip
_SIMPLE = frozenset({*_PLAIN, bool, type(None), str, bytes, list, tuple, set, frozenset, dict})
_WITH_IDENTITY = (*_SIMPLE, Mapping)
# What `repr` says all of, and how each is called.
_TEXTS = {
    kind: f"{kind.__module__}.{kind.__qualname__}".encode()
    for kind in (*_PLAIN, bool, type(None), str, bytes)
}
_WHAT_HAS_ONE = (
    "plain values (text, numbers, dates, UUIDs, enums, collections, Pydantic models, dataclasses)"
)


class NoIdentityError(TypeError):
    """A value of which no key can be made."""


def argument_parts(name: str, value: Any) -> list[bytes]:
    """The bytes that tell this argument from any other. Raises NoIdentityError."""
    kind = type(value)
    if kind in _TEXTS:
        return [_TEXTS[kind], repr(value).encode()]
    parts = [f"{kind.__module__}.{kind.__qualname__}".encode()]
    if isinstance(value, Enum):
        return [*parts, value.name.encode()]
    fields: dict[str, Any] | None = None
    if kind not in _SIMPLE:
        fields = fields_of(value)
        if fields is None and not isinstance(value, _WITH_IDENTITY):
            raise NoIdentityError(
                f"{name!r} is a {kind.__qualname__}, which has no stable identity to make a cache "
                f"key of: pass {_WHAT_HAS_ONE} and open sessions or clients inside the function"
            )
        if hidden := state_of(value).keys() - (fields or {}).keys():
            raise NoIdentityError(
                f"{name!r} is a {kind.__qualname__}, which keeps {', '.join(sorted(hidden))} "
                "outside its fields: what is no field is not in the key. Pass the values themselves"
            )
    if isinstance(value, bytes):
        parts.append(value)
    elif isinstance(value, str):
        parts.append(value.encode())
    elif value is None or isinstance(value, _PLAIN):
        parts.append(repr(value).encode())
    elif isinstance(value, list | tuple):
        parts.append(len(value).to_bytes(4))
        for item in value:
            parts += argument_parts(name, item)
    elif isinstance(value, set | frozenset):
        parts += sorted([digest(argument_parts(name, item)).encode() for item in value])
    elif fields is None:
        pairs = [argument_parts(name, key) + argument_parts(name, value[key]) for key in value]
        parts += sorted([digest(pair).encode() for pair in pairs])
    else:
        # What was set can be told from what was left out.
        given = sorted(value.model_fields_set) if isinstance(value, BaseModel) else []
        parts += [b"%d %d" % (len(fields), len(given)), *[field.encode() for field in given]]
        for field in sorted(fields):
            parts += [field.encode(), *argument_parts(name, fields[field])]
    return parts


def function_parts(function: Callable[..., Any], *outer: object) -> Iterator[bytes]:
    """The bytes that tell this function from any other: closures of one factory differ in what
    they close over (as it is at the first call), methods in their object.

    Raises NoIdentityError.
    """
    yield f"{function.__module__}.{function.__qualname__}".encode()
    if inspect.ismethod(function):
        yield from argument_parts("self", function.__self__)
    code = getattr(function, "__code__", None)
    if code is None:
        return
    if "<" in function.__qualname__:  # nested, or a lambda: others may have the same name
        yield str(code.co_firstlineno).encode()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        value = inspect.unwrap(_contents(cell))
        if any(value is known for known in (function, *outer)):
            continue  # it calls itself
        yield name.encode()
        try:
            if inspect.isroutine(value):
                yield from function_parts(value, function, *outer)
            elif isinstance(value, type | ModuleType):
                yield f"{getattr(value, '__module__', '')}.{value.__name__}".encode()
            else:
                yield from argument_parts(name, value)
        except NoIdentityError as error:
            raise NoIdentityError(f"of what it closes over, {error}") from None


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def fields_of(value: Any) -> dict[str, Any] | None:
    """What a model or a dataclass declares that it is; None for anything else."""
    if isinstance(value, BaseModel):
        # Not by iteration, which models of lists have of their own.
        extra = value.__pydantic_extra__ or {}
        return {name: vars(value)[name] for name in type(value).model_fields} | extra
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def fields_in(kind: Any) -> list[str]:
    """What a model or a dataclass declares, by its type; nothing for anything else."""
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return [*kind.model_fields, *kind.model_computed_fields]
    if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return []


def state_of(value: Any) -> dict[str, Any]:
    """All that an object holds: its fields, private attributes, and whatever was set on it."""
    kind: Any = type(value)
    state = {name: getattr(value, name) for name in _slots(kind) if hasattr(value, name)}
    state |= getattr(value, "__dict__", {})
    state |= getattr(value, "__pydantic_extra__", None) or {}
    state |= getattr(value, "__pydantic_private__", None) or {}
    derived = _derived(kind)
    return {name: item for name, item in state.items() if name not in derived}


@lru_cache(maxsize=1024)
def _slots(kind: type) -> tuple[str, ...]:
    return tuple(
        name
        for cls in kind.__mro__
        if cls not in _SIMPLE and "__slots__" in vars(cls)
        for name, member in vars(cls).items()
        if isinstance(member, MemberDescriptorType) and not name.startswith("__")
    )


@lru_cache(maxsize=1024)
def _derived(kind: type) -> frozenset[str]:
    """Attributes that remember what was computed from the fields."""
    return frozenset(
        name
        for cls in kind.__mro__
        for name, member in vars(cls).items()
        if isinstance(member, cached_property)
    )


def why_no_identity(annotation: Any, *outer: object) -> str | None:
    """What an annotation shows against values of it as a part of a key; None when it shows nothing,
    so that it is left to the values."""
    if isinstance(annotation, NewType):
        annotation = annotation.__supertype__
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return why_no_identity(inner[0], *outer)
    kind = origin or annotation
    if kind in (Union, UnionType) or (inner and isinstance(kind, type)):
        found = (why_no_identity(item, *outer) for item in inner)
        return next((problem for problem in found if problem), None)
    unknown = not isinstance(kind, type) or kind in (Any, object) or inspect.isabstract(kind)
    if unknown or kind in outer:
        return None
    if issubclass(kind, (Enum, *_WITH_IDENTITY)):
        return None
    name = kind.__qualname__
    fields: list[Any] | None = None
    if issubclass(kind, BaseModel):
        fields = [field.annotation for field in kind.model_fields.values()]
        hidden = [*kind.__private_attributes__]
    elif dataclasses.is_dataclass(kind):
        fields = [field.type for field in dataclasses.fields(kind)]
        hidden = [key for key, field in kind.__dataclass_fields__.items() if _init_only(field.type)]
    if fields is None:
        return f"a {name} has no stable identity: return {_WHAT_HAS_ONE}"
    if hidden:
        return f"a {name} keeps {', '.join(hidden)} outside its fields, and so outside the key"
    found = (why_no_identity(field, kind, *outer) for field in fields)
    return next((problem for problem in found if problem), None)


def _init_only(annotation: object) -> bool:
    text = annotation if isinstance(annotation, str) else ""
    return isinstance(annotation, dataclasses.InitVar) or "InitVar[" in text
