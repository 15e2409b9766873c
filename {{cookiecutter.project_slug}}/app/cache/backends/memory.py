"""The cache of one process: `memory://`. The same contract as Redis, without a server."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from app.cache.backends.base import (
    GENERATION_SECONDS,
    HOLD_SECONDS,
    LOCK_SECONDS,
    Begun,
    Found,
    Generations,
)
from app.cache.backends.s3fifo import S3Fifo
from app.cache.entry import GENERATION_BYTES, Entry

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 1024 * 1024
MAX_TAGS = 100_000


@dataclass(slots=True)
class _Generation:
    value: bytes
    expires: float


@dataclass(slots=True)
class _Lock:
    token: str
    generations: Generations
    deadline: float


class InMemoryBackend:
    """Bounded by `max_entries` and `max_bytes`; `clock` gives seconds that never go back."""

    warnings: Sequence[str] = ()

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.entries: S3Fifo[tuple[Entry, float]] = S3Fifo(max_entries, max_bytes)
        # Clients choose names of tags, and ask for what does not exist: what no entry uses goes
        # first. Holders are not bounded, as each is a writer in progress.
        self._generations: S3Fifo[_Generation] = S3Fifo(MAX_TAGS, 0, remembers=False)
        self._holders: dict[str, dict[str, float]] = {}
        self._locks: dict[str, _Lock] = {}

    async def read(self, key: str, tags: Sequence[str], local: float = 0) -> Found:
        now = self._clock()
        entry = self._entry(key, now)
        used = entry is not None
        valid = entry is not None and all(
            self._generation(tag, now, used=True) == generation
            for tag, generation in entry.generations.items()
        )
        generations = {tag: self._generation(tag, now, used=used) for tag in tags}
        return Found(entry, _complete(generations), valid)

    async def begin(self, key: str, tags: Sequence[str], token: str) -> Begun:
        now = self._clock()
        entry = self._entry(key, now)
        generations = _complete(
            {tag: self._generation(tag, now) or self._create(tag, now) for tag in tags}
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
        for tag in entry.generations:
            if (generation := self._generations.get(tag)) is not None:
                generation.expires = max(generation.expires, expires)
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
            self._generations.remove(tag)

    async def release(self, tags: Sequence[str], writer: str, *, changed: bool) -> None:
        for tag in tags:
            holders = self._holders.get(tag, {})
            holders.pop(writer, None)
            if not holders:
                self._holders.pop(tag, None)
            if changed:
                self._generations.remove(tag)

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

    def _generation(self, tag: str, now: float, *, used: bool = False) -> bytes | None:
        generation = self._generations.get(tag, counts=used)
        return generation.value if generation is not None and generation.expires > now else None

    def _create(self, tag: str, now: float) -> bytes | None:
        if any(deadline > now for deadline in self._holders.get(tag, {}).values()):
            return None
        generation = _Generation(secrets.token_bytes(GENERATION_BYTES), now + GENERATION_SECONDS)
        self._generations.put(tag, generation, 0)
        return generation.value


def _complete(generations: Mapping[str, bytes | None]) -> Generations | None:
    return None if None in generations.values() else generations  # type: ignore[return-value]
