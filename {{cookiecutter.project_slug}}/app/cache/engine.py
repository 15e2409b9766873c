"""The engine: one backend, and the lookups, flights and writes of this process.

`fetch` is the path of cached functions, `compute` that of every miss, `writes` that of every write.
It knows neither requests nor SQL.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from app.cache.backends.base import Backend
from app.cache.entry import Entry
from app.cache.events import Counters, Recorder
from app.cache.flights import Flights, Miss, depends_on_more
from app.cache.policy import EVERYTHING
from app.cache.reads import Coverage, Learned, NothingCovered, depend_on
from app.cache.store import Computed, Lookup, Store
from app.cache.writes import Writes

DRAIN_SECONDS = 5.0
# A text that holds values is another one each time.
MAX_SAID = 1000
WITHOUT_CACHE = "is answered without the cache"

log = logging.getLogger("app.cache")


class CacheEngine:
    """With `strict`, what only a value shows to be unsafe to cache raises; else it is counted."""

    def __init__(
        self,
        backend: Backend,
        *,
        name: str = "cache",
        recorder: Recorder | None = None,
        strict: bool = True,
        coverage: Coverage | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self.backend, self.name, self._strict = backend, name, strict
        self._said: set[tuple[str, str]] = set()
        self.recorder: Recorder = recorder or Counters()
        rng = rng or random.Random()
        self.writes = Writes(backend, self.recorder)
        self.store = Store(backend, self.writes, self.recorder, clock=clock, rng=rng)
        self.coverage = coverage or NothingCovered()
        self.learned = set[Learned]()
        """What the routes, and the functions that were computed, were seen to depend on."""
        self.flights = Flights(self.store, self.coverage, self.recorder, rng=rng)

    def refuse(
        self, reason: str, where: str, error: Exception, *, instead: str = WITHOUT_CACHE
    ) -> None:
        """What cannot be cached safely and only a value showed. Raises it where the cache is
        strict; else it is counted, logged once, and the caller does `instead`."""
        if self._strict:
            raise error
        self.recorder.count("refused", reason)
        self.say_once(reason, where, error, instead=instead)

    def say_once(
        self, reason: str, where: str, why: object, *, instead: str = WITHOUT_CACHE
    ) -> None:
        """Logs what happens at every request, so that nobody would see it otherwise."""
        if (reason, where) not in self._said and len(self._said) < MAX_SAID:
            self._said.add((reason, where))
            log.warning("%s %s: %s", where, instead, why)

    async def ping(self) -> None:
        """Raises CacheUnavailable when the backend does not answer."""
        await self.backend.ping()

    async def fetch(self, miss: Miss) -> bytes:
        """The payload: stored, or computed now. Raises what the computation raises."""
        found = await self.store.lookup(miss.key, miss.tags, miss.policy.local)
        if found.state == "fresh" and found.entry is not None:
            self.recorder.hit("fresh", found.entry)
            return self._handed_on(miss, found.entry)
        if found.state == "stale" and found.entry is not None:
            self.recorder.hit("stale", found.entry)
            self.flights.refresh(miss, found)
            return self._handed_on(miss, found.entry)
        result = await self.compute(miss, found)
        if result.payload is not None:
            return self._handed_on(miss, result)
        mine = await miss.compute()  # what it reads is noted as part of what called it
        assert mine.payload is not None
        return mine.payload

    def _handed_on(self, miss: Miss, result: Computed | Entry) -> bytes:
        """The result, of which the computation that asked for it is told what it depends on."""
        depend_on(miss.learned.name, result.generations)
        assert result.payload is not None
        return result.payload

    async def compute(self, miss: Miss, found: Lookup, *, late: bool = True) -> Computed | Entry:
        """What a miss leads to: a new result, or the stale entry when computing fails.

        Without a payload when only the request that it was made for may have the result.
        """
        self.recorder.count("miss", found.state)
        self.learned.add(miss.learned)
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
            if found.state == "fresh" and found.entry is not None:
                return found.entry
            return await self.compute(miss, found, late=False)
        if isinstance(landed, Entry):
            return landed
        if landed.failed and found.entry is not None:
            self.recorder.hit("error", found.entry)
            return found.entry
        mine = landed.shared or started
        return landed if mine else replace(landed, payload=None)

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
        """Lets computations and invalidations under way end, for DRAIN_SECONDS at most."""
        started = time.monotonic()
        await self.flights.drain(DRAIN_SECONDS)
        await self.writes.aclose(DRAIN_SECONDS - (time.monotonic() - started))
        await self.backend.aclose()
