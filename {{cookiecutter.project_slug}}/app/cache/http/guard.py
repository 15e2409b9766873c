"""The guard of a route: run before every hit, as the route declares it, and whom it lets in.

A guard may stand several times in the tree of a route, with other security scopes each time. All of
them run: a hit lets nobody in whom a miss would have kept out.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, get_args, get_origin, get_type_hints

from fastapi import Request, Response
from starlette.types import Receive, Scope

from app.cache.budget import Budget, current_budget
from app.cache.context import active_cache
from app.cache.engine import CacheEngine
from app.cache.http._fastapi import Dependant, solve_dependencies, walk
from app.cache.identity import NoIdentityError, argument_parts, fields_in, why_no_identity
from app.cache.keys import digest
from app.cache.policy import Policy
from app.cache.values import text_of, value_at

_GENERATORS = (AsyncGenerator, AsyncIterator, Generator, Iterator)


class Guard:
    """The guard of one route."""

    def __init__(self, call: Callable[..., Any], route: Dependant, policy: Policy) -> None:
        nodes = [node for node in walk(route) if node.call == call]
        self.name = getattr(call, "__qualname__", type(call).__qualname__)
        self._call, self._per_user = call, policy.per_user
        self._takers = {
            node.name: str(i)
            for i, node in enumerate(nodes)
            if policy.per_user and node.name and any(node is each for each in route.dependencies)
        }
        self.fields = [
            field
            for field in dict.fromkeys(field for tag in policy.tags for field in tag.fields)
            if field.partition(".")[0] in self._takers
        ]
        """What tags take of whom it lets in: `user`, or `user.id`."""
        self._tree = Dependant(
            path=route.path,
            dependencies=[replace(node, name=str(i)) for i, node in enumerate(nodes)],
        )
        # One that nobody looks at. FastAPI would make one for each request.
        looked_at = any(node.response_param_name for node in walk(self._tree))
        self._response = None if looked_at else Response()

    def problems(self) -> Iterator[str]:
        """What is wrong with it, as far as the route and annotations show."""
        if not self._tree.dependencies:
            yield f"its guard {self.name} is no dependency of the route, so a miss would not run it"
        for node in walk(self._tree):
            if node.response_param_name and not self._per_user:
                yield (
                    f"its guard {self.name} takes the response, and what it sets there for one "
                    "client would be stored for all: raise an HTTPException, or use per_user=True"
                )
        if not self._per_user:
            return
        annotation = returned(self._call)
        if annotation is None or type(None) in get_args(annotation):
            yield (
                f"its guard {self.name} may return None, one key for all whom it does not know: "
                "raise an HTTPException, or return something that stands for them"
            )
        elif problem := why_no_identity(annotation):
            yield f"its guard {self.name} tells no users apart: {problem}"
        known = fields_in(annotation)
        for field in self.fields:
            name, _, attribute = field.partition(".")
            if known and attribute.partition(".")[0] not in known:
                yield (
                    f"a tag needs {field!r} of what its guard {self.name} returns: name one of the "
                    f"fields, such as {name}.{known[0]} ({', '.join(known)})"
                )

    async def identify(
        self,
        cache: CacheEngine,
        budget: Budget,
        scope: Scope,
        path: dict[str, Any],
        receive: Receive,
    ) -> tuple[list[bytes], tuple[str | None, ...]]:
        """Part of the key, and the texts of `fields`. Raises what the guard raises, ValueError
        where its parameters are not valid, and NoIdentityError for a user of whom neither can be
        made."""
        of_cache, of_budget = active_cache.set(cache), current_budget.set(budget)
        try:
            async with AsyncExitStack() as stack:
                scope = {
                    **scope,
                    "path_params": path,
                    "fastapi_inner_astack": stack,
                    "fastapi_function_astack": stack,
                }
                solved = await solve_dependencies(
                    request=Request(scope, receive),
                    dependant=self._tree,
                    response=self._response,
                    dependency_overrides_provider=scope["app"],
                    async_exit_stack=stack,
                    embed_body_fields=False,
                )
                if solved.errors:
                    raise ValueError("the guard's parameters are not valid")
                if not self._per_user:
                    return [], ()
                found = solved.values
                parts = [digest(self._parts(value)).encode() for value in found.values()]
                return parts, tuple([self._text(field, found) for field in self.fields])
        finally:
            current_budget.reset(of_budget)
            active_cache.reset(of_cache)

    def _text(self, field: str, values: Mapping[str, Any]) -> str | None:
        name = field.partition(".")[0]
        try:
            return text_of(value_at({name: values[self._takers[name]]}, field))
        except (AttributeError, KeyError) as error:
            raise NoIdentityError(
                f"what the guard {self.name} returned has no {field!r}, which a tag needs: {error}"
            ) from None

    def _parts(self, value: Any) -> list[bytes]:
        if value is None:
            raise NoIdentityError(f"the guard {self.name} returned None, one key for all")
        try:
            return [*argument_parts("identity", value)]
        except NoIdentityError as error:
            raise NoIdentityError(f"what the guard {self.name} returned: {error}") from None


def returned(call: Any) -> Any:
    """What a dependency gives, by its annotation; `Any` where there is none."""
    if inspect.isclass(call):
        return call
    function = inspect.unwrap(call if inspect.isroutine(call) else type(call).__call__)
    try:
        annotation = get_type_hints(function).get("return", Any)
    except (NameError, TypeError):  # names for type checkers alone: the values will tell
        return Any
    if get_origin(annotation) in _GENERATORS:
        annotation = (get_args(annotation) or (Any,))[0]
    return None if annotation is type(None) else annotation
