"""Startup analysis: which routes are cached, what decides their answers, and whether a hit may skip
their dependencies.

A hit is answered ahead of routing, so nothing of the route runs: no dependency, no validation. That
is right only for a route whose answer is decided by its path, its declared query parameters, the
headers in `vary`, and the user its guard returns. What cannot be shown to be so is refused when the
application starts, with the route named.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastapi import FastAPI
from starlette.routing import WebSocketRoute

from app.cache.decorator import marker_of
from app.cache.http._fastapi import iter_route_contexts, walk
from app.cache.http.arguments import Arguments
from app.cache.http.guard import Guard
from app.cache.http.safety import check_middleware, problems_of
from app.cache.keys import digest
from app.cache.policy import EVERYTHING, Policy, PolicyError
from app.cache.reads import Coverage, Learned

# Requests whose key is remembered, so that a hot path is not parsed again. Clients choose them, so
# only short ones are: they hold a few megabytes at most.
MAX_ADDRESSES = 4096
MAX_REMEMBERED_CHARS = 512


@dataclass(frozen=True, slots=True, eq=False)
class CachedRoute:
    """A route whose GET is cached, ready for lookups."""

    tag: str
    """`GET /planets/{name}`: all entries of this path, wherever it is mounted, in all builds."""
    policy: Policy
    learned: Learned
    endpoint: Callable[..., Any]
    prefix: str
    arguments: Arguments
    fields: frozenset[str]
    """What the tags take of path and query."""
    guard: Guard | None
    dependencies: frozenset[Callable[..., Any]]
    anonymous: bool
    """Whether nothing says to whom an answer to a request with credentials may be shown."""

    def address(
        self,
        path: str,
        raw_query: bytes,
        mount: str = "",
        more: tuple[bytes, ...] = (),
        user: tuple[str | None, ...] = (),
    ) -> tuple[str, tuple[str, ...]]:
        """The key and the tags of a request.

        The same route has other answers where its application is mounted elsewhere. `more` are the
        values of `vary` headers and the identity, `user` are texts for the fields of the guard.
        Raises InvalidRequestError for what the route refuses.
        """
        size = len(path) + len(raw_query)
        if user:
            size += sum(len(text or "") for text in user)
        if size > MAX_REMEMBERED_CHARS:
            return self._address(path, raw_query, mount, more, user)
        return self._remembered(path, raw_query, mount, more, user)

    def _address(
        self,
        path: str,
        raw_query: bytes,
        mount: str,
        more: tuple[bytes, ...],
        user: tuple[str | None, ...],
    ) -> tuple[str, tuple[str, ...]]:
        parts, texts = self.arguments.read(path, raw_query, self.fields)
        if self.guard is not None:
            texts.update(zip(self.guard.fields, user, strict=True))
        # Last, as a lock is void when the first tag is invalidated: that is to be one of writes.
        tags = (*self.policy.tag_names(texts), *self.learned.tags, self.tag, EVERYTHING)
        return f"{self.prefix}:{digest([mount.encode(), *more, *parts])}", tags

    _remembered = lru_cache(MAX_ADDRESSES)(_address)
    forget_addresses = _remembered.cache_clear


class RouteTable:
    """Every route that can answer GET, in the order in which the router tries them."""

    def __init__(self, app: FastAPI, coverage: Coverage) -> None:
        self._routes: list[tuple[re.Pattern[str], CachedRoute | None]] = []
        self._static: dict[str, CachedRoute] = {}
        self._heads: list[re.Pattern[str]] = []
        self.mounted: list[FastAPI] = []
        last, unknown = 0, None
        for context in iter_route_contexts(app.routes):
            if isinstance(mounted := getattr(context, "app", None), FastAPI):
                self.mounted.append(mounted)
            pattern = getattr(context, "path_regex", None)
            if pattern is None:  # app.host(…): it answers for paths of any form
                unknown = unknown or type(context.original_route).__name__
                continue
            route = _cached_route(context, pattern, unknown, coverage)
            websocket = isinstance(context.original_route, WebSocketRoute)
            if websocket or "GET" not in (context.methods or {"GET"}):
                self._heads += [pattern] if "HEAD" in (context.methods or ()) else []
                continue
            static = route and "{" not in (context.path or "")
            if static and not any(earlier.match(context.path or "") for earlier, _ in self._routes):
                self._static[context.path or ""] = route  # type: ignore[assignment]
            self._routes.append((pattern, route))
            if route is not None:
                last = len(self._routes)
        del self._routes[last:]
        if last:
            check_middleware(app, [route.tag for route in self.cached])

    @property
    def cached(self) -> list[CachedRoute]:
        return [route for _, route in self._routes if route is not None]

    def find(self, path: str) -> CachedRoute | None:
        """The cached route that the router would choose for GET of this path."""
        route = self._static.get(path)
        if route is not None:
            return route
        for pattern, candidate in self._routes:
            if pattern.match(path):
                return candidate
        return None

    def answers_head(self, path: str) -> bool:
        """Whether the application has an endpoint for HEAD of this path alone."""
        return any(pattern.match(path) for pattern in self._heads)


def _cached_route(
    context: Any, pattern: re.Pattern[str], unknown: str | None, coverage: Coverage
) -> CachedRoute | None:
    marker = marker_of(context.endpoint)
    if marker is None or not marker.policy.enabled:
        return None
    policy, dependant = marker.policy, getattr(context, "dependant", None)
    methods = sorted(context.methods or ())
    where = f"{'/'.join(methods)} {context.path} ({marker.name})"
    if set(methods) - {"GET", "HEAD"} or not methods or dependant is None:
        raise PolicyError(
            f"cannot cache {where}: only GET can be cached, of a route that FastAPI made; give "
            "other methods an endpoint of their own, without @cache"
        )
    guard = Guard(policy.guard, dependant, policy) if policy.guard is not None else None
    arguments = Arguments(pattern, context.param_convertors, dependant)
    of_guard = frozenset(guard.fields) if guard else frozenset[str]()
    problems = [*problems_of(context, dependant, policy), *(guard.problems() if guard else ())]
    problems += coverage.problems(policy)
    if unknown is not None:
        problems.append(f"a {unknown} stands before it and may answer first: put it after this one")
    for tag in policy.tags:
        if missing := set(tag.fields) - arguments.names - of_guard:
            problems.append(
                f"tag {tag.text!r} needs {sorted(missing)}, no path or query parameter, nor the "
                "endpoint's parameter for a guard with per_user=True"
            )
    if problems:
        raise PolicyError(f"cannot cache {where}: " + "; ".join(problems))
    return CachedRoute(
        tag=f"GET {context.path_format}",
        policy=policy,
        learned=Learned(f"GET {context.path_format}", policy, CachedRoute.forget_addresses),
        endpoint=context.endpoint,
        prefix=_prefix(context, policy, coverage),
        arguments=arguments,
        fields=frozenset(field for tag in policy.tags for field in tag.fields) - of_guard,
        guard=guard,
        dependencies=frozenset(node.call for node in walk(dependant) if node.call),
        anonymous=not policy.public and policy.guard is None,
    )


def _prefix(context: Any, policy: Policy, coverage: Coverage) -> str:
    """Route, schema build, and what is told of changes: a deployment where one of these differs
    reads other keys."""
    field = context.response_field
    schema: object = None
    if field is not None:
        schema = field._type_adapter.json_schema(mode="serialization")
    covered = sorted(coverage.covered(policy.families))
    tags = sorted(tag.text for tag in policy.tags)
    identity = [context.path_format, context.unique_id, schema, tags, covered]
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
