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
request_params_to_args  a parameter's value, validated as the endpoint will have it
solve_dependencies      runs a guard as the endpoint would
"""

from collections.abc import Iterator

from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import _get_param_aliases as parameter_aliases
from fastapi.dependencies.utils import (
    get_dependant,
    get_flat_params,
    request_params_to_args,
    solve_dependencies,
)
from fastapi.routing import iter_route_contexts
from starlette._utils import get_route_path

__all__ = [
    "Dependant",
    "ModelField",
    "get_dependant",
    "get_flat_params",
    "get_route_path",
    "iter_route_contexts",
    "parameter_aliases",
    "request_params_to_args",
    "solve_dependencies",
    "walk",
]


def walk(dependant: Dependant) -> Iterator[Dependant]:
    """All dependencies below this one, a dependency as often as it is declared."""
    for node in dependant.dependencies:
        yield node
        yield from walk(node)
