"""A circuit breaker: after a few failures in a row nothing waits for Redis until it answers a
probe. One failure is enough where it shows that Redis takes no invalidations: nothing is served
from a cache that cannot be told.

Closed: calls pass. Open: calls fail at once, while one background task probes. The first probe that
succeeds closes it, so no request is spent on finding out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app.cache.backends.base import CacheUnavailable
from app.cache.events import Recorder

FAILURES_TO_OPEN = 3
PROBE_INTERVAL_SECONDS = 0.25

log = logging.getLogger("app.cache")


class Breaker:
    """`probe` raises CacheUnavailable while the server cannot be used."""

    def __init__(self, probe: Callable[[], Awaitable[object]], recorder: Recorder) -> None:
        self._probe, self._recorder = probe, recorder
        self._failures, self._closed = 0, False
        self._probing: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raises CacheUnavailable while it is open."""
        if self._probing is not None:
            raise CacheUnavailable("the cache is not answering")

    def succeeded(self) -> None:
        self._failures = 0

    def failed(
        self, operation: str, error: Exception, *, at_once: bool = False, counts: bool = True
    ) -> None:
        self._recorder.count("error", operation)
        self._failures += counts
        if self._closed or self._probing is not None:
            return
        if at_once or self._failures >= FAILURES_TO_OPEN:
            log.warning("cache is unavailable, serving without it: %r", error)
            self._recorder.count("breaker", "open")
            self._probing = asyncio.create_task(self._probe_until_answered())

    async def _probe_until_answered(self) -> None:
        while True:
            try:
                await self._probe()
                break
            except CacheUnavailable:
                await asyncio.sleep(PROBE_INTERVAL_SECONDS)
        self._failures, self._probing = 0, None
        self._recorder.count("breaker", "closed")
        log.info("cache answers again")

    async def aclose(self) -> None:
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
            self._probing = None
