"""The decorator, on endpoints and on plain async functions.

On an endpoint it leaves a marker: `CacheMiddleware` does the work, ahead of routing. A call that
is not the router's is a call of a function (`functions.py`). What a decorated function is used as
is told each time, so one function may be both.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from app.cache.context import active_cache, answering, request_scope
from app.cache.functions import Results
from app.cache.policy import Policy, PolicyError, Tag, manual_tags

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


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


@dataclass(frozen=True, slots=True, eq=False)
class Marker:
    """What the decorator knows of a function."""

    name: str
    policy: Policy


def cache(
    expire: float,
    *,
    stale: float = 0,
    stale_if_error: float = 0,
    tags: Sequence[str] = (),
    manual: Sequence[str] = (),
    vary: Sequence[str] = (),
    public: bool = False,
    guard: Callable[..., Any] | None = None,
    per_user: bool = False,
    browser: str = "no-cache",
    expire_not_found: float = 0,
    local: float = 0,
    reads: Sequence[str] | None = None,
) -> _Decorator:
    """Caches the GET of an endpoint, or the results of an async function.

    Times are in seconds, 0 to 30 days.

    expire            how long a result is fresh; 0 turns caching off
    stale             how much longer it is served while one refresh runs
    stale_if_error    how much longer it is served when computing it anew fails
    tags              what a write invalidates it by, as models declare it. `country:{alpha_2}`
                      takes path and query parameters, or arguments; `list:{user}`, or
                      `list:{user.id}`, the user of `per_user`, by the endpoint's parameter
    manual            tags that no model declares: what your code ends itself, with `invalidate`
    reads             the tables that its textual SQL reads, and its SQL functions and views; none
                      (`[]`): what they show is true by expiry alone. Not needed for any other SQL
    local             how long a process may answer by itself, without asking Redis: faster, and a
                      write through another process is seen up to half a second late (local.py)

    On endpoints alone:

    vary              request headers that decide the answer, in lower case
    public            requests with Authorization or Cookie share the answer too
    guard             a dependency that runs before every hit (authentication), as the route
                      declares it. Nothing that computes the answer may take what it returns …
    per_user          … unless that is part of the key
    browser           Cache-Control for clients; they cannot be invalidated, so by default they ask
    expire_not_found  how long a 404 is fresh

    Raises PolicyError, naming the function, for values that are not allowed.
    """
    if callable(expire):
        raise PolicyError(f"@cache on {_name(expire)}: write @cache(expire=60), with a time")

    def decorate(function: Callable[..., Any]) -> Any:
        name = _name(function)
        try:
            if not inspect.isroutine(function):
                raise ValueError(f"a {type(function).__qualname__} is no function")
            if marker_of(function) is not None and hasattr(function, "__wrapped__"):
                raise ValueError("it has a @cache already: keep one of them")
            lists = {"tags": tags, "manual": manual, "vary": vary, "reads": reads}
            for option, value in lists.items():
                if isinstance(value, str):
                    raise ValueError(f'{option} is the text {value!r}: write {option}=["{value}"]')
            parsed = (
                *(Tag.parse(tag) for tag in tags),
                *(Tag.parse(tag, manual=True) for tag in manual),
            )
            manual_tags.update(tag for tag in parsed if tag.manual)
            policy = Policy(
                expire, stale, stale_if_error, parsed, tuple(vary), public, guard, per_user,
                browser, expire_not_found, local, None if reads is None else tuple(reads),
            )  # fmt: skip
        except ValueError as error:
            raise PolicyError(f"@cache on {name}: {error}") from error
        return _wrapped(function, Marker(name, policy))

    return decorate


def marker_of(function: Any) -> Marker | None:
    while isinstance(function, functools.partial):
        function = function.func
    marker = getattr(function, "__cache_marker__", None)
    return marker if isinstance(marker, Marker) else None


def _name(function: Any) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _wrapped(function: Callable[..., Any], marker: Marker) -> Any:
    # On the function itself too: a route decorator below this one has registered that.
    registered: Any = getattr(function, "__func__", function)
    registered.__cache_marker__ = marker
    if not inspect.iscoroutinefunction(function):
        return _sync_endpoint(function, marker)
    results = Results(function, marker.name, marker.policy)

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if _is_called_by_router(marker):
            with answering(None, None):
                return await function(*args, **kwargs)
        if not marker.policy.enabled:
            return await function(*args, **kwargs)
        return await results.get(args, kwargs)

    wrapper.invalidate = results.invalidate  # type: ignore[attr-defined]
    return wrapper


def _sync_endpoint(function: Callable[..., Any], marker: Marker) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not _is_called_by_router(marker) and active_cache.get(None) is not None:
            raise TypeError(f"@cache on {marker.name}: a cached function is `async def`")
        return function(*args, **kwargs)

    return wrapper


def _is_called_by_router(marker: Marker) -> bool:
    scope = request_scope.get()
    return scope is not None and marker_of(scope.get("endpoint")) is marker
