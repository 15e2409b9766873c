"""Writes: tags are held before COMMIT and released after it, and what the cache did not take is
owed until it does.

The commits of SQLAlchemy sessions drive this (`app.cache.commit`), and `Cache.invalidate`.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from app.cache.backend import REQUEST_BUDGET_SECONDS, Backend, CacheUnavailable
from app.cache.metrics import Recorder

RETRY_SECONDS = 0.2
# More invalidations than this are not worth telling apart: everything is invalidated instead.
MAX_OWED_TAGS = 10_000

log = logging.getLogger("app.cache")


@dataclass(frozen=True, slots=True)
class Hold:
    """A writer in progress: what it changes, and what it has spent of its request's budget."""

    tags: tuple[str, ...]
    writer: str
    spent: float = 0.0
    told: bool = False
    """Whether the cache knows of it, so that readers are held off."""


class Writes:
    """The writers of this process, and the invalidations that it still owes."""

    def __init__(self, backend: Backend, recorder: Recorder) -> None:
        self._backend, self._recorder = backend, recorder
        self._owed: dict[str, str] = {}  # tag: writer
        self._retry: asyncio.Task[None] | None = None

    async def invalidate(self, *tags: str) -> None:
        await self.release(Hold(tags, secrets.token_hex(8)), changed=True)

    async def hold(self, tags: Sequence[str]) -> Hold:
        """Before COMMIT: until the release, nobody finds or stores an entry with these tags.

        Never raises: see `Hold.told`.
        """
        writer, started, told = secrets.token_hex(8), time.monotonic(), True
        try:
            await self._backend.hold(tags, writer)
        except CacheUnavailable:
            told = False
        return Hold(tuple(tags), writer, time.monotonic() - started, told)

    async def release(self, hold: Hold, *, changed: bool) -> None:
        """After COMMIT or rollback. Never raises: what cannot be done now is retried until done."""
        try:
            async with asyncio.timeout(REQUEST_BUDGET_SECONDS - hold.spent):
                await self._backend.release(hold.tags, hold.writer, changed=changed)
        except (CacheUnavailable, TimeoutError):
            if changed:
                self._owe(hold)

    @property
    def pending(self) -> int:
        """The number of tags whose invalidation the cache has not taken yet."""
        return len(self._owed)

    def _owe(self, hold: Hold) -> None:
        self._recorder.count("pending_invalidation", "queued", len(hold.tags))
        log.warning("the cache did not take an invalidation, retrying: %s", ", ".join(hold.tags))
        self._owed.update(dict.fromkeys(hold.tags, hold.writer))
        if self._retry is None:
            self._retry = asyncio.create_task(self._retry_owed())

    async def _retry_owed(self) -> None:
        while self._owed:
            await asyncio.sleep(RETRY_SECONDS)
            with suppress(CacheUnavailable):
                if len(self._owed) > MAX_OWED_TAGS:
                    await self._backend.clear()
                    self._recorder.count("pending_invalidation", "done", len(self._owed))
                    self._owed.clear()
                for tag, writer in tuple(self._owed.items()):
                    await self._backend.release([tag], writer, changed=True)
                    self._recorder.count("pending_invalidation", "done")
                    if self._owed.get(tag) == writer:
                        del self._owed[tag]
        self._retry = None

    async def aclose(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.wait([self._retry])
            log.error("closing before the cache took %d invalidations", self.pending)
