"""The text of a value in a tag: one form for what a request asks for, what a function is given, and
what the row holds that a write changes. Whichever way it was spelled, readers and writers meet.
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum

from pydantic import BaseModel

# Beyond it a number has an exponent: clients may send 1e999999999.
MAX_DIGITS = 4300


def text_of(value: object) -> str | None:
    """None for what is no single value: who depends on it depends on every value."""
    if type(value) is str:
        return value
    match value:
        case None | list() | tuple() | set() | frozenset() | Mapping():
            return None
        case Enum():
            return text_of(value.value)
        case bool():
            return str(value).lower()
        case int():
            return int.__str__(value)
        case float():
            return _number(Decimal(repr(float(value))))
        case Decimal():
            return _number(value)
        case datetime():
            return _moment(value)
        case bytes():
            return value.hex()
        case BaseModel():
            return None
    return None if type(value).__str__ is object.__str__ else str(value)


def value_at(values: Mapping[str, object], field: str) -> object:
    """The value that `user.id` names. Raises KeyError or AttributeError where there is none."""
    if field in values:
        return values[field]
    first, *attributes = field.split(".")
    value = values[first]
    for name in attributes:
        if value is not None:
            value = value[name] if isinstance(value, Mapping) else getattr(value, name)
    return value


def _number(value: Decimal) -> str:
    if not value:
        return "0"
    if not value.is_finite():
        return str(value).lower()
    if abs(value.adjusted()) < MAX_DIGITS:
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    sign, digits, exponent = value.as_tuple()
    written = "".join(map(str, digits))
    shorter = written.rstrip("0")
    return f"{'-' * sign}{shorter}e{int(exponent) + len(written) - len(shorter)}"


def _moment(value: datetime) -> str:
    """In UTC, which is also what a database takes a time without a zone for."""
    if value.tzinfo is not None:
        with suppress(OverflowError):  # in the first or the last hours that there are
            value = value.astimezone(UTC).replace(tzinfo=None)
    return value.isoformat()
