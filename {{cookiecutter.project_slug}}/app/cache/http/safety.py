"""What a route must not do to be cached: whatever a hit would skip and the key does not hold.

A hit runs no dependency but the guard. A route whose answer, or whose refusal, depends on anything
else is refused when the application starts, by name and with what to do.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, get_args

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from app.cache.http._fastapi import Dependant, get_flat_params, parameter_aliases, walk
from app.cache.http.guard import returned
from app.cache.policy import Policy, PolicyError

log = logging.getLogger("app.cache")

F = TypeVar("F", bound=Callable[..., Any])


def shared_dependency(dependency: F) -> F:
    """Says of a dependency that it gives the same to every client, though it takes the request.

    A database session read from `request.state` is one; anything that looks at headers is not.
    """
    dependency.__shared_dependency__ = True  # type: ignore[attr-defined]
    return dependency


def check_middleware(app: FastAPI, routes: Sequence[str]) -> None:
    """Raises PolicyError for middleware that a hit would skip, unless CacheMiddleware names it in
    `skips`. What is added later is further out and sees hits."""
    stack = app.user_middleware
    if not any(getattr(entry.cls, "answers_hits", False) for entry in stack):
        log.warning(
            "%s is answered without the cache: %r has no CacheMiddleware, and needs one of its own "
            "where it is mounted in another application",
            ", ".join(routes),
            app.title,
        )
    for place, entry in enumerate(stack):
        if not getattr(entry.cls, "answers_hits", False):
            continue
        skips: Any = entry.kwargs.get("skips", ())
        for inner in stack[place + 1 :]:
            if inner.cls not in skips:
                made_of = inner.kwargs.get("dispatch", inner.cls)
                name = getattr(made_of, "__qualname__", type(made_of).__qualname__)
                raise PolicyError(
                    f"middleware {name} was added before CacheMiddleware, so it is inside, and a "
                    "hit skips it: add it later, or, if no answer to a GET depends on it, say "
                    f"app.add_middleware(CacheMiddleware, skips=[{name}])"
                )


def problems_of(context: Any, dependant: Dependant, policy: Policy) -> Iterator[str]:
    """Why this route is not cached as the policy says."""
    if context.is_sse_stream or context.is_json_stream or _streams(context.response_class):
        yield "it streams its response; cache a function that makes the data instead"
    kind = type(context.original_route)
    for method in ("get_route_handler", "matches", "handle"):
        if getattr(kind, method) is not getattr(APIRoute, method):
            yield (
                f"its route class {kind.__qualname__} overrides {method}, which a hit would skip: "
                "use a dependency, or middleware outside of CacheMiddleware"
            )
    for node in (dependant, *walk(dependant)):
        if node.background_tasks_param_name:
            yield f"background tasks would run on misses only, and {_name(node)} adds some"
    yield from _node_problems(dependant, policy, "the endpoint")
    pending = [(node, "the endpoint") for node in dependant.dependencies]
    while pending:
        node, taker = pending.pop()
        if node.call == policy.guard:
            if node.name and not policy.per_user and returned(node.call) is not None:
                yield (
                    f"{taker} takes what the guard {_name(node)} returns, which is not in the key: "
                    "one user would get the answer of another. Use per_user=True; or, where this "
                    f"only keeps users out, dependencies=[Depends({_name(node)})], with the "
                    "dependency that decides it as the guard"
                )
        elif not getattr(node.call, "__shared_dependency__", False):
            name = f"dependency {_name(node)}"
            yield from _node_problems(node, policy, name)
            pending.extend((child, name) for child in node.dependencies)


def _name(node: Dependant) -> str:
    return getattr(node.call, "__qualname__", type(node.call).__qualname__)


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
    undeclared = {*_header_names(node.header_params)} - set(policy.vary)
    if undeclared:
        yield f"{name} reads headers that are not in vary: {', '.join(sorted(undeclared))}"
    if any(takes_more(field) for field in node.header_params):
        yield f"{name} takes all headers, by a model that forbids or keeps extra ones"


def _header_names(fields: list[Any]) -> Iterator[str]:
    for field in get_flat_params(Dependant(header_params=fields)):
        convert = getattr(field.field_info, "convert_underscores", True)
        for _, name in parameter_aliases(field, convert_underscores=convert):
            yield name.lower()


def takes_more(field: Any) -> bool:
    """Whether a parameter is a model for which names matter that it does not declare."""
    annotation = field.field_info.annotation
    return any(
        inspect.isclass(model)
        and issubclass(model, BaseModel)
        and model.model_config.get("extra") in ("forbid", "allow")
        for model in (annotation, *get_args(annotation))
    )


def _streams(response_class: Any) -> bool:
    actual = getattr(response_class, "value", response_class)
    return inspect.isclass(actual) and issubclass(actual, StreamingResponse)
