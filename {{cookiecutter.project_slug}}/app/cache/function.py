"""The decorator, on endpoints and on plain async functions.

On an endpoint it only leaves a marker: `CacheMiddleware` does the work, ahead of routing. On a
plain function the key comes from the bound arguments, and results are stored as JSON through
Pydantic, so that a hit returns the annotated type.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, get_type_hints, overload

from pydantic import TypeAdapter

from app.cache.flight import Miss
from app.cache.key import argument_parts, digest
from app.cache.policy import Policy, PolicyError, Tag
from app.cache.store import Computed

if TYPE_CHECKING:
    from app.cache.core import Cache

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

active_cache: ContextVar["Cache"] = ContextVar("active_cache")


class CachedFunction(Protocol[P, R_co]):
    """A cached async function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R_co]: ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[None]:
        """Makes the result for these arguments a miss; to drop all results, give it a tag."""


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]]) -> CachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R]: ...


@dataclass(slots=True)
class Marker:
    """What the decorator knows of a function; `is_endpoint` is found out when the app is bound."""

    name: str
    policy: Policy
    is_endpoint: bool = False


def cache(
    expire: float,
    *,
    stale: float = 0,
    stale_if_error: float = 0,
    tags: Sequence[str] = (),
    vary: Sequence[str] = (),
    public: bool = False,
    guard: Callable[..., Any] | None = None,
    per_user: bool = False,
    browser: str = "no-cache",
    expire_not_found: float = 0,
    local: float = 0,
) -> _Decorator:
    """Caches the GET of an endpoint, or the results of an async function.

    Times are in seconds, 0 to 30 days.

    expire            how long a result is fresh; 0 turns caching off
    stale             how much longer it is served while one refresh runs
    stale_if_error    how much longer it is served when computing it anew fails
    tags              what a write invalidates it by; `country:{alpha_2}` takes path and query
                      parameters, or arguments
    vary              request headers that decide the answer, in lower case
    public            requests with Authorization or Cookie share the answer too
    guard             a dependency that runs before every hit (authentication)
    per_user          the value that the guard returns is part of the key
    browser           Cache-Control for clients; they cannot be invalidated, so by default they ask
    expire_not_found  how long a 404 is fresh
    local             how long a process may answer by itself, without asking Redis: faster, and a
                      write through another process is seen up to half a second late (local.py)

    Raises PolicyError, naming the function, for values that are not allowed.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        try:
            parsed = tuple(Tag.parse(tag) for tag in tags)
            policy = Policy(
                expire, stale, stale_if_error, parsed, tuple(vary), public, guard, per_user,
                browser, expire_not_found, local,
            )  # fmt: skip
        except ValueError as error:
            raise PolicyError(f"@cache on {name}: {error}") from error
        return _wrapped(function, Marker(name, policy))

    return decorate


def marker_of(function: Any) -> Marker | None:
    marker = getattr(function, "__cache_marker__", None)
    return marker if isinstance(marker, Marker) else None


def _wrapped(function: Callable[..., Any], marker: Marker) -> Any:
    # On the function itself too: a route decorator below this one has registered that.
    function.__cache_marker__ = marker  # type: ignore[attr-defined]
    if not inspect.iscoroutinefunction(function):
        return _sync_endpoint(function, marker)
    results = _Results(function, marker)

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if marker.is_endpoint or not marker.policy.enabled:
            return await function(*args, **kwargs)
        return await results.get(args, kwargs)

    wrapper.invalidate = results.invalidate  # type: ignore[attr-defined]
    return wrapper


def _sync_endpoint(function: Callable[..., Any], marker: Marker) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not marker.is_endpoint:
            raise TypeError(f"@cache on {marker.name}: a cached function is `async def`")
        return function(*args, **kwargs)

    return wrapper


class _Results:
    """The cached results of one function."""

    def __init__(self, function: Callable[..., Any], marker: Marker) -> None:
        self._function, self._marker = function, marker
        self._signature = inspect.signature(function)

    @functools.cached_property
    def _type(self) -> TypeAdapter[Any]:
        hints = get_type_hints(self._function, include_extras=True)
        if "return" not in hints:
            raise TypeError(f"@cache on {self._marker.name}: annotate what it returns")
        return TypeAdapter(hints["return"])

    @functools.cached_property
    def _prefix(self) -> str:
        schema = json.dumps(self._type.json_schema(mode="serialization"), sort_keys=True)
        return hashlib.blake2b(f"{self._marker.name}\n{schema}".encode(), digest_size=6).hexdigest()

    async def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = _active(self._marker)
        key, tags = self._address(args, kwargs)

        async def compute() -> Computed:
            result = await self._function(*args, **kwargs)
            return Computed(self._type.dump_json(result))

        miss = Miss(key, tags, self._marker.policy, compute)
        payload = await cache.fetch(miss)
        return self._type.validate_json(payload)

    async def invalidate(self, *args: Any, **kwargs: Any) -> None:
        _, tags = self._address(args, kwargs)
        await _active(self._marker).invalidate(tags[0])

    def _address(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, tuple[str, ...]]:
        """The key, and the tags: first the one that stands for these arguments alone."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        parts: list[bytes] = []
        for name, value in bound.arguments.items():
            try:
                parts += [name.encode(), digest(argument_parts(name, value)).encode()]
            except TypeError as error:
                raise TypeError(f"@cache on {self._marker.name}: {error}") from None
        key = f"{self._prefix}:{digest(parts)}"
        return key, (key, *self._marker.policy.tag_names(bound.arguments))


def _active(marker: Marker) -> "Cache":
    try:
        return active_cache.get()
    except LookupError:
        raise RuntimeError(
            f"{marker.name} is cached, and no cache is open here: call it inside "
            "`async with open_cache(…)`, or in a request to an application whose lifespan did so"
        ) from None
