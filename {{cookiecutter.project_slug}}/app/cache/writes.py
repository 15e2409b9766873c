"""Writes: tags are held before COMMIT and released after it.

What the cache did not take is owed: it is repeated until it is taken, and until then this process
finds nothing under these tags. Where the outcome of a COMMIT is not known, its hold stays until the
transaction has ended. COMMITs (`app.cache.sql.commit`) and `Cache.invalidate` drive this.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from app.cache.backends.base import HOLD_SECONDS, REQUEST_BUDGET_SECONDS, Backend, CacheUnavailable
from app.cache.events import Recorder
from app.cache.policy import EVERYTHING

RETRY_SECONDS = 0.2
# More invalidations than this are not worth telling apart: everything is invalidated instead.
MAX_OWED_TAGS = 10_000
MAX_SHOWN_TAGS = 20
# How often, and for how long each time, the database is asked what became of a COMMIT in doubt.
FIRST_ASK_SECONDS, LAST_ASK_SECONDS, ASK_TIMEOUT_SECONDS = 0.1, 2.0, 5.0

log = logging.getLogger("app.cache")


@dataclass(slots=True)
class Hold:
    """A writer in progress: what it changes, and what it has spent of its request's budget."""

    tags: tuple[str, ...]
    writer: str
    spent: float = 0.0
    told: bool = False
    """Whether the cache knows of it, so that readers are held off."""
    since: float = 0.0
    """When the cache was told last, by `time.monotonic`."""


class Writes:
    """The writers of this process, and the invalidations that it still owes."""

    def __init__(self, backend: Backend, recorder: Recorder) -> None:
        self._backend, self._recorder = backend, recorder
        self._open: dict[str, Hold] = {}  # by writer
        self._owed: dict[str, str] = {}  # tag: writer
        self.owed: frozenset[str] = frozenset()
        """Tags that may have changed without the cache knowing it."""
        self._doubts: dict[str, Hold] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewal: asyncio.Task[None] | None = None
        self._retrying = False

    @property
    def pending(self) -> int:
        """The number of tags whose invalidation the cache has not taken yet, or whose COMMIT is in
        doubt."""
        return len(self._owed) + sum(len(hold.tags) for hold in self._doubts.values())

    async def invalidate(self, *tags: str) -> None:
        await self.release(Hold(tags, secrets.token_hex(8)), changed=True)

    async def hold(self, tags: Sequence[str]) -> Hold:
        """Before COMMIT: until the release, nobody finds or stores an entry with these tags.

        Raises nothing of the cache: see `Hold.told`. The hold is renewed for as long as it takes.
        """
        started = time.monotonic()
        hold = Hold(tuple(tags), secrets.token_hex(8))
        await self._tell(hold)
        hold.spent = time.monotonic() - started
        self._open[hold.writer] = hold
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        return hold

    async def release(self, hold: Hold, *, changed: bool) -> None:
        """After COMMIT or rollback. What cannot be done now is retried until done."""
        self._open.pop(hold.writer, None)
        try:
            async with asyncio.timeout(REQUEST_BUDGET_SECONDS - hold.spent):
                await self._backend.release(hold.tags, hold.writer, changed=changed)
        except BaseException as error:
            if changed:
                self._owe(hold)
            if not isinstance(error, CacheUnavailable | TimeoutError):
                raise  # cancelled: whether the cache has taken it is not known

    def doubt(self, hold: Hold, is_over: Callable[[], Awaitable[bool]]) -> None:
        """COMMIT was sent and not answered: the hold stays until `is_over` says that the
        transaction has ended. Then it is released as changed: that is right either way."""
        log.warning("COMMIT in doubt, its tags are held meanwhile: %s", ", ".join(hold.tags))
        self._recorder.count("commit_in_doubt", "open")
        self._doubts[hold.writer] = hold
        if not hold.told:
            self._owe(replace(hold, writer=secrets.token_hex(8)))
        self._run(self._settle(hold, is_over))

    async def _settle(self, hold: Hold, is_over: Callable[[], Awaitable[bool]]) -> None:
        pause = FIRST_ASK_SECONDS
        while True:
            try:
                async with asyncio.timeout(ASK_TIMEOUT_SECONDS):
                    if await is_over():
                        break
            except Exception as error:  # whatever it is, the database is asked again
                if pause == FIRST_ASK_SECONDS:  # once, not at each try
                    log.warning("what became of a COMMIT cannot be asked yet: %r", error)
            if not hold.told:
                await self._tell(hold)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_ASK_SECONDS)
        await self.release(hold, changed=True)
        del self._doubts[hold.writer]
        self._recorder.count("commit_in_doubt", "settled")
        log.info("COMMIT is no longer in doubt: %s", ", ".join(hold.tags))

    async def _tell(self, hold: Hold) -> None:
        hold.since = time.monotonic()
        try:
            await self._backend.hold(hold.tags, hold.writer)
            hold.told = True
        except CacheUnavailable:
            hold.told = False

    async def _renew(self) -> None:
        """One task for all holds; only those of slow COMMITs live long enough to need it."""
        while self._open:
            await asyncio.sleep(HOLD_SECONDS / 3)
            for writer, hold in tuple(self._open.items()):
                if writer in self._open and time.monotonic() - hold.since > HOLD_SECONDS / 4:
                    await self._tell(hold)

    def _owe(self, hold: Hold) -> None:
        self._recorder.count("pending_invalidation", "queued", len(hold.tags))
        log.warning("the cache did not take an invalidation, retrying: %s", ", ".join(hold.tags))
        self._owed.update(dict.fromkeys(hold.tags, hold.writer))
        if EVERYTHING in self._owed or len(self._owed) > MAX_OWED_TAGS:
            self._owed = {EVERYTHING: hold.writer}
        self.owed = frozenset(self._owed)
        if not self._retrying:
            self._retrying = True
            self._run(self._retry())

    async def _retry(self) -> None:
        while self._owed:
            await asyncio.sleep(RETRY_SECONDS)
            tags_by_writer: dict[str, list[str]] = {}
            for tag, writer in self._owed.items():
                tags_by_writer.setdefault(writer, []).append(tag)
            with suppress(CacheUnavailable):
                for writer, tags in tags_by_writer.items():
                    await self._repeat(writer, tags)
        self._retrying = False

    async def _repeat(self, writer: str, tags: Sequence[str]) -> None:
        await self._backend.release(tags, writer, changed=True)
        self._recorder.count("pending_invalidation", "done", len(tags))
        for tag in tags:
            if self._owed.get(tag) == writer:  # not owed anew meanwhile
                del self._owed[tag]
        self.owed = frozenset(self._owed)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self, seconds: float) -> None:
        """Waits so long for what is pending; an error in the log says what is left then."""
        until = time.monotonic() + seconds
        while self._tasks and (left := until - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for hold in self._doubts.values():
            await self._tell(hold)
        tasks = self._tasks | ({self._renewal} if self._renewal else set())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._doubts:
            log.error(
                "closing with %d COMMITs in doubt: their tags are held for %g more seconds",
                len(self._doubts),
                HOLD_SECONDS,
            )
        if self._owed:
            log.error(
                "closing before the cache took %d invalidations: what depends on them may be old"
                " until it expires, or until `Cache.clear()`: %s",
                len(self._owed),
                ", ".join(list(self._owed)[:MAX_SHOWN_TAGS]),
            )
