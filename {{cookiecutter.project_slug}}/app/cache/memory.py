"""The cache of one process: `memory://`. The same contract as Redis, without a server."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.cache.backend import GENERATION_SECONDS, HOLD_SECONDS, LOCK_SECONDS, Begun, Found
from app.cache.entry import GENERATION_BYTES, Entry
from app.cache.s3fifo import S3Fifo

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 1024 * 1024
MAX_TAGS = 100_000


@dataclass(slots=True)
class _Lock:
    token: str
    generations: bytes
    deadline: float


class InMemoryBackend:
    """Bounded by `max_entries` and `max_bytes`; `clock` gives seconds that never go back."""

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.entries: S3Fifo[tuple[Entry, float]] = S3Fifo(max_entries, max_bytes)
        self._generations: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._holders: dict[str, dict[str, float]] = {}
        self._locks: dict[str, _Lock] = {}

    async def read(self, key: str, tags: Sequence[str], local: float = 0) -> Found:
        now = self._clock()
        generations = _joined([self._generation(tag, now) for tag in tags])
        return Found(self._entry(key, now), generations)

    async def begin(self, key: str, tags: Sequence[str], token: str) -> Begun:
        now = self._clock()
        entry = self._entry(key, now)
        generations = _joined(
            [self._generation(tag, now) or self._create(tag, now) for tag in tags]
        )
        if generations is None:
            return Begun(None, False, entry)
        lock = self._locks.get(key)
        if lock and lock.generations == generations and lock.deadline > now:
            return Begun(generations, lock.token == token, entry)
        self._locks[key] = _Lock(token, generations, now + LOCK_SECONDS)
        return Begun(generations, True, entry)

    async def store(
        self, key: str, tags: Sequence[str], entry: Entry, seconds: float, token: str = ""
    ) -> None:
        expires = self._clock() + seconds
        self.entries.put(key, (entry, expires), entry.size)
        for tag in tags:
            if tag in self._generations:
                generation, until = self._generations[tag]
                self._generations[tag] = (generation, max(until, expires))
        await self.unlock(key, tags, token)

    async def extend(self, key: str, tags: Sequence[str], token: str) -> None:
        lock = self._locks.get(key)
        if lock and lock.token == token:
            lock.deadline = self._clock() + LOCK_SECONDS

    async def unlock(self, key: str, tags: Sequence[str], token: str) -> None:
        lock = self._locks.get(key)
        if lock and lock.token == token:
            del self._locks[key]

    async def hold(self, tags: Sequence[str], writer: str) -> None:
        deadline = self._clock() + HOLD_SECONDS
        for tag in tags:
            self._holders.setdefault(tag, {})[writer] = deadline
            self._generations.pop(tag, None)

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        for tag in tags:
            holders = self._holders.get(tag, {})
            holders.pop(writer, None)
            if not holders:
                self._holders.pop(tag, None)
            if changed:
                self._generations.pop(tag, None)

    async def clear(self) -> None:
        self._generations.clear()

    async def ping(self) -> None:
        return None

    async def aclose(self) -> None:
        return None

    def _entry(self, key: str, now: float) -> Entry | None:
        entry, expires = self.entries.get(key) or (None, 0.0)
        if entry is not None and expires <= now:
            self.entries.remove(key)
            return None
        return entry

    def _generation(self, tag: str, now: float) -> bytes | None:
        generation, expires = self._generations.get(tag, (None, 0.0))
        return generation if expires > now else None

    def _create(self, tag: str, now: float) -> bytes | None:
        if any(deadline > now for deadline in self._holders.get(tag, {}).values()):
            return None
        generation = secrets.token_bytes(GENERATION_BYTES)
        self._generations[tag] = (generation, now + GENERATION_SECONDS)
        if len(self._generations) > MAX_TAGS:
            self._generations.popitem(last=False)
        return generation


def _joined(generations: Sequence[bytes | None]) -> bytes | None:
    return None if None in generations else b"".join(generations)  # type: ignore[arg-type]
