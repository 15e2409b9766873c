"""What code that runs for a request can find out: the open cache, the request that is answered, and
what it may still lose to the cache.

`CacheMiddleware` sets them around whatever it lets through, WebSockets included.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import Scope

from app.cache.budget import Budget, current_budget
from app.cache.engine import CacheEngine

active_cache: ContextVar[CacheEngine] = ContextVar("active_cache")
# Routing notes the endpoint in it. None while the endpoint runs: what that calls is no endpoint.
request_scope: ContextVar[Scope | None] = ContextVar("request_scope", default=None)


@contextmanager
def answering(
    cache: CacheEngine | None, scope: Scope | None, budget: Budget | None = None
) -> Iterator[None]:
    """Around whatever runs for a request; without a cache, or a budget, those of now stay."""
    of_scope = request_scope.set(scope)
    of_cache = active_cache.set(cache) if cache is not None else None
    of_budget = current_budget.set(budget) if budget is not None else None
    try:
        yield
    finally:
        request_scope.reset(of_scope)
        if of_cache is not None:
            active_cache.reset(of_cache)
        if of_budget is not None:
            current_budget.reset(of_budget)
