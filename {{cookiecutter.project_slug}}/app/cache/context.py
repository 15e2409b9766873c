"""What code that runs for a request can find out: the open cache, and the request that is answered.

`CacheMiddleware` sets both around whatever it lets through, WebSockets included.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.types import Scope

if TYPE_CHECKING:
    from app.cache.core import Cache

active_cache: ContextVar["Cache"] = ContextVar("active_cache")
# Routing notes the endpoint in it. None while the endpoint runs: what that calls is no endpoint.
request_scope: ContextVar[Scope | None] = ContextVar("request_scope", default=None)


@contextmanager
def answering(cache: "Cache | None", scope: Scope | None) -> Iterator[None]:
    """Around whatever runs for a request; without a cache, the one that is active stays so."""
    of_scope = request_scope.set(scope)
    of_cache = active_cache.set(cache) if cache is not None else None
    try:
        yield
    finally:
        request_scope.reset(of_scope)
        if of_cache is not None:
            active_cache.reset(of_cache)
