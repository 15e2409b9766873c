"""The cache as the application holds it: opened in the lifespan, closed with it.

`fetch` is the path of every miss and of cached functions; `hold` and `release` are the write path,
driven by the commits of SQLAlchemy sessions (`app.cache.commit`) or by `invalidate`.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import FastAPI

from app.cache.backend import REQUEST_BUDGET_SECONDS, Backend, CacheUnavailable
from app.cache.entry import Entry
from app.cache.flight import Flights, Miss
from app.cache.function import active_cache
from app.cache.memory import InMemoryBackend
from app.cache.metrics import Counters, Recorder
from app.cache.redis import RedisBackend
from app.cache.routes import RouteTable
from app.cache.store import Computed, Lookup, Store

# After a result that nobody may share, requests do not queue behind each other for so long.
HIT_FOR_MISS_SECONDS = 1.0
MAX_HITS_FOR_MISS = 10_000
RETRY_SECONDS = 0.2
# More invalidations than this are not worth telling apart: everything is invalidated instead.
MAX_OWED_TAGS = 10_000
DRAIN_SECONDS = 5.0

log = logging.getLogger("app.cache")


@dataclass(frozen=True, slots=True)
class Hold:
    """A writer in progress: what it changes, and what it has spent of its request's budget."""

    tags: tuple[str, ...]
    writer: str
    spent: float = 0.0
    told: bool = False
    """Whether the cache knows of it, so that readers are held off."""


class Cache:
    """One backend, the flights of this process, and the invalidations it still owes."""

    def __init__(
        self,
        backend: Backend,
        *,
        name: str = "cache",
        recorder: Recorder | None = None,
        client_may_bypass: bool = False,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.backend, self.name, self.slug = backend, name, name.encode()
        self.client_may_bypass = client_may_bypass
        self.recorder: Recorder = recorder or Counters()
        rng = rng or random.Random()
        self.store = Store(backend, self.recorder, clock=clock, rng=rng)
        self.flights = Flights(self.store, self.recorder, rng=rng)
        self._owed: dict[str, str] = {}  # tag: writer
        self._retry: asyncio.Task[None] | None = None
        self._tables: dict[FastAPI, RouteTable] = {}
        self._hits_for_miss: dict[str, float] = {}

    def bind(self, app: FastAPI) -> RouteTable:
        """Analyses the routes of `app`. Raises PolicyError for one that cannot be cached safely."""
        table = self._tables.get(app)
        if table is None:
            table = self._tables[app] = RouteTable(app)
            for mounted in table.mounted:
                self.bind(mounted)
        return table

    async def ping(self) -> None:
        """Raises CacheUnavailable when the backend does not answer."""
        await self.backend.ping()

    async def fetch(self, miss: Miss) -> bytes:
        """The payload: stored, or computed now. Raises what the computation raises."""
        found = await self.store.lookup(miss.key, miss.tags, miss.policy.local)
        if found.state == "fresh" and found.entry is not None:
            self.recorder.hit("fresh", found.entry)
            return found.entry.payload
        if found.state == "stale" and found.entry is not None:
            self.recorder.hit("stale", found.entry)
            self.flights.refresh(miss, found)
            return found.entry.payload
        result = await self.compute(miss, found) or await miss.compute()
        assert result.payload is not None
        return result.payload

    async def compute(self, miss: Miss, found: Lookup) -> Computed | Entry | None:
        """What a miss leads to: a new result, or the stale entry when computing fails.

        None when there is a result that only the request it was made for may have.
        """
        self.recorder.count("miss", found.state)
        flight, started = self.flights.join(miss, found)
        try:
            landed = await asyncio.shield(flight.landed)
        except Exception:
            if found.entry is None:
                raise
            self.recorder.hit("error", found.entry)
            return found.entry
        if isinstance(landed, Entry):
            return landed
        if landed.failed and found.entry is not None:
            self.recorder.hit("error", found.entry)
            return found.entry
        if not landed.shared:
            self._remember_unshared(miss.key)
        mine = started and landed.payload is not None
        return landed if landed.shared or mine else None

    def is_hit_for_miss(self, key: str) -> bool:
        return self._hits_for_miss.get(key, 0.0) > time.monotonic()

    def _remember_unshared(self, key: str) -> None:
        if len(self._hits_for_miss) >= MAX_HITS_FOR_MISS:
            self._hits_for_miss.clear()
        self._hits_for_miss[key] = time.monotonic() + HIT_FOR_MISS_SECONDS

    async def invalidate(self, *tags: str) -> None:
        """Makes every entry with one of these tags a miss. Call it after the data has changed."""
        await self.release(Hold(tags, secrets.token_hex(8)), changed=True)

    async def clear(self) -> None:
        """Makes every entry a miss. Raises CacheUnavailable."""
        await self.backend.clear()

    async def hold(self, tags: Sequence[str]) -> Hold:
        """Before COMMIT: until the release, nobody finds or stores an entry with these tags.

        Never raises: see `Hold.told`.
        """
        writer, started, told = secrets.token_hex(8), time.monotonic(), True
        try:
            await self.backend.hold(tags, writer)
        except CacheUnavailable:
            told = False
        return Hold(tuple(tags), writer, time.monotonic() - started, told)

    async def release(self, hold: Hold, *, changed: bool) -> None:
        """After COMMIT or rollback. Never raises: what cannot be done now is retried until done."""
        try:
            async with asyncio.timeout(REQUEST_BUDGET_SECONDS - hold.spent):
                await self.backend.release(hold.tags, hold.writer, changed=changed)
        except (CacheUnavailable, TimeoutError):
            if changed:
                self._owe(hold)

    @property
    def pending(self) -> int:
        """The number of tags whose invalidation the cache has not taken yet."""
        return len(self._owed)

    def _owe(self, hold: Hold) -> None:
        self.recorder.count("pending_invalidation", "queued", len(hold.tags))
        log.warning("the cache did not take an invalidation, retrying: %s", ", ".join(hold.tags))
        self._owed.update(dict.fromkeys(hold.tags, hold.writer))
        if self._retry is None:
            self._retry = asyncio.create_task(self._retry_owed())

    async def _retry_owed(self) -> None:
        while self._owed:
            await asyncio.sleep(RETRY_SECONDS)
            with suppress(CacheUnavailable):
                if len(self._owed) > MAX_OWED_TAGS:
                    await self.backend.clear()
                    self.recorder.count("pending_invalidation", "done", len(self._owed))
                    self._owed.clear()
                for tag, writer in tuple(self._owed.items()):
                    await self.backend.release([tag], writer, changed=True)
                    self.recorder.count("pending_invalidation", "done")
                    if self._owed.get(tag) == writer:
                        del self._owed[tag]
        self._retry = None

    async def aclose(self) -> None:
        await self.flights.drain(DRAIN_SECONDS)
        if self._retry is not None:
            self._retry.cancel()
            await asyncio.wait([self._retry])
            log.error("closing before the cache took %d invalidations", self.pending)
        await self.backend.aclose()


@asynccontextmanager
async def open_cache(
    url: str,
    *,
    name: str = "cache",
    recorder: Recorder | None = None,
    client_may_bypass: bool = False,
) -> AsyncIterator[Cache]:
    """The cache at `memory://`, `redis://…` or `rediss://…`. Redis need not answer yet.

    Cached functions find it for as long as the block lasts. With `client_may_bypass` a request that
    says `Cache-Control: no-cache` or `no-store` goes to the origin, so that any client can load it.

    Raises ValueError for another URL.
    """
    recorder = recorder or Counters()
    backend: Backend
    match urlsplit(url).scheme:
        case "memory":
            backend = InMemoryBackend()
        case "redis" | "rediss":
            backend = RedisBackend(url, name=name, recorder=recorder)
        case scheme:
            raise ValueError(
                f"CACHE_URL begins with {scheme!r}: allowed are memory://, redis:// and rediss://"
            )
    cache = Cache(backend, name=name, recorder=recorder, client_may_bypass=client_may_bypass)
    with suppress(CacheUnavailable):  # a connection now, not when the first requests wait for it
        await cache.ping()
    token = active_cache.set(cache)
    try:
        yield cache
    finally:
        active_cache.reset(token)
        await cache.aclose()
