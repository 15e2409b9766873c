"""Keys: the part of a request, or of a call, that decides what the answer is.

Parts are length-prefixed before they are hashed, so no choice of delimiters inside a value can make
two different requests share a key (BLAKE2b, RFC 7693, 128 bits).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import BaseModel

MAX_QUERY_BYTES = 4096


def digest(parts: Iterable[bytes]) -> str:
    """128 bits in hex over the parts, each with its length before it."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(4))
        hashed.update(part)
    return hashed.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class QueryParameter:
    """A declared query parameter: whether it may repeat, and its default as a client writes it."""

    repeats: bool
    default: str | None


def canonical_query(
    raw: bytes, declared: Mapping[str, QueryParameter]
) -> list[tuple[str, list[str]]]:
    """The declared parameters by name, as the handler will see them.

    Undeclared names are dropped, a parameter that does not repeat keeps its last value (what
    FastAPI reads), and a value equal to the default is as good as none.
    """
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        parameter = declared.get(name)
        if parameter is None:
            continue
        if parameter.repeats:
            found.setdefault(name, []).append(value)
        else:
            found[name] = [value]
    return sorted(
        (name, values)
        for name, values in found.items()
        if len(values) > 1 or values[0] != declared[name].default
    )


def query_parts(query: list[tuple[str, list[str]]]) -> Iterable[bytes]:
    for name, values in query:
        yield name.encode()
        yield len(values).to_bytes(4)
        for value in values:
            yield value.encode()


def argument_parts(name: str, value: Any) -> Iterable[bytes]:
    """The bytes that tell this argument from any other.

    Raises TypeError for a value without a stable identity (a session, a request, any object whose
    `repr` is an address): cached under that, it would answer for another object later.
    """
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(value, Enum):
        yield value.name.encode()
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        yield value.encode()
    elif value is None or isinstance(
        value, int | float | Decimal | UUID | date | datetime | time | timedelta
    ):
        yield repr(value).encode()
    elif isinstance(value, list | tuple):
        yield len(value).to_bytes(4)
        for item in value:
            yield from argument_parts(name, item)
    elif isinstance(value, set | frozenset):
        yield from sorted(digest(argument_parts(name, item)).encode() for item in value)
    elif isinstance(value, Mapping):
        yield from sorted(
            digest([*argument_parts(name, key), *argument_parts(name, item)]).encode()
            for key, item in value.items()
        )
    elif isinstance(value, BaseModel):
        yield from argument_parts(name, dict(value))
    elif dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        yield from argument_parts(name, fields)
    else:
        raise TypeError(
            f"argument {name!r} is a {kind.__qualname__}, which has no stable identity to make a "
            "cache key of: pass plain values (text, numbers, dates, UUIDs, enums, collections, "
            "Pydantic models, dataclasses) and open sessions or clients inside the function"
        )
