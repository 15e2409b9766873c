"""What one request may lose to a slow cache: one budget, however much is looked up for it.

`CacheMiddleware` begins it. Cached functions and computations on the way spend from the same one;
what runs outside of a request has one for each call. A cache that answers swiftly costs nothing,
or a request of many calls would end up without cache.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from app.cache.backends.base import REQUEST_BUDGET_SECONDS

P = ParamSpec("P")
R = TypeVar("R")

SWIFT_SECONDS = 0.01
# A response that is streamed for hours, or a WebSocket, gets a new budget now and then.
RENEWAL_SECONDS = 10.0


class Budget:
    left = REQUEST_BUDGET_SECONDS
    is_whole = True
    _since = 0.0
    """When it was touched first, by `time.monotonic`."""

    def spend(self, started: float) -> None:
        """The time since `started`, by `time.monotonic`, went by in waiting for the cache."""
        now = time.monotonic()
        if now - started > SWIFT_SECONDS:
            self._since = now if self.is_whole else self._since
            self.left -= now - started
            self.is_whole = False

    async def within(self, call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises TimeoutError when nothing is left of it, before the call or while it waits."""
        if not self.is_whole and time.monotonic() - self._since > RENEWAL_SECONDS:
            self.left, self.is_whole = REQUEST_BUDGET_SECONDS, True
        if self.left <= 0:
            raise TimeoutError("the cache has taken all the time that a request may lose")
        async with asyncio.timeout(self.left):
            return await call(*args, **kwargs)


current_budget: ContextVar[Budget | None] = ContextVar("current_budget", default=None)
