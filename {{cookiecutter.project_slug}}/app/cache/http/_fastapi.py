"""What the cache needs of FastAPI and Starlette beyond their public interface, in one place.

A hit is answered ahead of routing, so the cache has to know what the router and the dependency
solver would do. After an upgrade of either, this is the file to look at:

Dependant               what an endpoint and its dependencies take, as FastAPI has read it
get_dependant           the tree of a guard
get_flat_params         the parameters of a tree, models taken apart
get_route_path          the path that the router matches, below the path of a mount
iter_route_contexts     routes of included routers, with their prefix and dependencies there
ModelField              a parameter as FastAPI has read it
parameter_aliases       the names by which a client may give a parameter
Extraction              a parameter's value, validated as the endpoint will have it
solve_dependencies      runs a guard as the endpoint would
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi._compat import (
    ModelField,
    Undefined,
    field_annotation_is_sequence,
    get_cached_model_fields,
)
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import _get_param_aliases as parameter_aliases
from fastapi.dependencies.utils import (
    _get_param_model,
    _is_json_field,
    _validate_value_with_model_field,
    get_dependant,
    get_flat_params,
    solve_dependencies,
)
from fastapi.routing import iter_route_contexts
from starlette._utils import get_route_path
from starlette.datastructures import QueryParams

__all__ = [
    "Dependant",
    "Extraction",
    "ModelField",
    "get_dependant",
    "get_flat_params",
    "get_route_path",
    "iter_route_contexts",
    "parameter_aliases",
    "solve_dependencies",
    "walk",
]


def walk(dependant: Dependant) -> Iterator[Dependant]:
    """All dependencies below this one, a dependency as often as it is declared."""
    for node in dependant.dependencies:
        yield node
        yield from walk(node)


class Extraction:
    """Finds and validates the value of a parameter as the endpoint will have it.

    FastAPI's `request_params_to_args` looks at the annotations anew for each request, which takes
    20 times as long as to validate. Here that is done once.
    """

    def __init__(self, field: ModelField) -> None:
        model = _get_param_model(field)
        self.is_model = model is not None
        self.fields = get_cached_model_fields(model) if model is not None else [field]
        """Those of the model; else the parameter itself."""
        self._field = field
        self._plan = [(parameter_aliases(each), *_shape(each)) for each in self.fields]
        # A model that may be left out is there when one of these is, or anything that it takes.
        self._own = {alias for aliases, *_ in self._plan for _, alias in aliases}
        self._is_optional = self.is_model and field.field_info.annotation is not model
        self._takes_more = model is not None and model.model_config.get("extra") in (
            "allow",
            "forbid",
        )

    def value(self, source: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """And what is wrong with it."""
        given: dict[str, Any] = {}
        taken: set[str] = set()
        for aliases, is_sequence, is_list in self._plan:
            name, alias = next((pair for pair in aliases if pair[1] in source), aliases[0])
            taken.add(alias)
            if is_list and isinstance(source, QueryParams):
                value: Any = source.getlist(alias)
            else:
                value = source.get(alias)
            if value is not None and not (is_sequence and len(value) == 0):
                given[name] = value
        if not self.is_model:
            value = next(iter(given.values()), Undefined)
        else:
            value = self._of_model(given, taken, source)
        return _validate_value_with_model_field(field=self._field, value=value, values={}, loc=())

    def _of_model(self, given: dict[str, Any], taken: set[str], source: Mapping[str, Any]) -> Any:
        for name in [name for name in source if name not in taken]:
            values = source.getlist(name) if isinstance(source, QueryParams) else [source[name]]
            given[name] = values[0] if len(values) == 1 else values
        if self._is_optional and self._own.isdisjoint(source):
            return given if self._takes_more and given else Undefined
        return given


def _shape(field: ModelField) -> tuple[bool, bool]:
    """Whether a field is a sequence, and whether its items are given one by one."""
    is_sequence = field_annotation_is_sequence(field.field_info.annotation)
    return is_sequence, is_sequence and not _is_json_field(field)
