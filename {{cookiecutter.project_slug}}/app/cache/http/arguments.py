"""What a route takes of the path and the query, as values: validated by the parameters themselves.

`/items/1` and `/items/01` are one item. So a key and tags are made of what the endpoint and its
dependencies will be given, and not of the text that a client wrote. What is not valid is no request
of the cache: the route answers it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi.params import ParamTypes
from pydantic import BaseModel
from starlette.convertors import Convertor
from starlette.datastructures import QueryParams

from app.cache.http._fastapi import (
    Dependant,
    Extraction,
    ModelField,
    parameter_aliases,
    walk,
)
from app.cache.http.safety import takes_more
from app.cache.identity import NoIdentityError, argument_parts
from app.cache.keys import digest
from app.cache.values import text_of


class InvalidRequestError(ValueError):
    """A request that the route refuses, or whose validation fails in a way of its own."""


class Arguments:
    """What the endpoint and its dependencies take."""

    def __init__(
        self,
        pattern: re.Pattern[str],
        convertors: Mapping[str, Convertor[Any]],
        dependant: Dependant,
    ) -> None:
        self._pattern, self._convertors = pattern, convertors
        nodes = {node.call: node for node in (dependant, *walk(dependant))}.values()
        in_path = [
            _Parameter(field)
            for node in nodes
            for field in node.path_params
            if field.alias in convertors  # else it is of the path of a mount
        ]
        in_query = [_Parameter(field) for node in nodes for field in node.query_params]
        self._parameters = [*in_path, *in_query]
        # Nobody declares them, and what is outside of the endpoint may still look at them.
        self._others = sorted(set(convertors) - {each.field.alias for each in in_path})
        self.query = frozenset(name for each in in_query for name in each.aliases)
        """The names that a query may have."""
        self.closed_query = any(takes_more(each.field) for each in in_query)
        """Whether undeclared names matter too (a model that forbids or keeps extras)."""
        self.names = frozenset(
            (*self._others, *(name for each in self._parameters for name in each.names))
        )
        """What a tag may be made of."""

    def in_path(self, path: str) -> dict[str, Any]:
        if not self._convertors:
            return {}
        match = self._pattern.match(path)
        given = match.groupdict() if match else {}
        return {name: self._convertors[name].convert(text) for name, text in given.items()}

    def read(
        self, path: str, raw_query: bytes, wanted: Iterable[str]
    ) -> tuple[list[bytes], dict[str, str | None]]:
        """Parts of the key, and the texts of the `wanted` names. Raises InvalidRequestError."""
        parts: list[bytes] = []
        values: dict[str, list[object]] = {name: [] for name in wanted}
        try:
            in_path, query = self.in_path(path), QueryParams(raw_query)
            for parameter in self._parameters:
                source = query if parameter.in_query else in_path
                value = parameter.value(source)
                parts.append(parameter.part(value, source))
                for name in values.keys() & parameter.names.keys():
                    values[name].append(parameter.named(name, value))
            for name in self._others:
                parts.append(digest(argument_parts(name, in_path[name])).encode())
                if name in values:
                    values[name].append(in_path[name])
            return parts, {name: _one_text(given) for name, given in values.items()}
        except Exception as error:  # of a validator too: the route will meet it again
            raise InvalidRequestError(str(error)) from error


class _Parameter:
    """One parameter of the endpoint or of a dependency; a query model is one."""

    def __init__(self, field: ModelField) -> None:
        self.field = field
        self.in_query = getattr(field.field_info, "in_", None) is ParamTypes.query
        self._extraction = Extraction(field)
        self._is_model, flat = self._extraction.is_model, self._extraction.fields
        self.names = {name: each.name for each in flat for name in (each.name, *_names(each))}
        """The names that a tag may use for it, each with that of its field."""
        self.aliases = [name for each in flat for name in _names(each)]

    def value(self, source: Mapping[str, Any]) -> Any:
        value, errors = self._extraction.value(source)
        if errors:
            raise InvalidRequestError(str(errors[0]))
        if isinstance(value, BaseModel) and self._is_model:
            for name, field in type(value).model_fields.items():
                if field.default_factory is not None and name not in value.model_fields_set:
                    value.__dict__[name] = None  # another one each time it is made
        elif self.field.field_info.default_factory and source.keys().isdisjoint(self.aliases):
            return _MADE
        return value

    def part(self, value: Any, source: Mapping[str, Any]) -> bytes:
        if value is _MADE:
            return b""
        try:
            return digest(argument_parts(self.field.name, value)).encode()
        except NoIdentityError:  # what was written: the same text is the same value
            names = sorted(source) if self._is_model else self.aliases
            return digest(_written(names, source)).encode()

    def named(self, name: str, value: Any) -> object:
        if self._is_model:
            return getattr(value, self.names[name], None)
        return None if value is _MADE else value


_MADE = object()
"""The value of a parameter that is left out and has a `default_factory`."""


def _names(field: ModelField) -> list[str]:
    return [name for _, name in parameter_aliases(field)]


def _written(names: Iterable[str], source: Mapping[str, Any]) -> Iterator[bytes]:
    for name in names:
        given = source.getlist(name) if isinstance(source, QueryParams) else [source.get(name)]
        yield from (name.encode(), len(given).to_bytes(4), *(str(text).encode() for text in given))


def _one_text(values: Iterable[object]) -> str | None:
    """Of a parameter that is declared twice and differs: None, which is all."""
    texts = {text_of(value) for value in values}
    return texts.pop() if len(texts) == 1 else None
