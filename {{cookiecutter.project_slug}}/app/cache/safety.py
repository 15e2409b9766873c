"""What a route must not do to be cached: whatever a hit would skip and the key does not hold.

A hit runs no dependency but the guard. A route whose answer, or whose refusal, depends on anything
else is refused when the application starts, by name and with what to do.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from fastapi.security.base import SecurityBase
from starlette.responses import StreamingResponse

from app.cache._fastapi import Dependant, get_flat_params
from app.cache.policy import Policy

F = TypeVar("F", bound=Callable[..., Any])


def shared_dependency(dependency: F) -> F:
    """Says of a dependency that it gives the same to every client, though it takes the request.

    A database session read from `request.state` is one; anything that looks at headers is not.
    """
    dependency.__shared_dependency__ = True  # type: ignore[attr-defined]
    return dependency


def walk(dependant: Dependant) -> Iterator[Dependant]:
    for node in dependant.dependencies:
        yield node
        yield from walk(node)


def problems_of(
    context: Any, dependant: Dependant, policy: Policy, guarded: set[Callable[..., Any] | None]
) -> Iterator[str]:
    if set(context.methods or ()) - {"GET", "HEAD"}:
        yield "only GET can be cached; give other methods an endpoint of their own"
    if context.is_sse_stream or context.is_json_stream or _streams(context.response_class):
        yield "it streams its response; cache a function that makes the data instead"
    if dependant.background_tasks_param_name:
        yield "background tasks would run on misses only"
    yield from _node_problems(dependant, policy, "the endpoint")
    pending = list(dependant.dependencies)
    while pending:
        node = pending.pop()
        if node.call in guarded or getattr(node.call, "__shared_dependency__", False):
            continue
        name = getattr(node.call, "__qualname__", type(node.call).__name__)
        yield from _node_problems(node, policy, f"dependency {name}")
        pending.extend(node.dependencies)


def _node_problems(node: Dependant, policy: Policy, name: str) -> Iterator[str]:
    advice = (
        "make it the guard (guard=…) if it tells users apart or keeps them out, or mark it with "
        "@shared_dependency if it gives the same to every client"
    )
    if isinstance(node.call, SecurityBase) or node.security_scopes_param_name:
        yield f"{name} is a security scheme, which a hit would skip: {advice}"
    elif node.request_param_name or node.http_connection_param_name:
        yield f"{name} takes the whole request, so what decides the answer is unknown: {advice}"
    if node.body_params:
        yield f"{name} reads a request body"
    if node.cookie_params:
        names = ", ".join(field.name for field in node.cookie_params)
        yield f"{name} reads cookies ({names}): {advice}"
    undeclared = {field.alias for field in _flat(node.header_params)} - set(policy.vary)
    if undeclared:
        yield f"{name} reads headers that are not in vary: {', '.join(sorted(undeclared))}"


def _flat(fields: list[Any]) -> list[Any]:
    return get_flat_params(Dependant(header_params=fields))


def _streams(response_class: Any) -> bool:
    actual = getattr(response_class, "value", response_class)
    return inspect.isclass(actual) and issubclass(actual, StreamingResponse)
