"""The cache as the application holds it: opened in the lifespan, closed with it.

`fetch` is the path of every miss and of cached functions; `writes` is the path of every write.
"""

import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import get_args
from urllib.parse import urlsplit

from fastapi import FastAPI

from app.cache.backends.base import Backend, CacheUnavailable, UnsupportedServer
from app.cache.backends.memory import InMemoryBackend
from app.cache.backends.redis.backend import RedisBackend
from app.cache.context import active_cache
from app.cache.entry import Entry
from app.cache.events import Counters, Recorder
from app.cache.flights import Flights, Miss, depends_on_more
from app.cache.http.routes import RouteTable
from app.cache.policy import EVERYTHING
from app.cache.reads import Coverage, NothingCovered, Unclear, depend_on
from app.cache.store import Computed, Lookup, Store
from app.cache.writes import Writes

# After a result that nobody may share, requests do not queue behind each other for so long.
HIT_FOR_MISS_SECONDS = 1.0
MAX_HITS_FOR_MISS = 10_000
DRAIN_SECONDS = 5.0

log = logging.getLogger("app.cache")


class Cache:
    """One backend, and the flights and the writes of this process."""

    def __init__(
        self,
        backend: Backend,
        *,
        name: str = "cache",
        recorder: Recorder | None = None,
        client_may_bypass: bool = False,
        strict: bool = True,
        coverage: Coverage | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.backend, self.name, self.slug = backend, name, name.encode()
        self.client_may_bypass, self._strict = client_may_bypass, strict
        self._said: set[tuple[str, str]] = set()
        self.recorder: Recorder = recorder or Counters()
        rng = rng or random.Random()
        self.writes = Writes(backend, self.recorder)
        self.store = Store(backend, self.writes, self.recorder, clock=clock, rng=rng)
        self.coverage = coverage or NothingCovered()
        self.flights = Flights(self.store, self.coverage, self.recorder, rng=rng)
        self._tables: dict[FastAPI, RouteTable] = {}
        self._hits_for_miss: dict[str, tuple[float, str]] = {}

    def bind(self, app: FastAPI) -> RouteTable:
        """Analyses the routes of `app`. Raises PolicyError for one that cannot be cached safely."""
        table = self._tables.get(app)
        if table is None:
            table = self._tables[app] = RouteTable(app, self.coverage)
            for mounted in table.mounted:
                self.bind(mounted)
        return table

    def refuse(self, reason: str, where: str, error: Exception) -> None:
        """What cannot be cached safely and only a value showed. Raises it where the cache is
        strict; else it is counted, logged once, and the caller answers without the cache."""
        if self._strict:
            raise error
        self.recorder.count("refused", reason)
        self.say_once(reason, where, error)

    def say_once(self, reason: str, where: str, why: object) -> None:
        """Logs what happens at every request, so that nobody would see it otherwise."""
        if (reason, where) not in self._said:
            self._said.add((reason, where))
            log.warning("%s is answered without the cache: %s", where, why)

    async def ping(self) -> None:
        """Raises CacheUnavailable when the backend does not answer."""
        await self.backend.ping()

    async def fetch(self, miss: Miss) -> bytes:
        """The payload: stored, or computed now. Raises what the computation raises."""
        found = await self.store.lookup(miss.key, miss.tags, miss.policy.local)
        if found.state == "fresh" and found.entry is not None:
            self.recorder.hit("fresh", found.entry)
            return self._handed_on(found.entry)
        if found.state == "stale" and found.entry is not None:
            self.recorder.hit("stale", found.entry)
            self.flights.refresh(miss, found)
            return self._handed_on(found.entry)
        if (result := await self.compute(miss, found)) is not None:
            return self._handed_on(result)
        mine = await miss.compute()  # what it reads is noted as part of what called it
        assert mine.payload is not None
        return mine.payload

    def _handed_on(self, result: Computed | Entry) -> bytes:
        """The result, of which the computation that asked for it is told what it depends on."""
        depend_on(result.generations)
        assert result.payload is not None
        return result.payload

    async def compute(
        self, miss: Miss, found: Lookup, *, late: bool = True
    ) -> Computed | Entry | None:
        """What a miss leads to: a new result, or the stale entry when computing fails.

        None when there is a result that only the request it was made for may have.
        """
        self.recorder.count("miss", found.state)
        if self.flights.waits_for_caller(miss.key):
            return await miss.compute()
        flight, started = self.flights.join(miss, found, late=late)
        joined_late = not started and flight.begun
        try:
            landed = await self.flights.wait(flight)
        except Exception:
            if found.entry is None:
                raise
            self.recorder.hit("error", found.entry)
            return found.entry
        if joined_late and depends_on_more(landed.generations, flight.generations):
            found = await self.store.lookup(miss.key, miss.tags)
            if found.state == "fresh":
                return found.entry
            return await self.compute(miss, found, late=False)
        if isinstance(landed, Entry):
            return landed
        if landed.failed and found.entry is not None:
            self.recorder.hit("error", found.entry)
            return found.entry
        if not landed.shared:
            self._remember_unshared(miss.key, "hit-for-miss")
        elif landed.why_not_stored in get_args(Unclear):
            self._remember_unshared(miss.key, landed.why_not_stored)
        mine = started and landed.payload is not None
        return landed if landed.shared or mine else None

    def why_not_shared(self, key: str) -> str | None:
        """Why this request need not wait for others, as the last result was nobody else's."""
        until, why = self._hits_for_miss.get(key, (0.0, ""))
        return why if until > time.monotonic() else None

    def _remember_unshared(self, key: str, why: str) -> None:
        if len(self._hits_for_miss) >= MAX_HITS_FOR_MISS:
            self._hits_for_miss.clear()
        self._hits_for_miss[key] = (time.monotonic() + HIT_FOR_MISS_SECONDS, why)

    async def invalidate(self, *tags: str) -> None:
        """Makes every entry with one of these tags a miss. Call it after the data has changed."""
        await self.writes.invalidate(*tags)

    async def clear(self) -> None:
        """Makes every entry a miss. Raises CacheUnavailable."""
        await self.backend.release([EVERYTHING], "", changed=True)

    @property
    def warnings(self) -> Sequence[str]:
        """What is promised and cannot be kept with this server, in words."""
        return self.backend.warnings

    @property
    def pending(self) -> int:
        """The number of tags whose invalidation the cache has not taken yet, or whose COMMIT is in
        doubt."""
        return self.writes.pending

    async def aclose(self) -> None:
        await self.flights.drain(DRAIN_SECONDS)
        await self.writes.aclose()
        await self.backend.aclose()


@asynccontextmanager
async def open_cache(
    url: str,
    *,
    name: str = "cache",
    recorder: Recorder | None = None,
    client_may_bypass: bool = False,
    strict: bool = True,
    coverage: Coverage | None = None,
) -> AsyncIterator[Cache]:
    """The cache at `memory://`, `redis://…` or `rediss://…`. Redis need not answer yet.

    Cached functions find it for as long as the block lasts. With `client_may_bypass` a request that
    says `Cache-Control: no-cache` or `no-store` goes to the origin, so that any client can load it.
    With `strict`, what turns out to be unsafe to cache (a user without an identity, a result that
    is not read back as it was) is an error: for development and tests. Without, it is answered
    uncached, counted and logged.

    Raises ValueError for another URL, and UnsupportedServer for a Redis Cluster.
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
    cache = Cache(
        backend,
        name=name,
        recorder=recorder,
        client_may_bypass=client_may_bypass,
        strict=strict,
        coverage=coverage,
    )
    try:
        await cache.ping()  # a connection now, not when the first requests wait for it
    except UnsupportedServer:
        await cache.aclose()
        raise
    except CacheUnavailable:
        pass  # it was counted; caching begins when the server answers
    token = active_cache.set(cache)
    try:
        yield cache
    finally:
        active_cache.reset(token)
        await cache.aclose()
