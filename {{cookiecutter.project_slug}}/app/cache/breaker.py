"""A circuit breaker: after a few failures in a row nothing waits for Redis until it answers a
probe.

Closed: calls pass. Open: calls fail at once, while one background task probes. The first answer to
a probe closes it, so no request is spent on finding out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app.cache.backend import CacheUnavailable
from app.cache.metrics import Recorder

FAILURES_TO_OPEN = 3
PROBE_INTERVAL_SECONDS = 0.25

log = logging.getLogger("app.cache")


class Breaker:
    """`probe` raises CacheUnavailable while the server does not answer."""

    def __init__(self, probe: Callable[[], Awaitable[None]], recorder: Recorder) -> None:
        self._probe, self._recorder = probe, recorder
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Raises CacheUnavailable while it is open."""
        if self._probing is not None:
            raise CacheUnavailable("the cache is not answering")

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, operation: str, error: Exception, *, answered: bool = False) -> None:
        """With `answered` it was refused (out of memory, wrong type): the server is there."""
        self._recorder.count("error", operation)
        self._failures += not answered
        if self._failures >= FAILURES_TO_OPEN and self._probing is None:
            log.warning("cache is unavailable, serving without it: %r", error)
            self._recorder.count("breaker", "open")
            self._probing = asyncio.create_task(self._probe_until_answered())

    async def _probe_until_answered(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)
            try:
                await self._probe()
            except CacheUnavailable:
                continue
            break
        self._failures, self._probing = 0, None
        self._recorder.count("breaker", "closed")
        log.info("cache answers again")

    async def aclose(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
            self._probing = None
